"""Finding an owner's folders and files under whatever spelling they come out of their archives.

Names are compared without regard to case and to how accents are composed. Where a folder does not hold what is looked
for, one folder further is looked into (an archive that unpacked to a folder of its own name inside itself, or parts of
a corpus each in the folder of its archive), as long as only one place fits. What systems leave beside data is never
seen. `saw` tells what there is, for when nothing fits.
"""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Iterator, Sequence
from fnmatch import fnmatchcase
from pathlib import Path

from ssm_platform.base import is_companion

_SHOWN, _DEPTH, _LINES = 3, 3, 24


def entries(folder: Path) -> list[Path]:
    """What lies in a folder, by name, companions left out; nothing where it is none or may not be looked into."""
    try:
        return sorted(folder / name for name in os.listdir(folder) if not is_companion(name))
    except OSError:
        return []


def find_all(root: Path, *places: str) -> list[Path]:
    """What the first of ``places`` that is there names: "a/b*/c", steps with `*` and `?`, in any case."""
    for place in places:
        if found := _expand(root, [fold(step) for step in place.split("/")]):
            return found
    return []


def find_folder(root: Path, *places: str) -> Path | None:
    """The first of ``places`` that is a folder, or the one of the same name that is all it holds."""
    for place in places:
        folder = next((path for path in find_all(root, place) if path.is_dir()), None)
        if folder is not None:
            inside = _sole(folder)
            return inside if fold(inside.name) == fold(folder.name) else folder
    return None


def find_file(root: Path, *places: str) -> Path | None:
    """The first of ``places`` that is a file."""
    found = (path for place in places for path in find_all(root, place) if path.is_file())
    return next(found, None)


def follow(folder: Path, path: str) -> Path:
    """``folder / path``; where that is absent, the same in another case or behind one wrapper, if it is there."""
    place = folder / path
    if _exists(place):
        return place
    at = folder
    for step in Path(path).parts:
        found = _step(at, step)
        if found is None:
            return place
        at = found
    return at


def fold(name: str) -> str:
    """A name as it is compared."""
    return unicodedata.normalize("NFC", name).casefold()


def saw(root: Path) -> str:
    """What lies below ``root``, in a few lines."""
    lines = list(_lines(root, ""))
    return "\n".join(lines[:_LINES] + (["..."] if len(lines) > _LINES else [])) or "nothing"


def _expand(folder: Path, steps: Sequence[str], further: bool = True) -> list[Path]:
    """Paths below ``folder`` that match all steps; one folder further where none does and only one place fits."""
    if not steps:
        return [folder]
    if steps[0] == ".":
        return _expand(folder, steps[1:])
    inside = entries(folder)
    hits = [entry for entry in inside if fnmatchcase(fold(entry.name), steps[0])]
    found = [path for hit in hits for path in _expand(hit, steps[1:])]
    if found or not further:
        return found
    tried = (_expand(at, steps, False) or _expand(_sole(at), steps, False) for at in inside if at.is_dir())
    deeper = [paths for paths in tried if paths]
    return deeper[0] if len(deeper) == 1 else []


def _sole(folder: Path) -> Path:
    """The one folder that a wrapper holds; for other folders, the folder itself."""
    inside = entries(folder)
    return inside[0] if len(inside) == 1 and inside[0].is_dir() else folder


def _step(folder: Path, name: str) -> Path | None:
    inside = entries(folder)
    found = next((entry for entry in inside if fold(entry.name) == fold(name)), None)
    if found is None and len(inside) == 1 and inside[0].is_dir():
        found = next((entry for entry in entries(inside[0]) if fold(entry.name) == fold(name)), None)
    return found


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except (OSError, ValueError):  # a name that no file can have
        return False


def _lines(folder: Path, indent: str) -> Iterator[str]:
    inside = entries(folder)
    folders = [entry for entry in inside if entry.is_dir()]
    files = [entry.name for entry in inside if not entry.is_dir()]
    for entry in folders[:_SHOWN]:
        yield f"{indent}{entry.name}/"
        if len(indent) < 2 * (_DEPTH - 1):
            yield from _lines(entry, indent + "  ")
    if len(folders) > _SHOWN:
        yield f"{indent}... and {len(folders) - _SHOWN} more folders, to {folders[-1].name}/"
    if files:
        rest = f", ... and {len(files) - _SHOWN} more, to {files[-1]}" if len(files) > _SHOWN else ""
        yield f"{indent}{', '.join(files[:_SHOWN])}{rest}"
