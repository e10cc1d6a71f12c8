"""The replica's side: start the forker, hand a job over, read what the child says, kill it when nobody wants it.

Every end has a meaning for the client: what the child refuses is 413 or 422, a child that used up its CPU is 413, one
that crashed or fell silent is 422. Only a forker that cannot be started is our own trouble. An upload is `decode`d; a
camera is `follow`ed: its child lives as long as the block, and looks at one frame after another.
"""

from __future__ import annotations

import asyncio
import json
import os
import select
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from contextlib import aclosing, asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from serve.decoding import messages
from serve.decoding.messages import CameraJob, Job
from serve.decoding.thumbnails import Thumbnail
from serve.errors import Refusal, busy
from serve.threads import in_thread
from ssm_platform.media import InputInfo
from ssm_platform.read import FaceFrame

Decoded = InputInfo | Thumbnail | list[FaceFrame]
"""What comes of an upload: what it is; then its frames, reduced to their faces, and pictures of some before them."""

_BUFFER = 2**21  # bytes of faces read ahead of who takes them
_PING_S = 20.0
_END_S = 2.0
_KEPT = ("PATH", "LANG", "LC_ALL", "HOME", "TMPDIR", "LD_LIBRARY_PATH")
_ONE_THREAD = {
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "JE_ARROW_MALLOC_CONF": "background_thread:false",
}
"""A process with threads cannot be forked safely: these are what libraries start when they are loaded."""


@dataclass
class Spent:
    """What a decoding process cost; filled at its end."""

    cpu_s: float = 0.0


class Sandbox:
    """Decodes uploads in processes of their own. For any number of uploads at once; start is lazy and repeated."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._control: socket.socket | None = None

    async def decode(self, job: Job, spent: Spent | None = None) -> AsyncGenerator[Decoded, None]:
        """Facts once the first frames are decoded, then frames. `Refusal` where that does not work."""
        async with self._child(job, spent) as (reader, _), aclosing(_said(reader, job)) as said:
            async for item in said:
                yield item

    @asynccontextmanager
    async def follow(self, job: CameraJob, patience_s: float, spent: Spent | None = None) -> AsyncIterator[Camera]:
        """A camera's process, for as long as the block runs; a frame that takes `patience_s` ends it. `Refusal`."""
        async with self._child(job, spent) as (reader, writer):
            yield Camera(reader, writer, patience_s)

    @asynccontextmanager
    async def _child(
        self, job: Job | CameraJob, spent: Spent | None
    ) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
        """The two ways to a process of its own, which is killed when the block ends. What its end means is raised."""
        ours, theirs = socket.socketpair()
        told, tell = os.pipe()
        try:
            with theirs:
                try:
                    await in_thread(self._hand_over, job, theirs, tell)
                finally:
                    os.close(tell)
            reader, writer = await asyncio.open_connection(sock=ours, limit=_BUFFER)
            try:
                yield reader, writer
            except asyncio.IncompleteReadError:
                raise _ended(await in_thread(_told, told, spent), job) from None
            except Refusal:
                writer.close()  # a camera's process ends when no frame can come
                await in_thread(_told, told, spent)
                raise
            finally:
                writer.close()
            await in_thread(_told, told, spent)
        finally:
            os.close(told)  # the forker kills what still runs

    def check(self) -> None:
        """RuntimeError unless the forker answers."""
        with self._lock:
            control = self._started()
            control.settimeout(_PING_S)
            try:
                control.send(b"?")
                if control.recv(8) != b"?":
                    raise RuntimeError("the decoding process ended")
            except OSError as error:
                self._end()
                raise RuntimeError(f"the decoding process does not answer: {error}") from error

    def close(self) -> None:
        """End the forker and all that it started."""
        with self._lock:
            self._end()

    def _hand_over(self, job: Job | CameraJob, out: socket.socket, tell: int) -> None:
        text = job.model_dump_json().encode()
        for last in (False, True):
            with self._lock:
                try:
                    socket.send_fds(self._started(), [text], [out.fileno(), tell])
                except OSError as error:  # it was killed: start another one
                    self._end()
                    if last:
                        raise busy(f"decoding cannot be started ({error.strerror})") from error
                else:
                    return

    def _started(self) -> socket.socket:
        if self._control is not None and self._process is not None and self._process.poll() is None:
            return self._control
        self._end()
        self._control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "serve.decoding.forker", str(theirs.fileno())],
                env=_environment(),
                pass_fds=[theirs.fileno()],
                cwd=tempfile.gettempdir(),
                stdin=subprocess.DEVNULL,
                start_new_session=True,
            )
        return self._control

    def _end(self) -> None:
        if self._control is not None:
            self._control.close()  # the forker kills its children and ends
        if self._process is not None:
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(2)
            self._process.kill()
            self._process.wait()
        self._process = self._control = None


