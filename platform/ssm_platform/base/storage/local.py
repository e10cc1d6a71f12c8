"""Storage in a folder: files below it; those opened last stay open.

A write goes to a hidden file beside its place and is renamed, so it is seen whole or not at all.
"""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from ssm_platform.base.places import part_path
from ssm_platform.base.storage.protocol import DamagedObject, MissingKey, StorageError, checked

T = TypeVar("T")
_OPEN_FILES = 64


class LocalStorage:
    """Files below a folder; those opened last stay open."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.uri = str(folder)
        self._open: OrderedDict[str, int] = OrderedDict()
        self._lock = threading.Lock()

    def __reduce__(self) -> tuple[type[LocalStorage], tuple[Path]]:
        return LocalStorage, (self._folder,)

    def __del__(self) -> None:
        for descriptor in self._open.values():
            os.close(descriptor)

    def read(self, key: str) -> bytes:
        return self._told(key, lambda: self._path(key).read_bytes())

    def read_range(self, key: str, start: int, length: int) -> bytes:
        def attempt() -> bytes:
            with self._lock:
                return os.pread(self._descriptor(key), length, start)

        data = self._told(key, attempt)
        if len(data) != length:
            raise DamagedObject(
                f"{self.uri}/{key}", f"{len(data)} of {length} bytes from {start}: the file is too short"
            )
        return data

    def write(self, key: str, data: bytes) -> None:
        scratch = self._scratch(key)
        try:
            with scratch.open("wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            self._publish(key, scratch)
        finally:  # a full disk is not filled further by what did not fit
            scratch.unlink(missing_ok=True)

    def write_file(self, key: str, path: Path) -> None:
        try:
            self._scratch(key)
            self._publish(key, path)
        except OSError:  # another file system
            self.write(key, path.read_bytes())

    @contextmanager
    def as_file(self, key: str) -> Iterator[Path]:
        if not self.exists(key):
            raise MissingKey(f"{self.uri}/{key}", "no such file")
        yield self._path(key)

    def exists(self, key: str) -> bool:
        return self._path(key).is_file()

    def list(self, prefix: str = "") -> list[str]:
        below = self._folder / prefix.rpartition("/")[0]  # a run's folder holds far more than what is asked for
        paths = (path.relative_to(self._folder) for path in below.rglob("*") if path.is_file())
        keys = (path.as_posix() for path in paths if not any(part.startswith(".") for part in path.parts))
        return sorted(key for key in keys if key.startswith(prefix))

    def delete(self, key: str) -> None:
        self._path(key).unlink(missing_ok=True)
        self._close(key)

    def _path(self, key: str) -> Path:
        return self._folder / checked(key)

    def _scratch(self, key: str) -> Path:
        path = self._path(key)
        path.parent.mkdir(parents=True, exist_ok=True)
        return part_path(path, f".{threading.get_ident()}")

    def _publish(self, key: str, scratch: Path) -> None:
        os.replace(scratch, self._path(key))
        self._close(key)

    def _descriptor(self, key: str) -> int:
        if key not in self._open:
            self._open[key] = os.open(self._path(key), os.O_RDONLY)
            if len(self._open) > _OPEN_FILES:
                os.close(self._open.popitem(last=False)[1])
        self._open.move_to_end(key)
        return self._open[key]

    def _close(self, key: str) -> None:
        with self._lock:
            if key in self._open:
                os.close(self._open.pop(key))

    def _told(self, key: str, action: Callable[[], T]) -> T:
        """The action's result, its OSError with the key in the message."""
        try:
            return action()
        except FileNotFoundError as error:
            raise MissingKey(f"{self.uri}/{key}", "no such file") from error
        except OSError as error:
            raise StorageError(f"{self.uri}/{key}", error.strerror or str(error)) from error
