"""Request bodies, read under limits: multipart files streamed to disk, tensor bodies to memory.

Size is enforced while reading, whatever `Content-Length` says; a client that stops sending, or sends too slowly, is
given up on. Names and types that clients send are not trusted: a name is only echoed, the type is found from the bytes.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO
from urllib.parse import unquote_to_bytes

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.requests import ClientDisconnect, Request

from serve.errors import Refusal
from serve.settings import OVERHEAD, Limits
from serve.threads import in_thread

if TYPE_CHECKING:
    from python_multipart.multipart import MultipartCallbacks

_NAME_LENGTH = 200
_CHARSETS = ("utf-8", "iso-8859-1")
_EXTENDED = re.compile(rb";\s*filename\*\s*=\s*([\w-]+)'[\w-]*'([^;\s]+)", re.IGNORECASE)


@dataclass(frozen=True)
class Received:
    """One uploaded file: the client's name for it (for messages only) and where it lies."""

    name: str
    path: Path
    size: int


def declared_bytes(request: Request, limit: int) -> int:
    """What a body may take: its declared length, or `limit` where none is declared. 413 where it is too much."""
    encoding = request.headers.get("content-encoding", "identity").strip().lower()
    if encoding not in ("identity", ""):
        raise Refusal(415, "compressed request bodies are not accepted")
    declared = request.headers.get("content-length", "")
    if not declared.isascii() or not declared.isdigit():
        return limit
    if int(declared) > limit:
        raise Refusal(413, f"the request has {declared} bytes, at most {limit} are accepted")
    return int(declared)


async def read_body(request: Request, limit: int, limits: Limits) -> bytes:
    """The whole body of at most `limit` bytes."""
    return b"".join([chunk async for chunk in _chunks(request, limit, limits)])


async def read_files(request: Request, folder: Path, limits: Limits) -> list[Received]:
    """Stream the files of a multipart form into `folder`; parts without a file name are refused."""
    receiver = _Receiver(folder, limits.images)
    with receiver.closing(), _refusing_malformed():
        boundary = _boundary(request)
        parser = MultipartParser(boundary, receiver.callbacks())
        async for chunk in _after_preamble(_chunks(request, upload_limit(limits), limits), boundary):
            await in_thread(parser.write, chunk)
        parser.finalize()
    return receiver.finished()


def upload_limit(limits: Limits) -> int:
    """The largest body of an upload, its form included."""
    return limits.upload_bytes + OVERHEAD


async def _chunks(request: Request, limit: int, limits: Limits) -> AsyncIterator[bytes]:
    declared_bytes(request, limit)
    size, stream = 0, request.stream().__aiter__()
    now = asyncio.get_running_loop().time
    start = now()
    while True:
        try:
            async with asyncio.timeout_at(_next_due(start, now(), size, limits)):
                chunk = await anext(stream)
        except StopAsyncIteration:
            return
        except TimeoutError:
            rule = f"at least {limits.upload_rate:g} bytes a second, and no pause of {limits.idle_s:g} seconds"
            raise Refusal(408, f"{size} bytes came in {now() - start:.0f} seconds: {rule}") from None
        except ClientDisconnect:
            raise Refusal(400, "the client disconnected while sending") from None
        size += len(chunk)
        if size > limit:
            raise Refusal(413, f"the request is larger than the {limit} bytes that are accepted")
        if chunk:
            yield chunk


def _next_due(start: float, now: float, size: int, limits: Limits) -> float:
    """When the next bytes must have come: a client may pause for `idle_s`, but not send drop by drop for ever."""
    paused = now + limits.idle_s
    if not limits.upload_rate:
        return paused
    return min(paused, start + limits.idle_s + size / limits.upload_rate)


async def _after_preamble(chunks: AsyncIterator[bytes], boundary: bytes) -> AsyncIterator[bytes]:
    """The chunks from the first boundary on: RFC 2046 allows words before it."""
    mark, head, at = b"--" + boundary, b"", 0
    async for chunk in chunks:
        head += chunk
        if head.startswith(mark) or (at := head.find(b"\r\n" + mark) + 2) >= 2:
            break
        if len(head) > OVERHEAD:
            raise Refusal(400, "the multipart body is malformed: it holds no boundary")
    yield head[at if at >= 2 else 0 :]
    async for chunk in chunks:
        yield chunk