@dataclass(frozen=True)
class Looked:
    """A camera's frame: its faces, and its size in pixels."""

    frame: FaceFrame
    width: int
    height: int


class Camera:
    """The process of one camera, as `Sandbox.follow` gives it."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, patience_s: float) -> None:
        self._reader, self._writer, self._patience = reader, writer, patience_s

    async def look(self, number: int, timestamp: float, data: bytes) -> Looked | Refusal:
        """The faces of an encoded frame, or why it is refused; raises what ends the camera."""
        try:
            async with asyncio.timeout(self._patience):
                self._writer.write(messages.frame(number, timestamp, data))
                await self._writer.drain()
                with _sense():
                    head, body = await _message(self._reader)
        except ConnectionError:
            raise asyncio.IncompleteReadError(b"", None) from None
        except TimeoutError:
            raise Refusal(422, f"looking at a frame took more than {self._patience:g} seconds") from None
        with _sense():
            if "refused" in head:
                return _refusal(head)
            (frame,), (width, height) = messages.read_faces(head, body), head["size"]
            return Looked(frame, int(width), int(height))


@lru_cache(maxsize=1)
def shared_sandbox() -> Sandbox:
    """The one of this process."""
    return Sandbox()


def _environment() -> dict[str, str]:
    """Where modules are, and nothing that a decoder should not know."""
    paths = os.pathsep.join(os.path.abspath(path) for path in sys.path)
    kept = {name: os.environ[name] for name in _KEPT if name in os.environ}
    return {**kept, **_ONE_THREAD, "PYTHONPATH": paths}


async def _said(reader: asyncio.StreamReader, job: Job) -> AsyncGenerator[Decoded, None]:
    """Messages until the last one. `asyncio.IncompleteReadError` where they break off."""
    while True:
        try:
            async with asyncio.timeout(job.cpu_s + _PING_S):
                with _sense():
                    head, body = await _message(reader)
        except TimeoutError:
            raise Refusal(422, f"decoding it made no progress for {job.cpu_s + _PING_S:g} seconds") from None
        if "end" in head:
            return
        with _sense():
            if "refused" in head:
                raise _refusal(head)
            item = _item(head, body)
        yield item


def _item(head: dict[str, Any], body: bytes) -> Decoded:
    if "info" in head:
        return InputInfo.model_validate(head["info"])
    if "thumbnail" in head:
        return Thumbnail(int(head["thumbnail"]), body)
    return messages.read_faces(head, body)


@contextmanager
def _sense() -> Iterator[None]:
    """What a child says is believed where it fits together."""
    try:
        yield
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise Refusal(422, "decoding it gave nonsense") from error


def _refusal(head: dict[str, Any]) -> Refusal:
    status, message = head["refused"]
    return Refusal(413 if status == 413 else 422, str(message))


async def _message(reader: asyncio.StreamReader) -> tuple[dict[str, Any], bytes]:
    text, body = messages.LENGTHS.unpack(await reader.readexactly(messages.LENGTHS.size))
    if text > messages.MOST_HEAD or body > messages.MOST_BODY:
        raise Refusal(422, "decoding it gave nonsense")
    head = json.loads(await reader.readexactly(text))
    return dict(head), await reader.readexactly(body)


def _told(told: int, spent: Spent | None) -> int | None:
    """The exit code of the child (negative: a signal); None where it does not end, or the forker died with it."""
    readable, _, _ = select.select([told], [], [], _END_S)
    text = os.read(told, 4096) if readable else b""
    if not text:
        return None
    facts = json.loads(text)
    if spent is not None:
        spent.cpu_s = float(facts["cpu_s"])
    return int(facts["code"])


def _ended(code: int | None, job: Job | CameraJob) -> Refusal:
    if code is None:
        return busy("decoding was interrupted")
    if code == -signal.SIGXCPU:
        return Refusal(413, f"decoding it takes more than {job.cpu_s:g} seconds of CPU")
    if code < 0:
        return Refusal(422, "the decoder crashed on it")
    return Refusal(422, "the decoder cannot read it")
