"""Prepared lists that label single images: lines grouped by image folder, then joined with the images like any
sequence.

With a train and a test list the part is the list; with one list it is the subject's part of the literature. Only the
text of a line differs between corpora, so a corpus gives a `FrameListFormat`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from ssm_platform.base import in_companion
from ssm_platform.corpora.base import AUOptions, Report
from ssm_platform.corpora.labels import Coding, LabelRows, frame_number
from ssm_platform.corpora.lists import ListOptions, Resolver, list_files
from ssm_platform.corpora.sources import Sequence, folder_frames, labelled_records
from ssm_platform.corpora.text import data_lines, portable
from ssm_platform.records import Record


class FrameListOptions(ListOptions, AUOptions):
    """Which lists, and which AUs."""


@dataclass(frozen=True)
class FrameListFormat:
    """How a line reads and what a folder's name says."""

    parse: Callable[[str, tuple[int, ...]], tuple[str, list[str]] | None]  # text, AUs -> image, a cell per AU
    line: str  # a good line, in words
    coding: Coding
    subject: Callable[[str], str | None]  # folder -> subject
    parts: Mapping[str, str]  # subject -> part
    rate: float


@dataclass
class _Folder:
    image: str
    line: int
    rows: list[tuple[int, int, list[str]]] = field(default_factory=list)


def read_frame_lists(root: Path, options: FrameListOptions, shape: FrameListFormat, report: Report) -> Iterator[Record]:
    """All listed folders, split where a frame number is not listed or an image is absent."""
    files = list_files(root, options)
    resolver = Resolver(root, options.images, report, keep=2)
    for part, path in sorted(files.items()):
        for name, folder in _folders(path, options.aus, shape, report).items():
            subject = shape.subject(name)
            several = len(files) > 1
            who = Sequence(
                f"{part}/{name}" if several else name, subject, part if several else shape.parts.get(subject or "")
            )
            yield from _records(who, folder, resolver, path, options.aus, shape, report)


def _folders(path: Path, aus: tuple[int, ...], shape: FrameListFormat, report: Report) -> dict[str, _Folder]:
    """The lines of a list by image folder; a line that cannot be read is reported."""
    folders: dict[str, _Folder] = {}
    for line, text in data_lines(path, lambda text: shape.parse(text, aus), report):
        report.rows += 1
        parsed = shape.parse(text, aus)
        image = PurePosixPath(portable(parsed[0])) if parsed else PurePosixPath()
        number = frame_number(image.name) if parsed else None
        if in_companion(image.parts):
            report.note(path, line, image, "what a system leaves beside data is none; left out")
        elif parsed is None or number is None:
            report.problem(path, line, text, shape.line)
        else:
            folder = folders.setdefault(image.parent.as_posix(), _Folder(str(image), line))
            folder.rows.append((line, number, parsed[1]))
    return folders


def _records(
    who: Sequence,
    folder: _Folder,
    resolver: Resolver,
    path: Path,
    aus: tuple[int, ...],
    shape: FrameListFormat,
    report: Report,
) -> Iterator[Record]:
    table = LabelRows(path, aus, shape.coding, report)
    for line, number, cells in folder.rows:
        table.add(line, number, cells)
    labels = table.labels()
    place = resolver.find(folder.image, path, folder.line).parent
    frames = folder_frames(place, report, labels.cause, rate=shape.rate)
    if frames is not None:
        yield from labelled_records(who, labels, frames, report, coded_part=True)
