"""Request bodies, read under limits: multipart files streamed to disk, tensor bodies to memory.

Size is enforced while reading, whatever `Content-Length` says; a client that stops sending is given up on. Names and
types that clients send are never trusted: a name is only echoed, the type is found from the bytes later.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.requests import ClientDisconnect, Request

from serve.errors import Refusal
from serve.settings import Limits

if TYPE_CHECKING:
    from python_multipart.multipart import MultipartCallbacks

_OVERHEAD = 64 * 1024  # what boundaries and part headers may add to the files themselves
_NAME_LENGTH = 200


@dataclass(frozen=True)
class Received:
    """One uploaded file: the client's name for it (for messages only) and where it lies."""

    name: str
    path: Path
    size: int


async def read_body(request: Request, limit: int, idle_s: float) -> bytes:
    """The whole body of at most `limit` bytes."""
    parts, size = [], 0
    async for chunk in _chunks(request, limit, idle_s):
        parts.append(chunk)
        size += len(chunk)
    return b"".join(parts)


async def read_files(request: Request, folder: Path, limits: Limits) -> list[Received]:
    """Stream the files of a multipart form into `folder`; parts without a file name are refused."""
    receiver = _Receiver(folder, limits.images)
    with receiver.closing(), _refusing_malformed():
        parser = MultipartParser(_boundary(request), receiver.callbacks())
        async for chunk in _chunks(request, limits.upload_bytes + _OVERHEAD, limits.idle_s):
            await asyncio.to_thread(parser.write, chunk)
        parser.finalize()
    return receiver.finished()


async def _chunks(request: Request, limit: int, idle_s: float) -> AsyncIterator[bytes]:
    if request.headers.get("content-encoding", "identity") != "identity":
        raise Refusal(415, "compressed request bodies are not accepted")
    declared = request.headers.get("content-length", "0")
    if declared.isdigit() and int(declared) > limit:
        raise Refusal(413, f"the request has {declared} bytes, at most {limit} are accepted")
    size = 0
    stream = request.stream().__aiter__()
    while True:
        try:
            chunk = await asyncio.wait_for(anext(stream), idle_s)
        except StopAsyncIteration:
            return
        except TimeoutError:
            raise Refusal(408, f"nothing was received for {idle_s:g} seconds") from None
        except ClientDisconnect:
            raise Refusal(400, "the client disconnected while sending") from None
        size += len(chunk)
        if size > limit:
            raise Refusal(413, f"the request is larger than the {limit} bytes that are accepted")
        if chunk:
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
        _, options = parse_options_header(self._part.headers.get(b"content-disposition"))
        label = options.get(b"filename")
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


def _clean(label: bytes) -> str:
    """A client's file name as something to print: the last part, printable, short."""
    text = label.decode("utf-8", "replace").replace("\\", "/").rsplit("/", 1)[-1]
    return "".join(letter for letter in text if letter.isprintable())[:_NAME_LENGTH].strip()
