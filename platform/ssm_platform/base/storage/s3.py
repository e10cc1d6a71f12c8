"""Storage below a bucket's prefix, through boto3 (credentials and region as boto3 finds them; `AWS_ENDPOINT_URL` for
other servers).

Short bodies are detected and asked for again; `retrying` bounds the tries. Objects larger than a part are read and
written part by part: memory is flat, a slow link costs time and not the object, and none is too large for a request.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import cached_property, partial
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from ssm_platform.base.storage.protocol import DamagedObject, MissingKey, StorageError, StorageSettings, checked
from ssm_platform.base.storage.retrying import Retry, tried

T = TypeVar("T")
_CHUNK = 1 << 14  # bytes between two looks at the clock
_MOST_PARTS = 10_000  # of one object, by S3's rules


class _Got(NamedTuple):
    """An answer: its bytes, how many the whole object has, and the version they are of."""

    data: bytes
    whole: int
    tag: str | None


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
        return b"".join(self._parts(key))

    def read_range(self, key: str, start: int, length: int) -> bytes:
        if length == 0:
            return b""

        def attempt(until: float) -> bytes:
            got = self._get(key, start, length, until)
            if start + length > got.whole:
                why = f"{len(got.data)} of {length} bytes from {start}: the object is too short"
                raise DamagedObject(f"{self.uri}/{key}", why)
            if len(got.data) != length:
                raise Retry(f"{len(got.data)} of {length} bytes from {start}")
            return got.data

        return self._try(key, attempt)

    @contextmanager
    def as_file(self, key: str) -> Iterator[Path]:
        with tempfile.NamedTemporaryFile(suffix=Path(key).suffix) as file:
            for part in self._parts(key):
                file.write(part)
            file.flush()
            yield Path(file.name)

    def write(self, key: str, data: bytes) -> None:
        view = memoryview(data)
        self._put(key, len(view), lambda start, length: view[start : start + length])

    def write_file(self, key: str, path: Path) -> None:
        with path.open("rb") as file:
            self._put(key, path.stat().st_size, lambda start, length: os.pread(file.fileno(), length, start))

    def exists(self, key: str) -> bool:
        try:
            self._try(key, lambda _: self._client.head_object(Bucket=self._bucket, Key=self._name(key)))
        except MissingKey:
            return False
        return True

    def list(self, prefix: str = "") -> list[str]:
        keys, page = list[str](), self._page(prefix, {})
        while True:
            keys += [item["Key"].removeprefix(self._prefix) for item in page.get("Contents", [])]
            if not page.get("IsTruncated"):
                return sorted(keys)
            page = self._page(prefix, {"ContinuationToken": page["NextContinuationToken"]})

    def delete(self, key: str) -> None:
        self._try(key, lambda _: self._client.delete_object(Bucket=self._bucket, Key=self._name(key)))

    def _name(self, key: str) -> str:
        return self._prefix + checked(key)

    def _page(self, prefix: str, after: dict[str, str]) -> dict[str, Any]:
        """A thousand keys; each page has its own tries."""
        place = {"Bucket": self._bucket, "Prefix": self._prefix + prefix, **after}
        page: dict[str, Any] = self._try(prefix, lambda _: self._client.list_objects_v2(**place))
        return page

    def _parts(self, key: str) -> Iterator[bytes]:
        """An object part by part, each within the deadline; of one version."""
        first = self._try(key, lambda until: self._get(key, 0, None, until))
        yield first.data
        done, part = len(first.data), self._settings.part_bytes
        while done < first.whole:
            wanted = min(part, first.whole - done)
            yield self._try(key, partial(self._get, key, done, wanted, tag=first.tag)).data
            done += wanted

    def _get(self, key: str, start: int, length: int | None, until: float, *, tag: str | None = None) -> _Got:
        """Bytes from `start`, all that the header says or a part of the object; a slower answer is given up."""
        wanted = {} if length is None else {"Range": f"bytes={start}-{start + length - 1}"}
        if tag is not None:
            wanted["IfMatch"] = tag
        answer = self._client.get_object(Bucket=self._bucket, Key=self._name(key), **wanted)
        total, parts, body = int(answer["ContentLength"]), list[bytes](), answer["Body"]
        missing = total if length is not None else min(total, self._settings.part_bytes)
        cut = missing < total  # else it is read to its end, where boto3 compares the checksum
        try:
            while (missing or not cut) and (part := body.read(min(_CHUNK, missing) if cut else _CHUNK)):
                parts.append(part)
                missing -= len(part)
                if missing and time.monotonic() > until:
                    raise Retry("the body came too slowly")
        finally:
            body.close()
        if missing:
            raise Retry(f"{total - missing} of {total} bytes")
        whole = int(str(answer.get("ContentRange", f"/{total}")).rpartition("/")[2])
        return _Got(b"".join(parts), whole, answer.get("ETag"))

    def _put(self, key: str, size: int, part: Callable[[int, int], bytes | memoryview]) -> None:
        """Writes what `part(start, length)` gives, in one request or, where it is larger, in one for each part."""
        place = {"Bucket": self._bucket, "Key": self._name(key)}
        step = max(self._settings.part_bytes, -(-size // _MOST_PARTS))
        if size <= step:
            body = bytes(part(0, size))
            self._try(key, lambda _: self._client.put_object(**place, Body=body))
            return
        upload = self._try(key, lambda _: self._client.create_multipart_upload(**place))["UploadId"]
        try:
            parts = [
                {"PartNumber": number, "ETag": self._send(key, upload, number, part(start, min(step, size - start)))}
                for number, start in enumerate(range(0, size, step), 1)
            ]
            whole = {**place, "UploadId": upload, "MultipartUpload": {"Parts": parts}}
            self._try(key, lambda _: self._client.complete_multipart_upload(**whole))
        except StorageError:
            with suppress(StorageError):
                self._try(key, lambda _: self._client.abort_multipart_upload(**place, UploadId=upload))
            raise

    def _send(self, key: str, upload: str, number: int, data: bytes | memoryview) -> str:
        """One part of an upload; returns its tag."""
        place = {"Bucket": self._bucket, "Key": self._name(key), "UploadId": upload, "PartNumber": number}
        body = bytes(data)
        return str(self._try(key, lambda _: self._client.upload_part(**place, Body=body))["ETag"])

    def _try(self, key: str, action: Callable[[float], T]) -> T:
        self._connect()
        return tried(f"{self.uri}/{key}", self._settings, action)
