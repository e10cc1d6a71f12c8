"""The video replicas: an upload becomes faces, faces become clips for the model, answers become rows.

Decoding and face detection run in a process of their own (`serve.decoding`), a bounded number of frames ahead; clips
go to the model as uint8 crops, a bounded number ahead of their answers. Holds no model: whatever the model replicas say
of themselves decides.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from serve.decoding import Decoded, Job, Spent, Thumbnail, shared_sandbox
from serve.errors import Refusal, busy
from serve.observe import VideoMetrics
from serve.replicas.model import Reading, Served
from serve.settings import Settings
from ssm_platform.faces import FaceSettings, resolved
from ssm_platform.media import InputInfo, InputLimits
from ssm_platform.models import Expressions
from ssm_platform.read import (
    AnalysisOptions,
    Clip,
    FacePlaces,
    Faces,
    KeptClip,
    Places,
    Row,
    Seen,
    Window,
    assembler_for,
    feed,
)

_log = logging.getLogger("ray.serve.ssm")

Read = Callable[[NDArray[np.uint8], Served], Awaitable[Reading]]
Look = Callable[[NDArray[np.uint8], Served], Awaitable[NDArray[np.float32]]]


@dataclass(frozen=True)
class Asked:
    """What a request says of how its upload is answered."""

    faces: Faces = "all"
    expressions: Expressions = "on"
    thumbnails: int = 0
    where: bool = False


@dataclass(frozen=True)
class Start:
    """The first thing said of an upload: what it is, and which model reads it."""

    info: InputInfo
    served: Served


Result = Row | Window | Thumbnail | FacePlaces

Said = Start | Refusal | list[Result]
"""What comes out of an analysis: a start, then results; or a refusal, which ends it."""


def detection_here(settings: Settings) -> FaceSettings:
    """How faces are found on this machine. 503 where it lacks a file that the service was built to find them with."""
    try:
        return resolved(settings.detection)
    except ValueError as error:
        _log.warning("%s", error)
        raise busy("this machine cannot look for faces yet") from error


def job_for(settings: Settings, paths: list[Path], asked: Asked, served: Served) -> Job:
    """How the service decodes an upload, and what that may cost."""
    limits = settings.limits
    options = AnalysisOptions(
        faces=asked.faces,
        expressions=asked.expressions,
        most_faces=limits.faces,
        decoder=settings.decoder,
        detection=detection_here(settings),
        limits=InputLimits(pixels=limits.frame_pixels, seconds=limits.video_s, pictures=limits.images),
    )
    return Job(
        paths=tuple(map(str, paths)),
        options=options,
        preprocessing=served.description.preprocessing,
        frames=limits.frames,
        thumbnails=asked.thumbnails,
        cpu_s=limits.decode_s,
        memory_mib=limits.decode_mib,
        threads=max(1, int(settings.video.cpus)),
    )


class VideoAnalysis:
    """One service's way from files to rows. `read` asks the model, and `look` where it looks; `describe` says which one
    it is.
    """

    def __init__(self, settings: Settings, read: Read, look: Look, describe: Callable[[], Awaitable[Served]]) -> None:
        self._settings, self._read, self._look, self._describe = settings, read, look, describe
        self._metrics = VideoMetrics()
        self._sandbox = shared_sandbox()

    async def analyse(self, paths: list[Path], asked: Asked, served: Served | None = None) -> AsyncIterator[Said]:
        """Start, then rows and windows as they are ready, at the end where AUs were looked for. `served` continues with
        the model of an earlier try.
        """
        spent = Spent()
        try:
            served = served or await self._describe()
            job = await asyncio.to_thread(job_for, self._settings, paths, asked, served)  # may ask the hub, once
            async with aclosing(self._sandbox.decode(job, spent)) as decoded:
                with self._metrics.stage("inspect"):
                    info = await anext(decoded)
                assert isinstance(info, InputInfo)
                yield Start(info, served)
                async for results in self._results(decoded, served, asked):
                    yield results
        except Refusal as refusal:
            yield refusal
        finally:
            self._metrics.decoded(spent.cpu_s)

    async def check_health(self) -> None:
        """Raises where uploads cannot be decoded."""
        await asyncio.to_thread(self._sandbox.check)

    async def _results(
        self, decoded: AsyncIterator[Decoded], served: Served, asked: Asked
    ) -> AsyncIterator[list[Result]]:
        assembler = assembler_for(served.description.shown(asked.expressions))
        places = Places() if asked.where else None
        told = [assembler.answer] if places is None else [assembler.answer, places.see]
        waiting: deque[tuple[Clip, asyncio.Task[Reading]]] = deque()
        try:
            async for chunk in decoded:
                if isinstance(chunk, Thumbnail):
                    yield [chunk]
                    continue
                assert isinstance(chunk, list)
                self._metrics.frames(len(chunk), sum(bool(frame.faces) for frame in chunk))
                for frame in chunk:
                    for clip in feed(assembler, frame):
                        await self._ask(told, waiting, clip, served)
                await _collect(told, waiting, most=self._settings.in_flight)
                if results := list(assembler.results()):
                    yield [*results]
            for clip in assembler.finish():
                await self._ask(told, waiting, clip, served)
            await _collect(told, waiting, most=0)
            yield list(assembler.results())
            if places is not None:
                yield [await self._looked(kept, served) for kept in places.chosen()]
        finally:
            for _, task in waiting:
                task.cancel()

    async def _ask(
        self, told: Sequence[Seen], asked: deque[tuple[Clip, asyncio.Task[Reading]]], clip: Clip, served: Served
    ) -> None:
        await _collect(told, asked, most=self._settings.in_flight - 1)
        asked.append((clip, asyncio.create_task(self._answer(clip, served))))

    async def _answer(self, clip: Clip, served: Served) -> Reading:
        with self._metrics.stage("model"):
            return await self._read(clip.crops[None], served)

    async def _looked(self, kept: KeptClip, served: Served) -> FacePlaces:
        with self._metrics.stage("model"):
            return kept.places((await self._look(kept.clip.crops[None], served))[0])


async def _collect(told: Sequence[Seen], asked: deque[tuple[Clip, asyncio.Task[Reading]]], most: int) -> None:
    """Hand in the answers that are there, in order; wait until at most `most` are open."""
    while asked and (len(asked) > most or asked[0][1].done()):
        clip, task = asked.popleft()
        answer = (await task).answers.clip(0)
        for tell in told:
            tell(clip, answer)
