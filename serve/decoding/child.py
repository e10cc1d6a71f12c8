"""The process of one upload: take limits on, decode, find faces, say so, and end. Runs after a fork, never returns.

Whatever goes wrong becomes a refusal or an end: an error that has no words here ends the process, and the replica
says that the file could not be decoded.
"""

from __future__ import annotations

import os
import resource
import socket
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import cv2
from av.error import FFmpegError

from serve.decoding import messages
from serve.decoding.messages import Job
from ssm_platform.media import InputInfo, TooLarge, open_input
from ssm_platform.read import FaceFrame, face_stream

_FRAMES = 16  # in one message
_FILES = 64
MIB = 2**20


def work(job: Job, out: socket.socket) -> None:
    """Decode the job's files and write messages to `out`."""
    limit(job)
    try:
        _answer(job, out)
    except TooLarge as error:
        out.sendall(messages.refused(413, _public(error, job)))
    except MemoryError:  # FFmpeg's is one as well
        out.sendall(messages.refused(413, _too_much_memory(job)))
    except (ValueError, FFmpegError, OSError) as error:
        if isinstance(error.__cause__, MemoryError):
            out.sendall(messages.refused(413, _too_much_memory(job)))
        else:
            out.sendall(messages.refused(422, _public(error, job)))
    except cv2.error as error:
        short = error.code == cv2.Error.StsNoMem
        words = _too_much_memory(job) if short else f"OpenCV cannot use it ({error.err or error.code})"
        out.sendall(messages.refused(413 if short else 422, words))


def limit(job: Job) -> None:
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
    cv2.setNumThreads(job.threads)
    paths = [Path(path) for path in job.paths]
    source = open_input(paths, job.options.decoder, job.options.limits)
    info = source.facts
    if info.frames > job.frames:
        raise TooLarge(f"{info.frames} frames, at most {job.frames} are accepted")
    chunks = _chunks(face_stream(source, job.preprocessing, job.options), info)
    first = next(chunks, [])
    out.sendall(messages.opened(info))
    out.sendall(messages.faces(first))
    for chunk in chunks:
        out.sendall(messages.faces(chunk))
    out.sendall(messages.ended())


def _chunks(frames: Iterator[FaceFrame], info: InputInfo) -> Iterator[list[FaceFrame]]:
    size = info.frames if info.kind == "pictures" else _FRAMES
    while chunk := list(islice(frames, size)):
        yield chunk


def _too_much_memory(job: Job) -> str:
    return f"decoding it takes more than the {job.memory_mib} MiB of memory that are given to it"


def _public(error: Exception, job: Job) -> str:
    """The message without our paths: 'file' for one upload, 'file 2' for one of several."""
    message = str(error)
    for number, path in enumerate(job.paths, 1):
        message = message.replace(path, "file" if len(job.paths) == 1 else f"file {number}")
    return message
