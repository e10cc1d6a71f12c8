"""Expression corpora cut into official folds: a train list and a test list per fold, each line a clip and its class.

A clip's part is the fold whose test list has it; training for fold k is then every clip of another part, which is
what the train lists say, and they are read to prove it. Reported: a clip on both sides of a fold (leak) or on
neither, listed twice, under two classes, or test in two folds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Set
from dataclasses import dataclass
from pathlib import Path

from ssm_platform.corpora.base import Cause, Report
from ssm_platform.corpora.sources import folder_frames, video_frames, whole_record
from ssm_platform.records import Record

Row = tuple[int, str, str | None]
"""One line of a list: its number, the clip it names, its expression (None: already reported)."""

ParseList = Callable[[Path, Report], Iterable[Row]]


@dataclass(frozen=True)
class Listed:
    """A clip of the lists, where it was first listed, and the fold it is test in."""

    clip: str
    expression: str
    part: str | None
    path: Path
    line: int


@dataclass(frozen=True)
class _Place:
    expression: str | None
    path: Path
    line: int


def read_folds(lists: Mapping[str, tuple[Path, Path]], parse: ParseList, report: Report) -> Iterator[Listed]:
    """Every clip of ``lists`` (fold -> its train and its test list) once, in order of appearance."""
    clips: dict[str, Listed | None] = {}
    listed: dict[Path, set[str]] = {}
    for fold, (train, test) in lists.items():
        tested, trained = _read_list(test, parse, report), _read_list(train, parse, report)
        for clip, place in tested.items():
            _merge(clips, clip, place, fold, report)
        for clip, place in trained.items():
            if clip in tested:
                rule = f"a clip of fold {fold} is in its train list or in its test list"
                report.leak(place.path, place.line, clip, rule)
            _merge(clips, clip, place, None, report)
        if tested and trained:
            listed[train] = tested.keys() | trained.keys()
    _report_unlisted(clips.keys(), listed, report)
    report.rows += len(clips)
    yield from (clip for clip in clips.values() if clip is not None)


def folded_records(
    listed: Iterable[Listed], folder: Path, clips: Mapping[int, Path], report: Report
) -> Iterator[Record]:
    """The listed clips as records; ``clips`` are the videos and frame folders in ``folder`` by number."""
    for clip in listed:
        path, cause = clips.get(int(clip.clip)), Cause(clip.path, clip.line)
        if path is None:
            report.problem(cause.path, cause.line, f"{folder.name}/{clip.clip}", "a listed clip is there")
            continue
        frames = video_frames(path, report, cause) if path.is_file() else folder_frames(path, report, cause)
        if frames is not None:
            yield whole_record(clip.clip, frames, clip.expression, report, clip.part)


def _read_list(path: Path, parse: ParseList, report: Report) -> dict[str, _Place]:
    places: dict[str, _Place] = {}
    if not path.is_file():
        report.note(path, None, "absent", "each fold has a train and a test list; this one is left out")
        return places
    for line, clip, expression in parse(path, report):
        if clip in places:
            report.problem(path, line, clip, "a clip is listed once in a list; the first is used")
        else:
            places[clip] = _Place(expression, path, line)
    return places


def _report_unlisted(clips: Set[str], listed: Mapping[Path, set[str]], report: Report) -> None:
    """A clip of one fold's lists that another fold lists on neither side: training there would use it all the same."""
    for path, names in listed.items():
        unlisted = sorted(clips - names)
        if unlisted:
            value = f"{unlisted[0]}, ..." if len(unlisted) > 1 else unlisted[0]
            report.note(path, None, value, "every clip is in the train or the test list of every fold", len(unlisted))


def _merge(clips: dict[str, Listed | None], clip: str, place: _Place, fold: str | None, report: Report) -> None:
    """Add what one list says of ``clip``. None stands for a clip that cannot be used, so that it is reported once."""
    known = clips.get(clip)
    if clip not in clips:
        usable = place.expression is not None
        clips[clip] = Listed(clip, place.expression or "", fold, place.path, place.line) if usable else None
    elif known is None or place.expression is None:
        return
    elif known.expression != place.expression:
        value = f"{clip}: {place.expression} here, {known.expression} in {known.path.name}:{known.line}"
        report.problem(place.path, place.line, value, "a clip has one class in all lists; left out")
        clips[clip] = None
    elif fold is not None and known.part is None:
        clips[clip] = Listed(clip, known.expression, fold, place.path, place.line)
    elif fold is not None:
        report.problem(place.path, place.line, clip, f"a clip is test in one fold; fold {known.part} is used")


class PartLists:
    """Remembers in which part's list a clip was first met, where one list per part is all there is."""

    def __init__(self, report: Report) -> None:
        self._report = report
        self._parts: dict[str, str] = {}

    def admits(self, clip: str, part: str, path: Path, line: int) -> bool:
        """False, and reported, where ``clip`` was met before: in the same list, or in another part's (a leak)."""
        first = self._parts.get(clip)
        if first is None:
            self._parts[clip] = part
        elif first == part:
            self._report.problem(path, line, clip, "a clip is listed once; the first is used")
        else:
            self._report.leak(path, line, clip, f"a clip is in one part; it is in {first} too and stays there")
        return first is None
