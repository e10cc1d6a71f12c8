"""Aff-Wild2, expression challenge: one class per frame. Our expression records are clips, so runs of one class are
cut out.

A clip is a run of consecutive frames with one class and a crop each, at least ``min_length`` and at most
``max_length`` frames long; shorter runs and frames marked -1 are counted and left out, and so is the class "other"
unless it is asked for.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby
from pathlib import Path

from pydantic import Field

from ssm.labels import BASIC_EXPRESSIONS, OTHER, Vocabulary
from ssm_platform.corpora.base import Cause, Corpus, ReadOptions, Report
from ssm_platform.corpora.readers.affwild2 import Crops, label_files, label_lines, video_of
from ssm_platform.corpora.sources import Frames
from ssm_platform.corpora.text import integer
from ssm_platform.records import Record

CLASSES = dict(enumerate(("neutral", "anger", "disgust", "fear", "happiness", "sadness", "surprise")))
"""Label -> expression."""

_OTHER, _INVALID = 7, -1


class AffWild2ExprOptions(ReadOptions):
    """Aff-Wild2 expression: how runs of one class become clips."""

    min_length: int = Field(default=16, ge=1, description="leave out runs of one class with fewer frames than this")
    max_length: int = Field(default=96, ge=1, description="cut longer runs into clips of at most this many frames")
    other: bool = Field(default=False, description="keep class 7, 'other', for a model whose vocabulary has it")

    def vocabulary(self, root: Path) -> Vocabulary:
        """The seven basic expressions, and "other" by option."""
        return Vocabulary(expressions=(*BASIC_EXPRESSIONS, OTHER) if self.other else BASIC_EXPRESSIONS)


def read(root: Path, options: AffWild2ExprOptions, report: Report) -> Iterator[Record]:
    """Clips of one class; parts "train" and "validation"."""
    crops = Crops(root)
    for part, path in label_files(root, "EXPR*Challenge", "EXPR_Set"):
        classes = _classes(path, options, report)
        frames = crops.frames(path.stem, report, Cause(path, None, max(len(classes), 1)))
        if frames is not None:
            yield from _clips(path, part, classes, frames, options, report)


def _classes(path: Path, options: AffWild2ExprOptions, report: Report) -> dict[int, str]:
    """Frame number (from 1) -> expression; frames without one are reported."""
    known = {**CLASSES, _OTHER: OTHER} if options.other else CLASSES
    classes, left_out = {}, {_OTHER: 0, _INVALID: 0}
    for number, (line, text) in enumerate(label_lines(path, report), 1):
        report.rows += 1
        value = integer(text)
        if not text:
            left_out[_INVALID] += 1
        elif value in known:
            classes[number] = known[value]
        elif value in left_out:
            left_out[value] += 1
        else:
            report.problem(path, line, text, "a row is one int, 0-7 or -1")
    for value, count in left_out.items():
        if count:
            rule = "class 'other' is outside the vocabulary" if value == _OTHER else "a missing-label code is left out"
            report.note(path, None, value, rule, count)
    return classes


def _clips(
    path: Path, part: str, classes: dict[int, str], frames: Frames, options: AffWild2ExprOptions, report: Report
) -> Iterator[Record]:
    present = [(number, at) for at, number in enumerate(frames.numbers.tolist()) if number in classes]
    if len(present) < len(classes):
        report.note(path, None, frames.source, "a labelled frame has its crop", len(classes) - len(present))
    short = 0
    placed = enumerate(present)  # numbers that follow each other lie as far from their place in the list
    for (expression, _), group in groupby(placed, key=lambda item: (classes[item[1][0]], item[1][0] - item[0])):
        run = [pair for _, pair in group]
        for first in range(0, len(run), options.max_length):
            piece = run[first : first + options.max_length]
            if len(piece) < options.min_length:
                short += len(piece)
            else:
                yield _clip(path.stem, part, expression, piece, frames)
    if short:
        rule = f"a run of one class has at least {options.min_length} frames; left out"
        report.note(path, None, f"{short} frames", rule, short)


def _clip(video: str, part: str, expression: str, piece: list[tuple[int, int]], frames: Frames) -> Record:
    files = tuple((frames.files or ())[at] for _, at in piece)
    name = f"{video}/{piece[0][0]:05d}"
    return Record(
        name, frames.source, "frames", 0, len(piece), None, part, files, None, expression, group=video_of(video)
    )


CORPUS = Corpus(
    name="affwild2_expr",
    title="Aff-Wild2, expression",
    task="fe",
    options=AffWild2ExprOptions,
    read=read,
    layout="""\
EXPR_Classification_Challenge/Train_Set/<video>[_left|_right].txt  and Validation_Set: a header, one int a frame
cropped/<video>[_left|_right]/00001.jpg                            0-6 neutral .. surprise, 7 other, -1 invalid""",
)
