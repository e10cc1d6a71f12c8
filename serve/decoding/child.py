"""The process of one upload or camera: take limits on, decode, find faces, say so, and end. Runs after a fork.

Whatever goes wrong becomes a refusal or an end: an error that has no words here ends the process, and the replica
says that the file could not be decoded. A frame of a camera is refused alone.
"""

from __future__ import annotations

import os
import resource
import socket
from collections.abc import Iterator, Sequence
from itertools import chain, islice
from pathlib import Path

import cv2
from av.error import FFmpegError

from serve.decoding import messages
from serve.decoding.messages import CameraJob, Job, Work
from serve.decoding.thumbnails import Thumbnails, watched
from ssm_platform.media import InputInfo, TooLarge, decode_frame, open_input
from ssm_platform.read import CameraStream, FaceFrame, face_stream

_FRAMES = 16  # in one message
_FILES = 64
MIB = 2**20


def work(job: Job | CameraJob, channel: socket.socket) -> None:
    """Decode what the job names, or what comes through `channel`, and write messages to it."""
    limit(job)
    cv2.setNumThreads(job.threads)
    if isinstance(job, CameraJob):
        _follow(job, channel)
        return
    try:
        _answer(job, channel)
    except REFUSED as error:
        channel.sendall(messages.refused(*_refusal(error, job, job.paths)))


REFUSED = (MemoryError, ValueError, FFmpegError, OSError, cv2.error)
"""What decoding raises for files that cannot be used; FFmpeg's own MemoryError is one as well."""


def _refusal(error: Exception, job: Work, paths: Sequence[str] = ()) -> tuple[int, str]:
    """Status and words: 413 for too much, else 422; 'file' where a message has a path of ours."""
    memory = f"decoding it takes more than the {job.memory_mib} MiB of memory that are given to it"
    if isinstance(error, MemoryError) or isinstance(error.__cause__, MemoryError):
        return 413, memory
    if isinstance(error, cv2.error):
        short = error.code == cv2.Error.StsNoMem
        return (413, memory) if short else (422, f"OpenCV cannot use it ({error.err or error.code})")
    return (413 if isinstance(error, TooLarge) else 422), _public(error, paths)


def limit(job: Work) -> None:
    """From here on this process may use so much CPU and memory, and write no file."""
    seconds = max(1, round(job.cpu_s))
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds + 1))
    most = _data_bytes() + job.memory_mib * MIB
    resource.setrlimit(resource.RLIMIT_DATA, (most, most))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_NOFILE, (_FILES, _FILES))


def _data_bytes() -> int:
    """Private memory of this process as RLIMIT_DATA counts it."""
    with open("/proc/self/statm", "rb") as file:
        return int(file.read().split()[5]) * os.sysconf("SC_PAGE_SIZE")


def _answer(job: Job, out: socket.socket) -> None:
    """Facts, then faces; the facts wait for the first frames, of pictures for all, so that a refusal comes first."""
    paths = [Path(path) for path in job.paths]
    source = open_input(paths, job.options.decoder, job.options.limits)
    info = source.facts
    if info.frames > job.frames:
        raise TooLarge(f"{info.frames} frames, at most {job.frames} are accepted")
    thumbnails = Thumbnails(job.thumbnails, info.frames)
    chunks = _chunks(face_stream(watched(source, thumbnails), job.preprocessing, job.options), info)
    first = next(chunks, [])
    out.sendall(messages.opened(info))
    for chunk in chain([first], chunks):
        for small in thumbnails.taken():
            out.sendall(messages.thumbnail(small))
        out.sendall(messages.faces(chunk))
    out.sendall(messages.ended())


def _chunks(frames: Iterator[FaceFrame], info: InputInfo) -> Iterator[list[FaceFrame]]:
    size = info.frames if info.kind == "pictures" else _FRAMES
    while chunk := list(islice(frames, size)):
        yield chunk


def _follow(job: CameraJob, channel: socket.socket) -> None:
    """A camera's frames, one answer each, until nobody sends any more."""
    look = CameraStream(job.preprocessing, job.options)
    with channel.makefile("rb") as stream:
        while (frame := messages.next_frame(stream)) is not None:
            number, timestamp, data = frame
            try:
                image = decode_frame(data, job.options.limits)
                found = look(number, timestamp, image)
            except REFUSED as error:
                channel.sendall(messages.refused(*_refusal(error, job)))
            else:
                channel.sendall(messages.looked(found, image.shape[1], image.shape[0]))


def _public(error: Exception, paths: Sequence[str]) -> str:
    """The message without our paths: 'file' for one upload, 'file 2' for one of several."""
    message = str(error)
    for number, path in enumerate(paths, 1):
        message = message.replace(path, "file" if len(paths) == 1 else f"file {number}")
    return message
