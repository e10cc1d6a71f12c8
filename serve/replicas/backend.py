"""What the ingress needs of the rest, and how it reaches it over Serve's handles.

A replica that dies takes its requests with it; the work is a pure function of the upload, so it is done again
elsewhere, and rows that the client already has are skipped. Queues that are full say so (503, Retry-After). With no
replica left Ray waits for one without end, so nothing here is awaited without a deadline, ours or the request's.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from ray.exceptions import RayActorError, RayTaskError
from ray.serve.exceptions import BackPressureError, DeploymentUnavailableError
from ray.serve.handle import DeploymentHandle

from serve.errors import Refusal, busy
from serve.observe import carried
from serve.replicas.model import Reading, Served
from serve.replicas.transfer import Upload
from serve.replicas.video import Asked, Result, Said, Start

_TRIES = 3
_PAUSE_S = 0.2


class Backend(Protocol):
    """The service behind the HTTP routes."""

    async def describe(self) -> Served:
        """The current model; 503 where no replica says it in time."""

    async def read(self, clips: NDArray[Any], served: Served | None = None) -> Reading:
        """The answers of `served`, or of the current model, to clips (n, T, S, S, 3); 400 where they do not fit it."""

    def analyse(self, paths: list[Path], asked: Asked) -> AsyncIterator[Said]:
        """Start, then rows and windows of one upload."""


class ModelCalls:
    """Calls of the model replicas, tried again where one died or all queues are full, for up to `patience_s`."""

    def __init__(self, inference: DeploymentHandle[Any], patience_s: float) -> None:
        self._inference, self._patience = inference, patience_s

    async def describe(self) -> Served:
        """The current model; 503 where no replica says it within `patience_s`."""
        try:
            async with asyncio.timeout(self._patience):
                served: Served = await _again(lambda: self._inference.describe.remote(), self._patience)
        except TimeoutError:
            raise busy("the model does not answer") from None
        return served

    async def read(self, clips: NDArray[Any], served: Served | None = None) -> Reading:
        """The answers of `served`, or of the current model, to clips (n, T, S, S, 3); 400 where they do not fit it.

        The caller bounds the wait: how long a pass takes depends on the clips.
        """
        reading: Reading = await _again(lambda: self._inference.read.remote(clips, served, carried()), self._patience)
        return reading

    async def where(self, clips: NDArray[Any], served: Served) -> NDArray[np.float32]:
        """Where `served` looks for each AU in clips (n, T, S, S, 3): shares (n, T, A, h, w); 422 where it does not."""
        shares: NDArray[np.float32] = await _again(
            lambda: self._inference.where.remote(clips, served, carried()), self._patience
        )
        return shares


class HandleBackend(ModelCalls):
    """The backend of the ingress replicas."""

    def __init__(self, inference: DeploymentHandle[Any], video: DeploymentHandle[Any], patience_s: float) -> None:
        super().__init__(inference, patience_s)
        self._video = video.options(stream=True)

    async def analyse(self, paths: list[Path], asked: Asked) -> AsyncIterator[Said]:
        """Start, then rows and windows; a dead video replica is replaced by another one in the same place."""
        told = _Told()
        for last in (False,) * (_TRIES - 1) + (True,):
            try:
                async for said in self._once(paths, asked, told):
                    yield said
            except RayActorError:
                if last:
                    raise busy("the replica that worked on this request died") from None
                await asyncio.sleep(_PAUSE_S)
            else:
                return

    async def _once(self, paths: list[Path], asked: Asked, told: _Told) -> AsyncIterator[Said]:
        upload = Upload.here(paths)
        try:
            stream: Any = self._video.analyse.remote(upload, asked, told.served, carried())
            try:
                async for said in stream:
                    if (fresh := told.fresh(said)) is not None:
                        yield fresh
            finally:
                stream.cancel()
        except (BackPressureError, DeploymentUnavailableError):
            raise busy("every video replica is busy") from None


class _Told:
    """What the client has heard already."""

    def __init__(self) -> None:
        self.served: Served | None = None
        self._told: Counter[type] = Counter()
        self._seen: Counter[type] = Counter()

    def fresh(self, said: Said) -> Said | None:
        """`said` without what was said before a replica died; the order of each kind is fixed, their mixture is not."""
        if isinstance(said, Refusal):
            return said
        if isinstance(said, Start):
            known, self.served, self._seen = self.served, said.served, Counter()
            return None if known else said
        kept: list[Result] = []
        for result in said:
            kind = type(result)
            self._seen[kind] += 1
            if self._seen[kind] > self._told[kind]:
                self._told[kind] += 1
                kept.append(result)
        return kept


async def _again(call: Callable[[], Awaitable[Any]], patience_s: float) -> Any:
    """The result of a call that may be repeated: after a death, and while queues are full, up to `patience_s`."""
    until = asyncio.get_running_loop().time() + patience_s
    deaths = 0
    while True:
        try:
            return await call()
        except RayTaskError as error:
            if isinstance(error.cause, Refusal):
                raise error.cause from None
            raise
        except RayActorError:
            deaths += 1
            if deaths >= _TRIES:
                raise busy("the model's replicas keep dying") from None
        except (BackPressureError, DeploymentUnavailableError):
            if asyncio.get_running_loop().time() > until:
                raise busy("every model replica is busy") from None
        await asyncio.sleep(_PAUSE_S)
