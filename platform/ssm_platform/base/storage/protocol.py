"""What every storage promises: bytes by key, all of them or an error that names the key.

A read gives all the bytes asked for or raises. A write is seen whole or not at all. Objects can be pickled and shared
by threads. An error never carries a credential.
"""

from __future__ import annotations

import errno
from contextlib import AbstractContextManager
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


class DamagedObject(StorageError):
    """What lies under this key is not what was stored there: no other try gives more."""


_PASSING = frozenset(
    {
        *(errno.ESTALE, errno.EREMOTEIO, errno.ETIMEDOUT, errno.EHOSTDOWN, errno.EHOSTUNREACH, errno.ENOTCONN),
        *(errno.ENETDOWN, errno.ENETUNREACH, errno.ENETRESET, errno.ECONNRESET, errno.ECONNABORTED),
        *(errno.ECONNREFUSED, errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EAGAIN, errno.EINTR, errno.EBUSY),
    }
)
"""What a file system on a network, or a process out of means, answers. EIO counts as well where the system itself says
it: FFmpeg also says it of damaged files."""


def may_return(error: BaseException | None) -> bool:
    """Whether what could not be read now may be read later: storage or a device that is away, at the bottom of `error`.

    A missing key, a damaged object and a file that is not there stay what they are.
    """
    while error is not None:
        if isinstance(error, StorageError):
            return not isinstance(error, (MissingKey, DamagedObject))
        if isinstance(error, OSError):
            plain = type(error) is OSError and error.errno == errno.EIO
            if plain or error.errno in _PASSING:
                return True
        error = error.__cause__
    return False


class StorageSettings(BaseModel):
    """Bounds of one call to remote storage, all its tries together; of a large object, of each part."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    deadline_s: float = Field(default=60, gt=0, description="seconds after which no further try starts or goes on")
    timeout_s: float = Field(default=10, gt=0, description="seconds without a connection or a byte that end a try")
    backoff_s: float = Field(default=0.1, ge=0, description="pause before the second try; doubles each time to 10 s")
    part_bytes: int = Field(
        default=64 * 2**20, ge=1, description="larger objects are read and written in parts of this size (S3: >= 5 MiB)"
    )


PATIENT = StorageSettings(deadline_s=300)
"""For reading while a run goes on: an outage of minutes costs minutes, not the run."""


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

    def as_file(self, key: str) -> AbstractContextManager[Path]:
        """An object as a local file for the body of a `with`, however large; errors as of `read`. Not to be changed."""

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
