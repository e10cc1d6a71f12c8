"""Uploads on disk: a folder per process, a folder per request, both gone when their owner is.

The process's folder has a name nobody can guess and belongs to us alone; a lock on it, held for the life of the
process, says that its owner lives. A process that was killed cannot tidy up: the next `Spool` opened on the machine
removes folders of ours whose lock is free. Space is reserved before an upload is read; where others fill the disk
meanwhile, the upload is refused as it would have been before.
"""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from serve.errors import Refusal
from serve.intake.places import Budget

_PREFIX = "ssm-serve-"
_FULL = "the disk for uploads is full"
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class Spool:
    """Temporary folders below `root` (None: the system's temporary folder), `most` bytes of uploads at once."""

    def __init__(self, root: str | None, most: int) -> None:
        self._base = Path(root or tempfile.gettempdir())
        self._base.mkdir(parents=True, exist_ok=True)
        _sweep(self._base)
        self.folder, self._lock = _own_folder(self._base)
        self._budget = Budget("disk for uploads", most)

    @contextmanager
    def request(self, size: int) -> Iterator[Path]:
        """A private folder for `size` bytes, removed on leaving whatever happened. 503 or 507 where there is no room.

        507 where the disk itself has no room: waiting does not help.
        """
        with self._budget.reserved(size):
            if shutil.disk_usage(self._base).free < size:
                raise Refusal(507, _FULL)
            folder = Path(tempfile.mkdtemp(dir=self.folder))
            try:
                yield folder
            except OSError as error:
                if error.errno in (errno.ENOSPC, errno.EDQUOT):
                    raise Refusal(507, _FULL) from error
                raise
            finally:
                shutil.rmtree(folder, ignore_errors=True)

    def close(self) -> None:
        """Remove everything of this process."""
        shutil.rmtree(self.folder, ignore_errors=True)
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1


def _own_folder(base: Path) -> tuple[Path, int]:
    """A new folder, mode 0700, and the lock on it; made again where somebody swept it away before it was locked."""
    while True:
        folder = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=base))
        try:
            lock = os.open(folder, _FOLDER)
        except FileNotFoundError:
            continue
        fcntl.flock(lock, fcntl.LOCK_EX)
        if folder.exists():
            return folder, lock
        os.close(lock)


def _sweep(base: Path) -> None:
    """Remove the folders of this user that nobody holds."""
    for folder in base.glob(f"{_PREFIX}*"):
        try:
            lock = os.open(folder, _FOLDER)
        except OSError:  # gone, a link, no folder, or somebody else's
            continue
        try:
            if os.fstat(lock).st_uid == os.geteuid():
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(folder, ignore_errors=True)
        except BlockingIOError:  # its owner lives
            continue
        finally:
            os.close(lock)
