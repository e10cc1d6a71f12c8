"""What every storage promises: bytes by key, all of them or an error that names the key.

A read gives all the bytes asked for or raises. A write is seen whole or not at all. Objects can be pickled and shared
by threads. An error never carries a credential.
"""

from __future__ import annotations

from pathlib import Path, PurePosixPath
from typing import Protocol

from pydantic import BaseModel, ConfigDict, Field


class StorageError(ValueError):
    """Storage did not do what was asked; the message carries the full key."""

    def __init__(self, key: str, reason: str) -> None:
        super().__init__(f"{key}: {reason}")
        self.key = key
        self.reason = reason

    def __reduce__(self) -> tuple[type[StorageError], tuple[str, str]]:
        return type(self), (self.key, self.reason)


class MissingKey(StorageError):
    """There is nothing under this key."""


class StorageSettings(BaseModel):
    """Bounds of one call to remote storage, all its tries together."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    attempts: int = Field(default=5, ge=1, le=20, description="tries of one call")
    deadline_s: float = Field(default=60, gt=0, description="seconds after which no further try starts or goes on")
    timeout_s: float = Field(default=10, gt=0, description="seconds without a connection or a byte that end a try")
    backoff_s: float = Field(default=0.1, ge=0, description="pause before the second try; doubles each time")


class Storage(Protocol):
    """Keys are relative, with forward slashes."""

    @property
    def uri(self) -> str:
        """The folder or `s3://` prefix below which the keys lie."""

    def read(self, key: str) -> bytes:
        """All of an object. MissingKey where there is none, StorageError where it cannot be read."""

    def read_range(self, key: str, start: int, length: int) -> bytes:
        """Exactly `length` bytes from `start`; StorageError where the object ends before that."""

    def write(self, key: str, data: bytes) -> None:
        """Put an object under a key, replacing what is there."""

    def write_file(self, key: str, path: Path) -> None:
        """Move a local file's content under a key; the file may be gone afterwards."""

    def exists(self, key: str) -> bool:
        """Whether there is an object under a key."""

    def list(self, prefix: str = "") -> list[str]:
        """Keys that begin with the prefix, sorted."""

    def delete(self, key: str) -> None:
        """Remove an object; nothing happens where there is none."""


def checked(key: str) -> str:
    """The key. ValueError where it is not a relative path that stays below its place."""
    path = PurePosixPath(key)
    if not key or path.is_absolute() or ".." in path.parts:
        raise ValueError(f"storage key {key!r} is not a relative path without '..'")
    return key
