"""Storage below a bucket's prefix, through boto3 (credentials and region as boto3 finds them; `AWS_ENDPOINT_URL` for
other servers).

Short bodies are detected and asked for again; `retrying` bounds the tries.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

from ssm_platform.base.storage.protocol import MissingKey, StorageSettings, checked
from ssm_platform.base.storage.retrying import Retry, tried

T = TypeVar("T")
_CHUNK = 1 << 14  # bytes between two looks at the clock


class S3Storage:
    """Objects below a bucket's prefix."""

    def __init__(self, uri: str, settings: StorageSettings) -> None:
        bucket, _, prefix = uri.removeprefix("s3://").partition("/")
        if not bucket:
            raise ValueError(f"{uri}: s3://bucket/prefix names a bucket")
        prefix = prefix.strip("/")
        self.uri = f"s3://{bucket}/{prefix}" if prefix else f"s3://{bucket}"
        self._bucket, self._prefix, self._settings = bucket, f"{prefix}/" if prefix else "", settings

    def __reduce__(self) -> tuple[type[S3Storage], tuple[str, StorageSettings]]:
        return S3Storage, (self.uri, self._settings)

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
                raise Retry(f"{len(data)} of {length} bytes from {start}")
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
        return self._prefix + checked(key)

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
                    raise Retry("the body came too slowly")
        finally:
            body.close()
        if missing:
            raise Retry(f"{answer['ContentLength'] - missing} of {answer['ContentLength']} bytes")
        return b"".join(parts)

    def _try(self, key: str, action: Callable[[float], T]) -> T:
        self._connect()
        return tried(f"{self.uri}/{key}", self._settings, action)
