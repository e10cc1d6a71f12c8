"""s-Aff-Wild2, the multi-task challenge (Kollias, 2022): valence, arousal, expression and 12 AUs in one row per frame.

Each task has its own code for what is not annotated: -5, -1, -1. A record is a run of consecutive frames of one class
with the labels of all three tasks; class 7 "other" is kept by option, for models whose vocabulary has it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

import numpy as np
from pydantic import Field

from ssm.labels import AFFECT, BASIC_EXPRESSIONS, OTHER, Vocabulary
from ssm_platform.corpora.affect import AffectRows
from ssm_platform.corpora.base import AUOptions, Corpus, Report
from ssm_platform.corpora.labels import Coding, FrameLabels, LabelRows, frame_number
from ssm_platform.corpora.readers.action_units.affwild2_au import AUS
from ssm_platform.corpora.readers.affect.affwild2_va import CODING
from ssm_platform.corpora.readers.affwild2 import Crops, video_of
from ssm_platform.corpora.readers.expressions.affwild2_expr import CLASSES
from ssm_platform.corpora.sources import Sequence, labelled_records
from ssm_platform.corpora.text import integer, portable, read_csv
from ssm_platform.corpora.tree import find_file
from ssm_platform.records import Record

_LISTS = {"train": "training_set_annotations.txt", "validation": "validation_set_annotations.txt"}
_PLACES = ("{}", "*annotations*/{}", "MTL_Challenge/{}")
_CELLS = 4 + len(AUS)
_AU_CODING = Coding(missing=(-1,))
_OTHER, _INVALID = 7, -1


class AffWild2MTLOptions(AUOptions):
    """s-Aff-Wild2: which AUs, and whether "other" is a class."""

    scored = AUS
    aus: tuple[int, ...] = Field(default=AUS, description="AU numbers to use as label columns, in this order")
    other: bool = Field(default=False, description="keep class 7, 'other', for a model whose vocabulary has it")

    def vocabulary(self, root: Path) -> Vocabulary:
        """The columns of all three tasks."""
        classes = (*BASIC_EXPRESSIONS, OTHER) if self.other else BASIC_EXPRESSIONS
        return Vocabulary(aus=self.aus, expressions=classes, affect=AFFECT)


def read(root: Path, options: AffWild2MTLOptions, report: Report) -> Iterator[Record]:
    """All listed frames, in runs; parts "train" and "validation"."""
    crops = Crops(root)
    for part, name in _LISTS.items():
        path = find_file(root, *(place.format(name) for place in _PLACES))
        if path is None:
            report.note(root / name, None, "absent", "each part has a list; this one is left out")
            continue
        for video, rows in _videos(path, options, report).items():
            labels = rows.labels()
            frames = crops.frames(video, report, labels.cause)
            if frames is not None:
                who = Sequence(f"{part}/{video}", None, part, video_of(video))
                yield from labelled_records(who, labels, frames, report, sparse=True)


@dataclass(frozen=True)
class _Rows:
    """The rows of one video, task by task."""

    aus: LabelRows
    affect: AffectRows
    expressions: dict[int, str | None]

    def labels(self) -> FrameLabels:
        """Of all three tasks, by frame number."""
        labels = self.aus.labels()
        self.affect.tell_missing()
        numbers = labels.numbers.tolist()
        affect = np.array([self.affect.pair(number) for number in numbers], np.float32).reshape(len(numbers), 2)
        names = np.array([self.expressions.get(number) for number in numbers], object)
        return replace(labels, affect=affect, expressions=names)


def _videos(path: Path, options: AffWild2MTLOptions, report: Report) -> dict[str, _Rows]:
    """The rows of a list by video; what is no row is reported."""
    videos: dict[str, _Rows] = {}
    for line, cells in read_csv(path, report):
        image = PurePosixPath(portable(cells[0]))
        number = frame_number(image.name)
        if line == 1 and number is None:
            continue
        report.rows += 1
        if number is None or len(cells) != _CELLS or not image.parent.name:
            value = ",".join(cells)
            report.problem(path, line, value, f"a row is video/00001.jpg, valence, arousal, a class, {len(AUS)} AUs")
            continue
        rows = videos.setdefault(image.parent.name, _Rows(
            LabelRows(path, options.aus, _AU_CODING, report), AffectRows(path, CODING, report), {}
        ))  # fmt: skip
        _add(rows, line, number, cells[1:], options, path, report)
    return videos


def _add(
    rows: _Rows, line: int, number: int, cells: list[str], options: AffWild2MTLOptions, path: Path, report: Report
) -> None:
    repeated = number in rows.expressions
    rows.aus.add(line, number, [cells[3 + AUS.index(au)] for au in options.aus])
    if repeated:  # told by the AUs already
        return
    rows.affect.add(line, number, cells[:2])
    code = integer(cells[2])
    known: dict[int, str | None] = {**CLASSES, _OTHER: OTHER if options.other else None, _INVALID: None}
    if code not in known:
        report.problem(path, line, cells[2], "a class is one int, 0-7 or -1; masked")
    rows.expressions[number] = known.get(code) if code is not None else None


CORPUS = Corpus(
    name="affwild2_mtl",
    title="s-Aff-Wild2, multi-task",
    task=None,
    options=AffWild2MTLOptions,
    read=read,
    layout="""\
training_set_annotations.txt, validation_set_annotations.txt  image,valence,arousal,expression,aus: one row per frame,
                                                              "video/00001.jpg,v,a,class,12 ints"; -5, -1, -1 unknown
cropped_aligned/<video>/00001.jpg                             face crops (or cropped)""",
)
