"""Prepared frame lists, as users of the SSM release have them: which text files to read, and where their paths lead
now.

A list was often written on another machine: a path that does not exist as written is looked for below the corpus root,
and below the folders in it and beside the lists, with its leading folders taken off; the same way for every line.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from pydantic import Field

from ssm_platform.corpora.base import ReadOptions, Report
from ssm_platform.corpora.text import portable
from ssm_platform.corpora.tree import entries, follow

_SUFFIXES = (".list", ".lst", ".txt", ".csv", ".tsv", ".json", ".jsonl")
_PART = re.compile(r"(?<![a-z])(train|test|all)(?:ing)?(?![a-z])")
_FOLD = re.compile(
    r"(?<![a-z])(?:set|fold|split|train|test)[ _-]?(\d{1,2})(?!\d|f(?:old)?(?![a-z]))"
    r"|(?<!\d)(\d{1,2})f(?:old)?(?![a-z])"
)
_MOST_BASES, _MOST_LISTED = 64, 50


class ListOptions(ReadOptions):
    """Which list files to read: paths, absolute or below the root. Left empty, the one named "train" and the one
    named "test", of one fold.
    """

    train: str | None = Field(default=None, description="list of training frames or clips, below the root or absolute")
    test: str | None = Field(default=None, description="list of test frames or clips, below the root or absolute")
    fold: int | None = Field(default=None, ge=0, description="which fold's lists, where several lie in one folder")
    images: str | None = Field(
        default=None,
        description="folder, below the root or absolute, that the paths in the lists start from; "
        "None: the root, a folder in it, or one beside the lists",
    )


@dataclass(frozen=True)
class _List:
    """A file that its name says is a list."""

    path: Path
    part: str  # train, test or all
    fold: int | None


def list_files(root: Path, options: ListOptions) -> dict[str, Path]:
    """Part -> list file. ValueError where a named list is absent or the choice is not clear."""
    named = {part: root / name for part, name in (("train", options.train), ("test", options.test)) if name is not None}
    for part, path in named.items():
        if not path.is_file():
            raise ValueError(f"{path}: no such file; option {part!r} names a list below {root}")
    if named:
        return named
    found = _of_fold(root, _discovered(root), options.fold)
    sides = {part: [entry.path for entry in found if entry.part == part] for part in ("train", "test", "all")}
    if not sides["train"] and not sides["test"]:
        return _only(root, "all", sides["all"])
    return _only(root, "train", sides["train"]) | _only(root, "test", sides["test"])


def _only(root: Path, part: str, paths: list[Path]) -> dict[str, Path]:
    if len(paths) > 1:
        names = ", ".join(path.relative_to(root).as_posix() for path in paths)
        option = "train" if part == "all" else part
        raise ValueError(f"{root}: several lists named {part!r} ({names}); choose one by option {option!r}")
    return {part: paths[0]} if paths else {}


def _of_fold(root: Path, found: list[_List], fold: int | None) -> list[_List]:
    """The lists of one fold; ValueError where it is not clear, or not there."""
    folds = sorted({entry.fold for entry in found if entry.fold is not None})
    if fold is None and len(folds) > 1:
        names = ", ".join(entry.path.relative_to(root).as_posix() for entry in found)
        known = ", ".join(map(str, folds))
        raise ValueError(f"{root}: lists of several folds, {known} ({names}); choose one by option 'fold'")
    if fold is not None and fold not in folds:
        known = ", ".join(map(str, folds)) or "none that names a fold"
        raise ValueError(f"{root}: no list of fold {fold}; found: {known}")
    chosen = fold if fold is not None else next(iter(folds), None)
    return [entry for entry in found if entry.fold == chosen or (entry.fold is None and not folds)]


def _discovered(root: Path) -> list[_List]:
    """Everything in the root, or one folder below, that its name says is a list."""
    places = [path for path in entries(root) if path.is_file()]
    places += [path for folder in entries(root) if folder.is_dir() for path in entries(folder) if path.is_file()]
    lists = []
    for path in places:
        name = path.name.lower()
        part = _PART.search(path.stem.lower())
        if part and name.endswith(_SUFFIXES):
            digits = _FOLD.search(path.stem.lower())
            lists.append(_List(path, part[1], int(next(filter(None, digits.groups()))) if digits else None))
    return lists


class Resolver:
    """Finds what a list's paths mean on this machine."""

    def __init__(self, root: Path, images: str | None, report: Report, keep: int = 1) -> None:
        """`keep`: steps at the end of a path that are never taken off (2 where the folder names who is seen)."""
        self._root, self._images, self._report, self._keep = root, images, report, keep
        self._lost = 0  # paths that were not found as written; folders are listed for the first of them only
        self._way: tuple[Path, int] | None = None  # base, and leading steps taken off

    def find(self, text: str, path: Path, line: int) -> Path:
        """The folder or file ``text`` names; where nothing is found, the place it should be in."""
        text = portable(text)
        base, dropped = self._way or (self._root / (self._images or "."), 0)
        steps = PurePosixPath(text).parts
        place = follow(base, "/".join(steps[dropped:])) if dropped else follow(base, text)
        if self._way is not None or ".." in steps or _there(place):
            self._way = self._way or ((base, 0) if _there(place) and not text.startswith("/") else None)
            return place
        self._lost += 1
        look = follow if self._lost <= _MOST_LISTED else Path.joinpath
        for base, dropped in self._ways(len(steps), path):
            place = look(base, "/".join(steps[dropped:]).lstrip("/"))
            if _there(place):
                self._remember(base, dropped, steps, path, line)
                return place
        return self._root / (self._images or ".") / text.lstrip("/")

    def _ways(self, length: int, path: Path) -> Iterator[tuple[Path, int]]:
        """Bases to start from, and how many leading steps to take off: few before many."""
        bases = [self._root / self._images] if self._images is not None else self._bases(path)
        for dropped in range(length - self._keep + 1):
            yield from ((base, dropped) for base in bases)

    def _bases(self, path: Path) -> list[Path]:
        tops = dict.fromkeys((self._root, path.parent))
        return [*tops, *(folder for top in tops for folder in entries(top)[:_MOST_BASES] if folder.is_dir())]

    def _remember(self, base: Path, dropped: int, steps: tuple[str, ...], path: Path, line: int) -> None:
        if dropped or base != self._root:
            prefix = "/".join(steps[:dropped])
            taken = "this prefix is taken off" if prefix else "nothing is taken off"
            self._report.note(path, line, prefix, f"paths start at {base}; {taken}")
        self._way = base, dropped


def _there(place: Path) -> bool:
    try:
        return os.path.exists(place)
    except ValueError:  # a name that no file can have
        return False
