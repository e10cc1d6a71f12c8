"""Bytes by key, in a local folder or below an `s3://bucket/prefix`: the only place that knows which of the two it is.

A read gives all the bytes asked for or raises: short bodies are detected and retried, tries are bounded in number and
time, and an error names the key and never a credential. A write is seen whole or not at all. Objects can be pickled and
shared by threads. S3 goes through boto3 (credentials and region as boto3 finds them; `AWS_ENDPOINT_URL` for other
servers).
"""

from __future__ import annotations

import os
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from functools import cache, cached_property
from pathlib import Path, PurePosixPath
from typing import Any, Protocol, TypeVar

from pydantic import BaseModel, ConfigDict, Field

from ssm_platform.base.places import part_path

T = TypeVar("T")
_CHUNK = 1 << 14  # bytes between two looks at the clock
_OPEN_FILES = 64


def default_place() -> str:
    """Where runs go that name no place: `SSM_STORAGE`, which clusters set to a bucket, else the folder `runs`."""
    return os.environ.get("SSM_STORAGE", "runs")


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


def open_storage(uri: str | Path, settings: StorageSettings | None = None) -> Storage:
    """A folder (made when first written to) or `s3://bucket/prefix`. ValueError for any other scheme."""
    text = str(uri)
    if text.startswith("s3://"):
        return _S3Storage(text, settings or StorageSettings())
    if "://" in text:
        raise ValueError(f"{text}: storage is a folder or s3://bucket/prefix")
    return _LocalStorage(Path(text).expanduser().absolute())


class _LocalStorage:
    """Files below a folder; those opened last stay open."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.uri = str(folder)
        self._open: OrderedDict[str, int] = OrderedDict()
        self._lock = threading.Lock()

    def __reduce__(self) -> tuple[type[_LocalStorage], tuple[Path]]:
        return _LocalStorage, (self._folder,)

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
            raise StorageError(
                f"{self.uri}/{key}", f"{len(data)} of {length} bytes from {start}: the file is too short"
            )
        return data

    def write(self, key: str, data: bytes) -> None:
        scratch = self._scratch(key)
        with scratch.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        self._publish(key, scratch)

    def write_file(self, key: str, path: Path) -> None:
        try:
            self._scratch(key)
            self._publish(key, path)
        except OSError:  # another file system
            self.write(key, path.read_bytes())

    def exists(self, key: str) -> bool:
        return self._path(key).is_file()

    def list(self, prefix: str = "") -> list[str]:
        paths = (path.relative_to(self._folder) for path in self._folder.rglob("*") if path.is_file())
        keys = (path.as_posix() for path in paths if not any(part.startswith(".") for part in path.parts))
        return sorted(key for key in keys if key.startswith(prefix))

    def delete(self, key: str) -> None:
        self._path(key).unlink(missing_ok=True)
        self._close(key)

    def _path(self, key: str) -> Path:
        return self._folder / _checked(key)

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


class _Retry(Exception):
    """A try failed in a way that another may not."""


class _S3Storage:
    """Objects below a bucket's prefix."""

    def __init__(self, uri: str, settings: StorageSettings) -> None:
        bucket, _, prefix = uri.removeprefix("s3://").partition("/")
        if not bucket:
            raise ValueError(f"{uri}: s3://bucket/prefix names a bucket")
        prefix = prefix.strip("/")
        self.uri = f"s3://{bucket}/{prefix}" if prefix else f"s3://{bucket}"
        self._bucket, self._prefix, self._settings = bucket, f"{prefix}/" if prefix else "", settings

    def __reduce__(self) -> tuple[type[_S3Storage], tuple[str, StorageSettings]]:
        return _S3Storage, (self.uri, self._settings)

    def _connect(self) -> None:
        """Make the client once: seconds of imports that no deadline is about."""
        assert self._client

    @cached_property
    def _client(self) -> Any:
        import boto3
        from botocore.config import Config

        seconds = self._settings.timeout_s
        config = Config(
            connect_timeout=seconds, read_timeout=seconds, retries={"total_max_attempts": 1}, max_pool_connections=16
        )
        return boto3.session.Session().client("s3", config=config)

    def read(self, key: str) -> bytes:
        return self._try(key, lambda until: self._get(key, None, until))

    def read_range(self, key: str, start: int, length: int) -> bytes:
        if length == 0:
            return b""

        def attempt(until: float) -> bytes:
            data = self._get(key, f"bytes={start}-{start + length - 1}", until)
            if len(data) != length:
                raise _Retry(f"{len(data)} of {length} bytes from {start}")
            return data

        return self._try(key, attempt)

    def write(self, key: str, data: bytes) -> None:
        self._try(key, lambda _: self._client.put_object(Bucket=self._bucket, Key=self._name(key), Body=data))

    def write_file(self, key: str, path: Path) -> None:
        self._try(key, lambda _: self._client.upload_file(str(path), self._bucket, self._name(key)))

    def exists(self, key: str) -> bool:
        try:
            self._try(key, lambda _: self._client.head_object(Bucket=self._bucket, Key=self._name(key)))
        except MissingKey:
            return False
        return True

    def list(self, prefix: str = "") -> list[str]:
        return sorted(self._try(prefix or "", lambda _: list(self._keys(prefix))))

    def delete(self, key: str) -> None:
        self._try(key, lambda _: self._client.delete_object(Bucket=self._bucket, Key=self._name(key)))

    def _name(self, key: str) -> str:
        return self._prefix + _checked(key)

    def _keys(self, prefix: str) -> Iterator[str]:
        pages = self._client.get_paginator("list_objects_v2")
        for page in pages.paginate(Bucket=self._bucket, Prefix=self._prefix + prefix):
            for item in page.get("Contents", []):
                yield item["Key"].removeprefix(self._prefix)

    def _get(self, key: str, span: str | None, until: float) -> bytes:
        """The body as long as its header says; a slower one than the deadline allows is given up."""
        wanted = {"Range": span} if span else {}
        answer = self._client.get_object(Bucket=self._bucket, Key=self._name(key), **wanted)
        parts, body, missing = list[bytes](), answer["Body"], int(answer["ContentLength"])
        try:
            while part := body.read(_CHUNK):
                parts.append(part)
                missing -= len(part)
                if missing and time.monotonic() > until:
                    raise _Retry("the body came too slowly")
        finally:
            body.close()
        if missing:
            raise _Retry(f"{answer['ContentLength'] - missing} of {answer['ContentLength']} bytes")
        return b"".join(parts)

    def _try(self, key: str, action: Callable[[float], T]) -> T:
        """The action's result, tried within the bounds of the settings. Errors carry no text of boto3's own."""
        self._connect()
        until = time.monotonic() + self._settings.deadline_s
        name, tries = f"{self.uri}/{key}", 0
        failure: StorageError | str = ""
        for tries in range(1, self._settings.attempts + 1):
            try:
                return action(until)
            except _s3_errors() as error:
                failure = _judged(name, error)
            if isinstance(failure, StorageError):
                raise failure
            pause = self._settings.backoff_s * 2 ** (tries - 1)
            if time.monotonic() + pause > until:
                break
            time.sleep(pause)
        raise StorageError(name, f"gave up after {tries} tries: {failure}")


