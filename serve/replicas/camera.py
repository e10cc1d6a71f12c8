"""A camera before the service: its newest frame is decoded and searched for faces, then read by the model; row by row.

Frames are decoded in a process of the camera's own (`serve.decoding`), beside whoever runs this; clips go to the model
replicas as those of uploads do. While the model reads one frame the next is decoded, and no more: two are under way.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from dataclasses import dataclass

import numpy as np

from serve.decoding import Camera, CameraJob, Looked, shared_sandbox
from serve.errors import Refusal
from serve.intake import Frame, Newest
from serve.replicas.backend import Backend
from serve.replicas.model import Served
from serve.replicas.video import Asked, detection_here
from serve.settings import Settings
from ssm_platform.media import InputLimits
from ssm_platform.read import AnalysisOptions, CameraClips, Row, Window


@dataclass(frozen=True)
class Answered:
    """A frame's rows and windows, or why it was refused."""

    frame: Frame
    width: int = 0
    height: int = 0
    results: tuple[Row | Window, ...] = ()
    refusal: Refusal | None = None


def camera_job(settings: Settings, options: AnalysisOptions, served: Served) -> CameraJob:
    """How a camera's frames are decoded, and what that may cost: a core for as long as a session lasts."""
    return CameraJob(
        options=options,
        preprocessing=served.description.preprocessing,
        cpu_s=settings.limits.live_s,
        memory_mib=settings.limits.decode_mib,
        threads=1,
    )


class CameraAnalysis:
    """One camera's way from frames to rows, by one version of the model."""

    def __init__(self, settings: Settings, backend: Backend, served: Served, asked: Asked) -> None:
        limits = settings.limits
        self._options = AnalysisOptions(
            faces=asked.faces,
            expressions=asked.expressions,
            most_faces=limits.faces,
            detection=detection_here(settings),
            limits=InputLimits(pixels=limits.frame_pixels),
        )
        self._settings, self._backend, self._served = settings, backend, served
        self._clips = CameraClips(served.description.shown(asked.expressions), self._options.detection.max_gap)

    async def answers(self, frames: Newest) -> AsyncGenerator[Answered, None]:
        """An answer to every frame that is taken, in order. `Refusal` where there is no going on."""
        job = camera_job(self._settings, self._options, self._served)
        async with shared_sandbox().follow(job, self._settings.limits.idle_s) as camera:
            ahead = asyncio.create_task(_next(camera, frames))
            try:
                while (taken := await ahead) is not None:
                    ahead = asyncio.create_task(_next(camera, frames))
                    yield await self._answer(*taken)
            finally:
                ahead.cancel()
                await asyncio.gather(ahead, return_exceptions=True)

    async def _answer(self, frame: Frame, looked: Looked | Refusal) -> Answered:
        if isinstance(looked, Refusal):
            return Answered(frame, refusal=looked)
        clips = self._clips.clips(looked.frame)
        answers = None
        if clips:
            reading = await self._backend.read(np.stack([clip.crops for clip in clips]), self._served)
            answers = reading.answers
        results = self._clips.results(looked.frame, clips, answers)
        return Answered(frame, looked.width, looked.height, tuple(results))


async def _next(camera: Camera, frames: Newest) -> tuple[Frame, Looked | Refusal] | None:
    """The newest frame and what is seen in it; None when no more will come."""
    frame = await frames.take()
    if frame is None:
        return None
    return frame, await camera.look(frame.number, frame.timestamp, frame.data)