def _boundary(request: Request) -> bytes:
    kind, options = parse_options_header(request.headers.get("content-type"))
    if kind != b"multipart/form-data":
        raise Refusal(415, "send multipart/form-data with one video, or one or more pictures, in parts named 'file'")
    boundary = options.get(b"boundary")
    if not boundary:
        raise Refusal(400, "the Content-Type names no multipart boundary")
    return boundary


@contextmanager
def _refusing_malformed() -> Iterator[None]:
    try:
        yield
    except FormParserError as error:
        raise Refusal(400, f"the multipart body is malformed: {error}") from None


@dataclass
class _Part:
    headers: dict[bytes, bytes] = field(default_factory=dict)
    name: bytes = b""
    value: bytes = b""


class _Receiver:
    """The parser's callbacks: one file on disk per part, one open at a time."""

    def __init__(self, folder: Path, most: int) -> None:
        self._folder, self._most = folder, most
        self._files: list[Received] = []
        self._part = _Part()
        self._open: BinaryIO | None = None
        self._label = ""
        self._complete = False

    def callbacks(self) -> MultipartCallbacks:
        return {
            "on_part_begin": self._part_begin,
            "on_part_data": self._part_data,
            "on_part_end": self._part_end,
            "on_header_field": self._header_field,
            "on_header_value": self._header_value,
            "on_header_end": self._header_end,
            "on_headers_finished": self._headers_finished,
            "on_end": self._end,
        }

    @contextmanager
    def closing(self) -> Iterator[None]:
        try:
            yield
        finally:
            if self._open is not None:
                self._open.close()

    def finished(self) -> list[Received]:
        if not self._complete:
            raise Refusal(400, "the multipart body ends too early")
        if not self._files:
            raise Refusal(400, "the form holds no file")
        return self._files

    def _part_begin(self) -> None:
        if len(self._files) >= self._most:
            raise Refusal(413, f"at most {self._most} files are accepted in one request")
        self._part = _Part()

    def _header_field(self, data: bytes, start: int, end: int) -> None:
        self._part.name += data[start:end]

    def _header_value(self, data: bytes, start: int, end: int) -> None:
        self._part.value += data[start:end]

    def _header_end(self) -> None:
        self._part.headers[self._part.name.lower()] = self._part.value
        self._part.name = self._part.value = b""

    def _headers_finished(self) -> None:
        disposition = self._part.headers.get(b"content-disposition", b"")
        _, options = parse_options_header(disposition)
        label = options.get(b"filename", _extended_name(disposition))
        if options.get(b"name") != b"file" or label is None:
            raise Refusal(400, "every part of the form must be a file named 'file'; options go into the query string")
        self._label = _clean(label) or f"file {len(self._files) + 1}"
        self._open = (self._folder / str(len(self._files))).open("wb")

    def _part_data(self, data: bytes, start: int, end: int) -> None:
        assert self._open is not None
        self._open.write(data[start:end])

    def _part_end(self) -> None:
        assert self._open is not None
        self._open.close()
        path = Path(self._open.name)
        self._files.append(Received(self._label, path, path.stat().st_size))

    def _end(self) -> None:
        self._complete = True


def _extended_name(disposition: bytes) -> bytes | None:
    """The value of `filename*` (RFC 5987): charset, language, percent-encoded bytes. None where absent."""
    found = _EXTENDED.search(disposition)
    if found is None:
        return None
    charset = found[1].decode("ascii").lower()
    return unquote_to_bytes(found[2]).decode(charset if charset in _CHARSETS else "utf-8", "replace").encode()


def _clean(label: bytes) -> str:
    """A client's file name as something to print: the last part, printable, short."""
    text = label.decode("utf-8", "replace").replace("\\", "/").rsplit("/", 1)[-1]
    return "".join(letter for letter in text if letter.isprintable())[:_NAME_LENGTH].strip()