@cache
def _s3_errors() -> tuple[type[Exception], ...]:
    """What a try may raise: a short body, an answer of the server, a broken connection."""
    from boto3.exceptions import S3UploadFailedError
    from botocore.exceptions import BotoCoreError, ClientError
    from urllib3.exceptions import HTTPError

    return (_Retry, ClientError, BotoCoreError, S3UploadFailedError, HTTPError, OSError)


def _judged(key: str, error: Exception) -> StorageError | str:
    """Why a try failed: a text where another may help, an error where none can."""
    from botocore.exceptions import ClientError, NoCredentialsError, PartialCredentialsError

    if isinstance(error.__context__, ClientError):  # an upload in parts wraps the server's answer
        error = error.__context__
    if isinstance(error, ClientError):
        return _answered(key, error.response)
    if isinstance(error, NoCredentialsError | PartialCredentialsError):
        return StorageError(key, "no S3 credentials: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY")
    return str(error) if isinstance(error, _Retry) else type(error).__name__


def _answered(key: str, answer: Mapping[str, Any]) -> StorageError | str:
    status = answer.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    code = answer.get("Error", {}).get("Code", "unknown")
    if status == 404:
        return MissingKey(key, f"no such object ({code})")
    if status < 500 and status != 429 and code not in ("SlowDown", "RequestTimeout"):
        return StorageError(key, f"refused: {code} (HTTP {status})")
    return f"{code} (HTTP {status})"


def _checked(key: str) -> str:
    path = PurePosixPath(key)
    if not key or path.is_absolute() or ".." in path.parts:
        raise ValueError(f"storage key {key!r} is not a relative path without '..'")
    return key
