"""Aff-Wild2, AU detection challenge (Kollias, 2022): 12 AUs per frame of videos in the wild; -1 marks frames not
scored.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from pydantic import Field

from ssm_platform.corpora.base import AUOptions, Corpus, Report
from ssm_platform.corpora.labels import Coding, read_label_lines
from ssm_platform.corpora.readers.affwild2 import Crops, label_files, label_lines, video_of
from ssm_platform.corpora.sources import Sequence, labelled_records
from ssm_platform.records import Record

AUS = (1, 2, 4, 6, 7, 10, 12, 15, 23, 24, 25, 26)
"""The columns of a label file, in order."""

_CODING = Coding(missing=(-1,))


class AffWild2AUOptions(AUOptions):
    """Aff-Wild2 AU: which AUs."""

    scored = AUS
    aus: tuple[int, ...] = Field(default=AUS, description="AU numbers to use as label columns, in this order")


def read(root: Path, options: AffWild2AUOptions, report: Report) -> Iterator[Record]:
    """All labelled videos, split where crops are missing; parts "train" and "validation"."""
    crops = Crops(root)
    for part, path in label_files(root, "AU_*Challenge", "AU_Set"):
        labels = read_label_lines(path, label_lines(path, report), options.aus, AUS, _CODING, report)
        frames = crops.frames(path.stem, report, labels.cause)
        if frames is not None:
            yield from labelled_records(
                Sequence(path.stem, None, part, video_of(path.stem)), labels, frames, report, sparse=True
            )


CORPUS = Corpus(
    name="affwild2_au",
    title="Aff-Wild2, AU detection",
    task="au",
    options=AffWild2AUOptions,
    read=read,
    layout="""\
AU_Detection_Challenge/Train_Set/<video>[_left|_right].txt  and Validation_Set: a header, then 12 ints a frame
                                                            (or below "6th ABAW Annotations/")
cropped/<video>[_left|_right]/00001.jpg                     face crops, some missing; label -1 is invalid
                                                            (or cropped_aligned/batch1/cropped_aligned/<video>)""",
)
