"""Aff-Wild2, valence-arousal challenge (Kollias, 2022): two numbers per frame of videos in the wild; -5 marks frames
not annotated.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from ssm_platform.corpora.affect import AffectCoding, AffectRows
from ssm_platform.corpora.base import AffectOptions, Corpus, Report
from ssm_platform.corpora.labels import FrameLabels
from ssm_platform.corpora.readers.affwild2 import Crops, label_files, label_lines, video_of
from ssm_platform.corpora.sources import Sequence, labelled_records
from ssm_platform.corpora.text import cells
from ssm_platform.records import Record

CODING = AffectCoding(missing=(-5.0,))
"""Of all Aff-Wild2 challenges with valence and arousal."""


class AffWild2VAOptions(AffectOptions):
    """Aff-Wild2 VA has no options of its own."""


def read(root: Path, options: AffWild2VAOptions, report: Report) -> Iterator[Record]:
    """All annotated videos, split where crops are missing; parts "train" and "validation"."""
    crops = Crops(root)
    for part, path in label_files(root, "VA_*Challenge", "VA_Set"):
        labels = _labels(path, report)
        frames = crops.frames(path.stem, report, labels.cause)
        if frames is not None:
            who = Sequence(path.stem, None, part, video_of(path.stem))
            yield from labelled_records(who, labels, frames, report, sparse=True)


def _labels(path: Path, report: Report) -> FrameLabels:
    """Row i (from 1) labels frame i."""
    rows = AffectRows(path, CODING, report)
    for number, (line, text) in enumerate(label_lines(path, report), 1):
        report.rows += 1
        if text:
            rows.add(line, number, cells(text))
        else:
            report.note(path, line, "blank line", "row i labels frame i; a blank row leaves its frame unlabelled")
    return rows.labels()


CORPUS = Corpus(
    name="affwild2_va",
    title="Aff-Wild2, valence and arousal",
    task="va",
    options=AffWild2VAOptions,
    read=read,
    layout="""\
VA_Estimation_Challenge/Train_Set/<video>[_left|_right].txt  and Validation_Set: a header, then "v,a" a frame
                                                             (or below "6th ABAW Annotations/")
cropped/<video>[_left|_right]/00001.jpg                      face crops, some missing; label -5 is unannotated""",
)
