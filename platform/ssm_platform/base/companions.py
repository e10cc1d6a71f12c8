"""Files and folders that systems leave beside data and that are never data: by name, the same for every front door.

macOS: `._x` twins, `.DS_Store`, `__MACOSX/`; Windows: `Thumbs.db`, `desktop.ini`; NAS boxes: `@eaDir`; and whatever
else is hidden by a leading dot.
"""

from __future__ import annotations

from collections.abc import Iterable

_NAMES = frozenset(
    {
        "__macosx",
        "thumbs.db",
        "ehthumbs.db",
        "desktop.ini",
        "icon\r",
        "@eadir",
        "#recycle",
        "@recycle",
        "$recycle.bin",
        "system volume information",
        "lost+found",
        "__pycache__",
    }
)


def is_companion(name: str) -> bool:
    """Whether a file or folder of this name is none of the data."""
    return name.startswith((".", "~$")) or name.casefold() in _NAMES


def in_companion(parts: Iterable[str]) -> bool:
    """Whether a path of these steps leads into, or is, what is none of the data; `.` and `..` are steps, not names."""
    return any(is_companion(part) for part in parts if part not in (".", ".."))
