"""Prepared frame lists, as users of the SSM release have them: which text files to read, and where their paths lead
now.

A list was often written on another machine: a path that does not exist as written is looked for below the corpus root
with its leading folders taken off, the same number for every line.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from pydantic import Field

from ssm_platform.corpora.base import ReadOptions, Report

_SUFFIXES = (".txt", ".csv", ".json", ".jsonl")


class ListOptions(ReadOptions):
    """Which list files to read: paths, absolute or below the root. Left empty, the one named "train" and the one
    named "test".
    """

    train: str | None = Field(default=None, description="list of training frames or clips, below the root or absolute")
    test: str | None = Field(default=None, description="list of test frames or clips, below the root or absolute")
    images: str = Field(
        default=".", description="folder, below the root or absolute, that the paths in the lists start from"
    )


def list_files(root: Path, options: ListOptions) -> dict[str, Path]:
    """Part -> list file. ValueError where a named list is absent or the choice is not clear."""
    named = {part: root / name for part, name in (("train", options.train), ("test", options.test)) if name is not None}
    for part, path in named.items():
        if not path.is_file():
            raise ValueError(f"{path}: no such file; option {part!r} names a list below {root}")
    if named:
        return named
    return {part: path for part in ("train", "test") for path in _discovered(root, part)}


def _discovered(root: Path, part: str) -> list[Path]:
    """The list of ``part`` in the root or one folder below, if there is exactly one."""
    places = (*root.glob("*"), *root.glob("*/*"))
    found = sorted(path for path in places if part in path.name.lower() and path.suffix in _SUFFIXES and path.is_file())
    if len(found) > 1:
        names = ", ".join(path.relative_to(root).as_posix() for path in found)
        raise ValueError(f"{root}: several lists named {part!r} ({names}); choose one by option {part!r}")
    return found


class Resolver:
    """Finds what a list's paths mean on this machine."""

    def __init__(self, root: Path, images: str, report: Report) -> None:
        self._base, self._report, self._dropped = root / images, report, 0

    def find(self, text: str, path: Path, line: int) -> Path:
        """The folder or file ``text`` names; where nothing is found, the place it should be in."""
        text = text.replace("\\", "/")
        if os.path.exists(self._base / text):
            return self._base / text
        parts = Path(text).parts
        for dropped in self._candidates(len(parts)) if ".." not in parts else ():
            place = self._base.joinpath(*parts[dropped:])
            if os.path.exists(place):
                self._remember(dropped, text, path, line)
                return place
        return self._base.joinpath(*parts[self._dropped :])

    def _candidates(self, length: int) -> Iterator[int]:
        if self._dropped:
            yield self._dropped
        else:
            yield from range(1, length)

    def _remember(self, dropped: int, text: str, path: Path, line: int) -> None:
        if not self._dropped:
            prefix = "/".join(Path(text).parts[:dropped])
            self._report.note(path, line, prefix, f"paths start at {self._base}; this prefix is taken off")
            self._dropped = dropped
