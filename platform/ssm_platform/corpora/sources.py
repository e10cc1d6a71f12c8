"""What lies on disk: folders of numbered images and videos, and how labels by frame number become contiguous records.

Frames are matched by integer, so zero padding does not matter. A jump in the numbers splits a sequence; labels
without a frame and frames without a label are reported. Pixels are not read; a video is opened to count its frames.
Legend: N frames.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ssm_platform.base import is_companion, may_return
from ssm_platform.corpora.base import Cause, Report
from ssm_platform.corpora.labels import FrameLabels, frame_number
from ssm_platform.corpora.tree import entries
from ssm_platform.media import PICTURE_ENDINGS, VIDEO_ENDINGS, UnreadableVideo, open_video, picture_format, read_head
from ssm_platform.records import Kind, Record, part_name


@dataclass(frozen=True, eq=False)
class Frames:
    """The frames of one source: their ``numbers`` in the owner's count (N, ascending) and, in a folder, their
    ``files``.
    """

    path: Path
    source: str
    kind: Kind
    numbers: npt.NDArray[np.int64]
    files: tuple[str, ...] | None = None
    rate: float | None = None


@dataclass(frozen=True)
class Sequence:
    """Who is seen in one labelled sequence: what all its records share."""

    clip: str
    subject: str | None = None
    part: str | None = None
    group: str | None = None


def folder_frames(
    folder: Path, report: Report, cause: Cause, shift: int = 0, rate: float | None = None
) -> Frames | None:
    """The images of ``folder`` by number; ``shift`` is added to each. None, and reported, where there is none."""
    found: dict[int, str] = {}
    for name, size in _images(folder):
        number = frame_number(name)
        if number is None or number + shift in found or not size:
            report.problem(folder / name, None, name, _image_rule(number, size))
        else:
            found[number + shift] = name
    source = _below(report.root, folder)
    if not found:
        rule = "a listed folder is there and holds numbered images"
        report.problem(cause.path, cause.line, f"{source}: no image", rule, cause.rows)
        return None
    numbers = sorted(found)
    files = tuple(found[number] for number in numbers)
    return Frames(folder, source, "frames", np.array(numbers, np.int64), files, rate)


def image_frames(path: Path, report: Report, cause: Cause) -> Frames | None:
    """One image as a clip of one frame, numbered 0. None, and not reported, where the file is no image."""
    try:
        if picture_format(read_head(path)) is None:
            return None
    except UnreadableVideo:
        return None
    return Frames(path.parent, _below(report.root, path.parent), "frames", np.zeros(1, np.int64), (path.name,))


def video_frames(path: Path, report: Report, cause: Cause, first: int = 0) -> Frames | None:
    """The frames of a video, the first one numbered ``first``. None, and reported, where it cannot be read."""
    source = _below(report.root, path)
    try:
        info = open_video(path).index.info
    except UnreadableVideo as error:
        if may_return(error):
            raise
        rule = "a listed video is there and can be read"
        report.problem(cause.path, cause.line, f"{source}: {error.reason}", rule, cause.rows)
        return None
    numbers = np.arange(first, first + info.frames, dtype=np.int64)
    return Frames(path, source, "video", numbers, None, info.rate or None)


def labelled_records(
    who: Sequence, labels: FrameLabels, frames: Frames, report: Report, coded_part: bool = False, sparse: bool = False
) -> Iterator[Record]:
    """Records over the runs of frames that have both labels and an image.

    ``coded_part``: the owner labels only a part, so frames before and after it are nobody's loss. ``sparse``: the
    owner says that frames may be missing, so a label without a frame is a note.
    """
    numbers, label_at, frame_at = np.intersect1d(
        labels.numbers, frames.numbers, assume_unique=True, return_indices=True
    )
    _report_absent_frames(labels, frames, report.note if sparse else report.problem)
    _report_unlabelled_frames(labels, frames, report, coded_part)
    _report_jumps(labels, report)
    cuts = np.diff(numbers) != 1
    if labels.expressions is not None:  # a record has one class
        names = labels.expressions[label_at]
        cuts |= names[1:] != names[:-1]
    runs = np.split(np.arange(len(numbers)), np.flatnonzero(cuts) + 1)
    for position, run in enumerate(runs if len(numbers) else []):
        clip = who.clip if len(runs) == 1 else part_name(who.clip, position)
        yield _labelled(_record(who, clip, frames, frame_at[run]), labels, label_at[run])


def whole_record(clip: str, frames: Frames, expression: str, report: Report, part: str | None = None) -> Record:
    """One record over all frames of an expression clip. A jump in its numbers is noted, and does not split it.

    An expression clip is sampled over its whole length (method, section 6), and its class holds for all of it.
    """
    jumps = int(np.count_nonzero(np.diff(frames.numbers) != 1))
    if jumps:
        report.note(frames.path, None, f"{jumps} jumps", "frame numbers are consecutive; the clip stays one record")
    files, length = frames.files, len(frames.numbers)
    return Record(clip, frames.source, frames.kind, 0, length, None, part, files, frames.rate, expression)


def image_record(clip: str, image: Path, expression: str, report: Report, part: str | None = None) -> Record:
    """One record of a single still image."""
    source = _below(report.root, image.parent)
    return Record(clip, source, "frames", 0, 1, None, part, (image.name,), None, expression)


def by_number(folder: Path, accept: Callable[[os.DirEntry[str]], bool]) -> dict[int, Path]:
    """The entries of ``folder`` whose stem is a whole number, by that number: "00012" and "12.mp4" are both 12.

    Where there are none and the folder holds one other folder only, that one's.
    """
    with os.scandir(folder) as found:
        stems = {entry.name: os.path.splitext(entry.name)[0] for entry in found if accept(entry)}
    numbered = {int(stem): folder / name for name, stem in sorted(stems.items()) if stem.isdecimal()}
    inside = [] if numbered else entries(folder)
    return by_number(inside[0], accept) if len(inside) == 1 and inside[0].is_dir() else numbered


def is_video(entry: os.DirEntry[str]) -> bool:
    """A file with the suffix of a video."""
    return entry.name.lower().endswith(VIDEO_ENDINGS) and not is_companion(entry.name)


def is_folder(entry: os.DirEntry[str]) -> bool:
    """A folder, or a link to one."""
    return entry.is_dir() and not is_companion(entry.name)


def _images(folder: Path) -> list[tuple[str, int]]:
    """Names and sizes of the images in ``folder``, by name.

    Empty where the folder is absent, is no folder, or has a name that no folder can have.
    """
    try:
        with os.scandir(folder) as found:
            images = [e for e in found if e.name.lower().endswith(PICTURE_ENDINGS) and not is_companion(e.name)]
            return sorted((entry.name, entry.stat().st_size) for entry in images)
    except (OSError, ValueError):
        return []


def _image_rule(number: int | None, size: int) -> str:
    if number is None:
        return "the name of an image ends in its frame number"
    return "two images of one folder have different numbers; the first is used" if size else "an image is not empty"


def _below(root: Path, path: Path) -> str:
    return path.relative_to(root).as_posix() if path.is_relative_to(root) else str(path)


def _labelled(record: Record, labels: FrameLabels, at: npt.NDArray[np.intp]) -> Record:
    return replace(
        record,
        au_labels=labels.values[at] if labels.values.shape[1] else None,
        va_labels=None if labels.affect is None else labels.affect[at],
        expression=None if labels.expressions is None else labels.expressions[at[0]],
    )


def _record(who: Sequence, clip: str, frames: Frames, at: npt.NDArray[np.intp]) -> Record:
    files = None if frames.files is None else tuple(frames.files[index] for index in at)
    start = int(at[0]) if files is None else 0
    return Record(
        clip,
        frames.source,
        frames.kind,
        start,
        len(at),
        who.subject,
        who.part,
        files,
        frames.rate,
        group=who.group,
    )


def _report_absent_frames(labels: FrameLabels, frames: Frames, tell: Callable[..., None]) -> None:
    absent = np.flatnonzero(~np.isin(labels.numbers, frames.numbers))
    for run in _runs(labels.numbers[absent]):
        rows = absent[run]
        value = f"{frames.source}: frames {_span(labels.numbers[rows])}"
        tell(
            labels.path,
            int(labels.lines[rows[0]]),
            value,
            "a labelled frame is there; the sequence is split",
            len(rows),
        )


def _report_unlabelled_frames(labels: FrameLabels, frames: Frames, report: Report, coded_part: bool) -> None:
    numbers = frames.numbers
    if coded_part and len(labels.numbers):
        numbers = numbers[(numbers > labels.numbers[0]) & (numbers < labels.numbers[-1])]
    bare = numbers[~np.isin(numbers, labels.numbers)]
    for run in _runs(bare):
        rule = "a frame has a label row; frames without one are not used"
        report.note(labels.path, None, f"{frames.source}: frames {_span(bare[run])}", rule, len(run))


def _report_jumps(labels: FrameLabels, report: Report) -> None:
    for position, (before, after) in enumerate(pairwise(labels.numbers.tolist()), 1):
        if after != before + 1:
            rule = "frame numbers are consecutive; the sequence is split"
            report.note(labels.path, int(labels.lines[position]), f"{before} -> {after}", rule)


def _runs(numbers: npt.NDArray[np.int64]) -> list[npt.NDArray[np.intp]]:
    """Positions of each run of consecutive numbers."""
    if not len(numbers):
        return []
    return np.split(np.arange(len(numbers)), np.flatnonzero(np.diff(numbers) != 1) + 1)


def _span(numbers: npt.NDArray[np.int64]) -> str:
    return str(numbers[0]) if len(numbers) == 1 else f"{numbers[0]}..{numbers[-1]}"
