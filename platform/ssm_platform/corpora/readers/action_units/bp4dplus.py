"""BP4D+ (Zhang et al., 2016): 140 subjects, tasks T1 T6 T7 T8 coded for occurrence of 34 AUs; no official split.

An image's number is the frame number of its label row minus 1. Subjects have no part: a run holds subjects out by
itself.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from pydantic import Field

from ssm.labels import BP4D_AUS
from ssm_platform.corpora.base import AUOptions, Corpus, Report
from ssm_platform.corpora.labels import Coding, read_occurrence_table
from ssm_platform.corpora.readers.action_units.bp4d import (
    RATE,
    SequenceLayout,
    folders_of,
    label_files,
    sequence_folder,
)
from ssm_platform.corpora.sources import Sequence, folder_frames, labelled_records
from ssm_platform.records import Record

_LAYOUT = SequenceLayout(("2D+3D", "Sequences(2D+3D)", "Sequences", "Images", "."), 1)


class BP4DPlusOptions(AUOptions):
    """BP4D+: which AUs."""

    aus: tuple[int, ...] = Field(default=BP4D_AUS, description="AU numbers to use as label columns, in this order")


def read(root: Path, options: BP4DPlusOptions, report: Report) -> Iterator[Record]:
    """All coded sequences."""
    folders = folders_of(root, _LAYOUT.folders)
    for subject, task, path in label_files(root, report):
        labels = read_occurrence_table(path, options.aus, Coding(), report)
        if labels is None:
            continue
        folder = sequence_folder(folders, subject, task)
        frames = folder_frames(folder, report, labels.cause, _LAYOUT.shift, RATE)
        if frames is not None:
            yield from labelled_records(Sequence(f"{subject}_{task}", subject), labels, frames, report, coded_part=True)


CORPUS = Corpus(
    name="bp4dplus",
    title="BP4D+",
    task="au",
    options=BP4DPlusOptions,
    read=read,
    layout="""\
AUCoding/AU_OCC/F001_T1.csv     as BP4D, 34 AU columns
2D+3D/F001/T1/0000.jpg          images; number = frame number of the label row - 1""",
)
