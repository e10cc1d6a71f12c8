"""Uploads on disk: a folder per process, a folder per request, both gone when their owner is.

A process that was killed cannot tidy up; the next `Spool` opened on the machine removes what its dead
neighbours left.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_PREFIX = "ssm-serve-"


class Spool:
    """Temporary folders below `root` (None: the system's temporary folder)."""

    def __init__(self, root: str | None) -> None:
        base = Path(root or tempfile.gettempdir())
        base.mkdir(parents=True, exist_ok=True)
        _sweep(base)
        self.folder = base / f"{_PREFIX}{os.getpid()}"
        self.folder.mkdir(mode=0o700, exist_ok=True)

    @contextmanager
    def request(self) -> Iterator[Path]:
        """A private folder for the files of one request, removed on leaving whatever happened."""
        self.folder.mkdir(mode=0o700, exist_ok=True)
        folder = Path(tempfile.mkdtemp(dir=self.folder))
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def close(self) -> None:
        """Remove everything of this process."""
        shutil.rmtree(self.folder, ignore_errors=True)


def _sweep(base: Path) -> None:
    for folder in base.glob(f"{_PREFIX}*"):
        pid = folder.name.removeprefix(_PREFIX)
        if pid.isdigit() and not _alive(int(pid)):
            shutil.rmtree(folder, ignore_errors=True)


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
