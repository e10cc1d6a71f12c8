"""The service in one process, without a cluster: the replicas' own classes behind the same HTTP surface.

For tests and drills, and for a look at a model on a laptop; it neither scales nor survives a crash.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from fastapi import FastAPI
from numpy.typing import NDArray

from serve.http import create_app
from serve.intake import Spool
from serve.observe import IngressMetrics
from serve.replicas import Asked, Inference, Reading, Said, Served, VideoAnalysis
from serve.settings import Settings


class LocalBackend:
    """Calls where the service has handles; the model is loaded by the first of them."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._inference = Inference(settings)
        self._loading = asyncio.Lock()
        self._loaded = False
        self._analysis = VideoAnalysis(settings, self.read, self._inference.where, self.describe)

    async def describe(self) -> Served:
        """The model."""
        async with self._loading:
            if not self._loaded:
                await self._inference.reconfigure({"model": self._settings.model})
                self._loaded = True
        return await self._inference.describe()

    async def read(self, clips: NDArray[Any], served: Served | None = None) -> Reading:
        """The model's answers to clips (n, T, S, S, 3)."""
        return await self._inference.read(clips, served or await self.describe())

    def analyse(self, paths: list[Path], asked: Asked) -> AsyncIterator[Said]:
        """Start, then rows and windows of one upload."""
        return self._analysis.analyse(paths, asked)


def local_app(settings: Settings, token: str | None = None) -> FastAPI:
    """The application, to be run by any ASGI server."""
    return create_app(
        settings, LocalBackend(settings), IngressMetrics(), Spool(settings.scratch, settings.limits.spool_bytes), token
    )
