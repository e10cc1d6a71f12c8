"""BP4D-Spontaneous (Zhang et al., 2014): 41 subjects, 8 tasks, occurrence of AUs on the coded part of each sequence.

Image folders ``F001/T1/2440.jpg`` are matched to label rows by integer. In the AVI delivery ("2F01_01.avi", or images
made from it) frame f, counted from 0, carries the label of row f + 1. The parts P1..P3 are the subject-exclusive
thirds of the literature.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Literal

from pydantic import Field

from ssm.labels import BP4D_AUS
from ssm_platform.corpora.base import AUOptions, Corpus, Report
from ssm_platform.corpora.labels import Coding, FrameLabels, read_occurrence_table
from ssm_platform.corpora.sources import Frames, Sequence, folder_frames, labelled_records, video_frames
from ssm_platform.corpora.tree import find_all, find_folder, follow
from ssm_platform.records import Record

RATE = 25.0
_LABEL_FILE = re.compile(r"([FM]\d{3})_(T\d+)\.csv", re.IGNORECASE)
_CODING = Coding()

_PARTS = {
    "P1": "F001 F002 F008 F009 F010 F016 F018 F023 M001 M004 M007 M008 M012 M014",
    "P2": "F003 F005 F011 F013 F020 F022 M002 M005 M010 M011 M013 M016 M017 M018",
    "P3": "F004 F006 F007 F012 F014 F015 F017 F019 F021 M003 M006 M009 M015",
}
PARTS: Mapping[str, str] = MappingProxyType(
    {subject: part for part, names in _PARTS.items() for subject in names.split()}
)
"""Subject -> part."""

TASK_CODES: Mapping[str, str] = MappingProxyType(
    dict(zip((f"T{n}" for n in range(1, 9)), ("01", "03", "07", "08", "09", "10", "11", "13"), strict=True))
)
"""Task -> its code in AVI-style names."""

PREVALENCE = dict(zip(BP4D_AUS, (21.1, 17.1, 20.3, 46.1, 54.9, 59.4, 56.2, 46.6, 16.9, 34.3, 16.5, 15.1), strict=True))


class BP4DOptions(AUOptions):
    """BP4D: which AUs, and which delivery."""

    aus: tuple[int, ...] = Field(default=BP4D_AUS, description="AU numbers to use as label columns, in this order")
    delivery: Literal["auto", "images", "avi"] = Field(
        default="auto", description="image folders F001/T1, AVI-style names 2F01_01, or whichever is there"
    )


@dataclass(frozen=True)
class SequenceLayout:
    """Where a BP4D-like tree keeps a sequence's frames: folders to look in, and what to add to an image's number."""

    folders: tuple[str, ...]
    shift: int


IMAGES_LAYOUT = SequenceLayout(("Sequences(2D+3D)", "Sequences", "2D+3D", "Images", "."), 0)
_LABELS = ("AUCoding/AU_OCC/*.csv", "AU_OCC/*.csv", "AUCoding/*.csv")
_AVI_FOLDERS = ("BP4D-Spontaneous", "Videos", ".")
_AVI_SUFFIXES = (".avi", ".mp4", "")
_AVI_SHIFT = 1


def label_files(root: Path, report: Report) -> Iterator[tuple[str, str, Path]]:
    """(subject, task, path) of each occurrence table, in order of name; a file with another name is reported."""
    for path in find_all(root, *_LABELS):
        named = _LABEL_FILE.fullmatch(path.name)
        if named:
            yield named[1].upper(), named[2].upper(), path
        else:
            report.problem(path, None, path.name, "a label file is named by subject and task: F001_T1.csv")


def folders_of(root: Path, names: tuple[str, ...]) -> list[Path]:
    """Those of ``names`` that are there, or the place of the first."""
    found = (root if name == "." else find_folder(root, name) for name in names)
    return [folder for folder in found if folder is not None] or [root / names[0]]


def sequence_folder(folders: list[Path], subject: str, task: str) -> Path:
    """The folder of a sequence's images: the first that exists, else the first place it should be in."""
    found = (follow(folder, f"{subject}/{task}") for folder in folders)
    return next((path for path in found if path.is_dir()), folders[0] / subject / task)


def _avi_place(folders: list[Path], subject: str, task: str) -> Path:
    """The AVI of a sequence or a folder of images made from it; with neither, the place the AVI should be in."""
    name = f"2{subject[0]}{int(subject[1:]):02d}_{TASK_CODES.get(task, task)}"
    found = (follow(folder, f"{name}{suffix}") for folder in folders for suffix in _AVI_SUFFIXES)
    return next((path for path in found if path.exists()), folders[0] / f"{name}.avi")


@dataclass(frozen=True)
class _Places:
    """Where this tree keeps images and AVIs."""

    images: list[Path]
    avis: list[Path]


def _frames(
    places: _Places, subject: str, task: str, labels: FrameLabels, options: BP4DOptions, report: Report
) -> Frames | None:
    folder = sequence_folder(places.images, subject, task)
    avi = _avi_place(places.avis, subject, task)
    if options.delivery == "images" or (options.delivery == "auto" and (folder.is_dir() or not avi.exists())):
        return folder_frames(folder, report, labels.cause, IMAGES_LAYOUT.shift, RATE)
    if avi.is_dir():
        return folder_frames(avi, report, labels.cause, _AVI_SHIFT, RATE)
    return video_frames(avi, report, labels.cause, _AVI_SHIFT)


def read(root: Path, options: BP4DOptions, report: Report) -> Iterator[Record]:
    """All coded sequences."""
    places = _Places(folders_of(root, IMAGES_LAYOUT.folders), folders_of(root, _AVI_FOLDERS))
    for subject, task, path in label_files(root, report):
        labels = read_occurrence_table(path, options.aus, _CODING, report)
        frames = labels and _frames(places, subject, task, labels, options, report)
        if subject not in PARTS:
            report.note(path, None, subject, "a subject is one of F001-F023, M001-M018; it belongs to no part")
        if labels and frames:
            who = Sequence(f"{subject}_{task}", subject, PARTS.get(subject))
            yield from labelled_records(who, labels, frames, report, coded_part=True)


CORPUS = Corpus(
    name="bp4d",
    title="BP4D-Spontaneous",
    task="au",
    options=BP4DOptions,
    read=read,
    prevalence=PREVALENCE,
    layout="""\
AUCoding/AU_OCC/F001_T1.csv           header "0,1,2,4,...": frame number, then one column per AU; 0, 1, 9 = missing
Sequences(2D+3D)/F001/T1/2440.jpg     images, matched by integer
BP4D-Spontaneous/2F01_01.avi          or the AVI delivery""",
)
