"""The video replicas: an upload becomes faces, faces become clips for the model, answers become rows.

Decoding and face detection run in a thread, a bounded number of frames ahead; clips go to the model as uint8 crops, a
bounded number ahead of their answers. Holds no model: whatever the model replicas say of themselves decides.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from serve.errors import Refusal
from serve.observe import VideoMetrics
from serve.replicas.model import Reading, Served
from serve.settings import Settings
from ssm_platform.media import InputInfo, InputLimits, TooLarge, open_input
from ssm_platform.read import (
    AnalysisOptions,
    Assembler,
    Clip,
    FaceFrame,
    Faces,
    Row,
    Window,
    assembler_for,
    face_stream,
    feed,
)

Read = Callable[[NDArray[np.uint8], Served], Awaitable[Reading]]
_FRAMES = 16  # decoded per step of the thread


@dataclass(frozen=True)
class Start:
    """The first thing said of an upload: what it is, and which model reads it."""

    info: InputInfo
    served: Served


Said = Start | Refusal | list[Row | Window]
"""What comes out of an analysis: a start, then rows; or a refusal, which ends it."""


def options_for(settings: Settings, faces: Faces) -> AnalysisOptions:
    """How the service reads a video."""
    limits = settings.limits
    return AnalysisOptions(
        faces=faces,
        most_faces=limits.faces,
        decoder=settings.decoder,
        limits=InputLimits(pixels=limits.frame_pixels, seconds=limits.video_s, pictures=limits.images),
    )


class VideoAnalysis:
    """One service's way from files to rows. `read` asks the model; `describe` says which one it is."""

    def __init__(self, settings: Settings, read: Read, describe: Callable[[], Awaitable[Served]]) -> None:
        self._settings, self._read, self._describe = settings, read, describe
        self._metrics = VideoMetrics()
        cv2.setNumThreads(max(1, int(settings.video.cpus)))

    async def analyse(self, paths: list[Path], faces: Faces, served: Served | None = None) -> AsyncIterator[Said]:
        """Start, then rows and windows as they are ready. `served` continues with the model of an earlier try."""
        options = options_for(self._settings, faces)
        try:
            with self._metrics.stage("inspect"):
                source = await asyncio.to_thread(open_input, paths, options.decoder, options.limits)
            served = served or await self._describe()
            yield Start(source.facts, served)
            frames = face_stream(source, served.description.preprocessing, options)
            async for results in self._results(frames, served):
                yield results
        except TooLarge as error:
            yield Refusal(413, _public(error, paths))
        except ValueError as error:
            yield Refusal(422, _public(error, paths))
        except Refusal as refusal:
            yield refusal

    async def _results(self, frames: Iterator[FaceFrame], served: Served) -> AsyncIterator[list[Row | Window]]:
        assembler = assembler_for(served.description)
        asked: deque[tuple[Clip, asyncio.Task[Reading]]] = deque()
        try:
            async for chunk in _chunks(frames):
                self._metrics.frames(len(chunk), sum(len(frame.faces) for frame in chunk))
                for frame in chunk:
                    for clip in feed(assembler, frame):
                        await self._ask(assembler, asked, clip, served)
                await _collect(assembler, asked, most=self._settings.in_flight)
                if results := list(assembler.results()):
                    yield results
            for clip in assembler.finish():
                await self._ask(assembler, asked, clip, served)
            await _collect(assembler, asked, most=0)
            yield list(assembler.results())
        finally:
            for _, task in asked:
                task.cancel()

    async def _ask(
        self, assembler: Assembler, asked: deque[tuple[Clip, asyncio.Task[Reading]]], clip: Clip, served: Served
    ) -> None:
        await _collect(assembler, asked, most=self._settings.in_flight - 1)
        asked.append((clip, asyncio.create_task(self._answer(clip, served))))

    async def _answer(self, clip: Clip, served: Served) -> Reading:
        with self._metrics.stage("model"):
            return await self._read(clip.crops[None], served)


async def _collect(assembler: Assembler, asked: deque[tuple[Clip, asyncio.Task[Reading]]], most: int) -> None:
    """Hand in the answers that are there, in order; wait until at most `most` are open."""
    while asked and (len(asked) > most or asked[0][1].done()):
        clip, task = asked.popleft()
        assembler.answer(clip, (await task).answers.clip(0))


async def _chunks(frames: Iterator[FaceFrame]) -> AsyncIterator[list[FaceFrame]]:
    """Frames made by a thread, one chunk ahead of who takes them."""

    def take() -> list[FaceFrame]:
        return list(islice(frames, _FRAMES))

    task = asyncio.create_task(asyncio.to_thread(take))
    try:
        while chunk := await asyncio.shield(task):  # a cancelled task would leave its thread inside the decoder
            task = asyncio.create_task(asyncio.to_thread(take))
            yield chunk
    finally:
        await asyncio.gather(task, return_exceptions=True)
        await asyncio.to_thread(getattr(frames, "close", lambda: None))


def _public(error: ValueError, paths: list[Path]) -> str:
    """The message without our paths: 'file' for one upload, 'file 2' for one of several."""
    message = str(error)
    for number, path in enumerate(paths, 1):
        message = message.replace(str(path), "file" if len(paths) == 1 else f"file {number}")
    return message
