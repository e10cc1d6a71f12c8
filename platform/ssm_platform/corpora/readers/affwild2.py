"""What the Aff-Wild2 challenges share: one label file per video, line i after the header labels frame i, face crops
with gaps.

Files named ``<video>_left`` and ``<video>_right`` are two persons of one video, with crop folders of those names.
Videos come in an official train and validation set; who is seen is not said.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from ssm_platform.corpora.base import Cause, Report
from ssm_platform.corpora.sources import Frames, first_folder, folder_frames
from ssm_platform.corpora.text import content, read_lines

_SETS = {"train": ("Train_Set", "Training_Set"), "validation": ("Validation_Set", "Val_Set")}
_CROPS = ("cropped", "cropped_aligned", "cropped_images", "cropped/batch1")


def label_files(root: Path, challenges: str) -> Iterator[tuple[str, Path]]:
    """(part, path) of the label files in folders that match ``challenges``, "train" first."""
    for part, names in _SETS.items():
        for name in names:
            yield from ((part, path) for path in sorted(root.glob(f"{challenges}/{name}/*.txt")))


def video_of(name: str) -> str:
    """The video of a label file: two persons of one video share it, and no split divides it."""
    return name.removesuffix("_left").removesuffix("_right")


def label_lines(path: Path, report: Report) -> list[tuple[int, str]]:
    """(line number, text) of the label rows, the header left out."""
    return list(content(read_lines(path, report)))[1:]


def crops(root: Path, video: str, report: Report, cause: Cause) -> Frames | None:
    """The face crops of one person in one video, numbered from 1."""
    folder = first_folder(root, *(f"{place}/{video}" for place in _CROPS))
    return folder_frames(folder or root / _CROPS[0] / video, report, cause)
