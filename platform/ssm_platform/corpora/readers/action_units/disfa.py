"""DISFA (Mavadati et al., 2013): 27 subjects, one video each, intensities 0-5 of 12 AUs for every frame.

Papers differ in the camera (most AU papers take the left) and agree on "active" = intensity 2 or more; both are
options, and the report says which camera was read. Label frame n, counted from 1, is the n-th frame of the video. The
parts P1..P3 are the subject-exclusive thirds of the literature.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Literal

from pydantic import Field

from ssm.labels import DISFA_AUS
from ssm_platform.corpora.base import AUOptions, Corpus, Report
from ssm_platform.corpora.labels import Coding, read_intensity_files
from ssm_platform.corpora.sources import Sequence, labelled_records, video_frames
from ssm_platform.corpora.tree import entries, find_all
from ssm_platform.records import Record

RATE = 20.0
AUS = (1, 2, 4, 5, 6, 9, 12, 15, 17, 20, 25, 26)
"""The AUs that DISFA and DISFA+ score."""
_AU_FILE = re.compile(r".*?au(\d+)\.txt", re.IGNORECASE)
_LABELS = ("ActionUnit*Label*/SN*", "Labels/SN*")
_VIDEOS = ("Video*{0}*Camera*/{0}*Video*SN*", "*{0}*/{0}*Video*SN*", "Video*/{0}*Video*SN*", "{0}*Video*SN*")
_VIDEO = re.compile(r"(?:left|right)_?video_?(SN\d+).*\.(?:avi|mp4|mkv|mov|wmv|mpg)", re.IGNORECASE)
_PARTS = {
    "P1": "SN001 SN002 SN009 SN010 SN016 SN026 SN027 SN030 SN032",
    "P2": "SN006 SN011 SN012 SN013 SN018 SN021 SN024 SN028 SN031",
    "P3": "SN003 SN004 SN005 SN007 SN008 SN017 SN023 SN025 SN029",
}
PARTS: Mapping[str, str] = MappingProxyType(
    {subject: part for part, names in _PARTS.items() for subject in names.split()}
)
"""Subject -> part."""


class DISFAOptions(AUOptions):
    """DISFA: which AUs, camera, and from which intensity an AU counts as active."""

    scored = AUS
    aus: tuple[int, ...] = Field(default=DISFA_AUS, description="AU numbers to use as label columns, in this order")
    camera: Literal["auto", "left", "right"] = Field(
        default="auto", description="which camera's videos to read; auto: the left, as most papers, else the right"
    )
    threshold: int = Field(default=2, ge=1, le=5, description="an AU is active from this intensity (0-5)")


def au_files(folder: Path) -> dict[int, Path]:
    """AU number -> label file, from names that end in the number: "SN001_au1.txt", "AU1.txt"."""
    named = ((path, _AU_FILE.fullmatch(path.name)) for path in entries(folder))
    return {int(match[1]): path for path, match in named if match}


def report_absent_aus(folder: Path, files: Mapping[int, Path], aus: tuple[int, ...], report: Report) -> None:
    """One problem for each AU without a label file."""
    for au in aus:
        if au not in files:
            report.problem(folder, None, f"AU{au:02d}", "each AU has a label file; masked")


def read(root: Path, options: DISFAOptions, report: Report) -> Iterator[Record]:
    """One sequence per subject."""
    coding = Coding(top=5, threshold=options.threshold)
    side, videos = _videos(root, options.camera)
    if videos:
        report.note(next(iter(videos.values())).parent, None, side, "one camera's videos are read (option camera)")
    for folder in find_all(root, *_LABELS):
        files, subject = au_files(folder), folder.name.upper()
        report_absent_aus(folder, files, options.aus, report)
        labels = read_intensity_files(files, options.aus, coding, report)
        if labels is None:
            report.problem(folder, None, "no label row", "a subject's folder holds its label files")
            continue
        if subject not in PARTS:
            report.note(folder, None, subject, "a subject is one of SN001-SN032 as published; it belongs to no part")
        video = videos.get(subject, root / f"Videos_{side}Camera" / f"{side}Video{subject}_comp.avi")
        frames = video_frames(video, report, labels.cause, 1)
        if frames is not None:
            yield from labelled_records(Sequence(subject, subject, PARTS.get(subject)), labels, frames, report)


def _videos(root: Path, camera: str) -> tuple[str, dict[str, Path]]:
    """The camera, and its videos by subject."""
    for side in ("Left", "Right") if camera == "auto" else (camera.capitalize(),):
        named = ((path, _VIDEO.fullmatch(path.name)) for path in find_all(root, *(p.format(side) for p in _VIDEOS)))
        found = {match[1].upper(): path for path, match in named if match}
        if found:
            return side, found
    return side, {}


CORPUS = Corpus(
    name="disfa",
    title="DISFA",
    task="au",
    options=DISFAOptions,
    read=read,
    prevalence=dict(zip(DISFA_AUS, (5.0, 4.3, 15.2, 7.9, 4.2, 12.9, 27.7, 8.8), strict=True)),
    layout="""\
ActionUnit_Labels/SN001/SN001_au1.txt             lines "frame,intensity", frame from 1, intensity 0-5
Videos_LeftCamera/LeftVideoSN001_comp.avi         and Video_RightCamera/RightVideoSN001_Comp.avi""",
)
