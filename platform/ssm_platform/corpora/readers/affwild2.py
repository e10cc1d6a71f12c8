"""What the Aff-Wild2 challenges share: one label file per video, line i after the header labels frame i, face crops
with gaps.

Files named ``<video>_left`` and ``<video>_right`` are two persons of one video, with crop folders of those names.
Videos come in an official train and validation set; who is seen is not said.
"""

from __future__ import annotations

from collections.abc import Iterator
from fnmatch import fnmatchcase
from pathlib import Path

from ssm_platform.corpora.base import Cause, Report
from ssm_platform.corpora.sources import Frames, folder_frames
from ssm_platform.corpora.text import read_lines
from ssm_platform.corpora.tree import entries, find_all, fold

_DEEPEST = 3  # cropped_aligned/batch1/cropped_aligned/<video>
_SETS = {"train": ("Train_Set", "Training_Set"), "validation": ("Validation_Set", "Val_Set")}
_ANNOTATIONS = ("{}", "*annotations*/{}")
_CROPS = ("cropped", "cropped_aligned", "cropped_images", "cropped_aligned_images", "batch*")


def label_files(root: Path, *challenges: str) -> Iterator[tuple[str, Path]]:
    """(part, path) of the label files in the first folder that matches ``challenges``, "train" first."""
    for part, names in _SETS.items():
        folders = [place.format(challenge) for challenge in challenges for place in _ANNOTATIONS]
        found = find_all(root, *(f"{folder}/{name}/*.txt" for folder in folders for name in names))
        yield from ((part, path) for path in found)


def video_of(name: str) -> str:
    """The video of a label file: two persons of one video share it, and no split divides it."""
    return name.removesuffix("_left").removesuffix("_right")


def label_lines(path: Path, report: Report) -> list[tuple[int, str]]:
    """(line number, text) of the label rows behind the header, a blank line in between included: it is a frame."""
    lines = [(number, line.strip()) for number, line in enumerate(read_lines(path, report), 1)]
    head = next((at for at, (_, text) in enumerate(lines) if text), len(lines))
    last = max((at for at, (_, text) in enumerate(lines) if text), default=0)
    return lines[head + 1 : last + 1]


class Crops:
    """The folders of face crops, by video: in ``cropped``, in its batches, in folders of its own name inside those."""

    def __init__(self, root: Path) -> None:
        self._first = root / _CROPS[0]
        self._folders: dict[str, Path] = {}
        for name in _CROPS:
            for place in find_all(root, name):
                self._add(place)

    def _add(self, place: Path, depth: int = 0) -> None:
        """Take what is no place of crops itself for a video's folder."""
        for folder in (entry for entry in entries(place) if entry.is_dir()):
            if depth < _DEEPEST and any(fnmatchcase(fold(folder.name), name) for name in _CROPS):
                self._add(folder, depth + 1)
            else:
                self._folders.setdefault(fold(folder.name), folder)

    def frames(self, video: str, report: Report, cause: Cause) -> Frames | None:
        """The face crops of one person in one video, numbered from 1."""
        return folder_frames(self._folders.get(fold(video), self._first / video), report, cause)
