"""The model's replicas: load, answer clips in batches, change models without a gap, and be ill when the model is.

`reconfigure` loads the new model beside the old one and swaps; a caller may name the version it started with, so that
one video is read by one model even while the service changes over. A folder that does not fit is refused: the replica
does not start, or keeps what it has.
"""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from serve.errors import Refusal
from serve.observe import ModelMetrics, Trace, span
from serve.replicas.batching import Batcher
from serve.settings import Settings
from serve.threads import in_thread
from ssm_platform.models import ModelDescription, locate
from ssm_platform.read import ClipAnswers

if TYPE_CHECKING:
    from ssm_platform.read import ModelReader

_KEPT = 2  # models in memory: the current one, and one that videos under way may still ask for
_FRESH_S = 5.0


@dataclass(frozen=True)
class Served:
    """A model as it is served: where it is found, and what it says of itself. `model` never leaves the cluster."""

    model: str  # a folder, or a version of the registry
    description: ModelDescription


@dataclass(frozen=True)
class Reading:
    """Answers, and the version of the model that gave them."""

    answers: ClipAnswers
    version: str


class Inference:
    """The deployment's class. Plain: Serve only calls its methods."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._metrics = ModelMetrics()
        self._readers: OrderedDict[str, ModelReader] = OrderedDict()  # by version, the current one last
        self._served: Served | None = None
        self._batcher: Batcher[ModelReader] = Batcher(self._read, settings.batch)
        self._loading = asyncio.Lock()
        self._answered = 0.0

    async def reconfigure(self, config: dict[str, Any]) -> None:
        """Change to the model of `config["model"]`; until it is loaded the old one answers."""
        async with self._loading:
            reader = await in_thread(self._load, config["model"])
            self._keep(reader)
            if self._served is not None:
                self._metrics.model(self._served.description.version, False)
            self._served = Served(config["model"], reader.description)
            self._metrics.model(reader.description.version, True)

    async def describe(self) -> Served:
        """The current model."""
        return self._current()

    async def read(self, clips: NDArray[Any], served: Served | None = None, trace: Trace | None = None) -> Reading:
        """Answers to clips (n, T, S, S, 3) by the current model, or by the one a caller started with."""
        with span("model", trace):
            reader = await self._reader_of(clips, served)
            answers = await self._batcher.submit(reader, clips)
            self._metrics.waiting(self._batcher.waiting)
            return Reading(answers, reader.description.version)

    async def where(self, clips: NDArray[Any], served: Served, trace: Trace | None = None) -> NDArray[np.float32]:
        """Where the model a caller started with looks for each AU in clips: shares (n, T, A, h, w) of the grid's
        places. 422 of a model that looks at none. A pass of its own: the caller sends no more than fit one.
        """
        with span("model", trace):
            reader = await self._reader_of(clips, served)
            try:
                return await self._batcher.run(partial(self._look, reader, clips))
            except ValueError as error:
                raise Refusal(422, f"where: {error}") from None

    async def _reader_of(self, clips: NDArray[Any], served: Served | None) -> ModelReader:
        """The one that a caller started with, or the current one. 400 where the clips do not fit it."""
        served = served or self._current()
        if served.description.version not in self._readers:
            await self._fetch(served)
        reader = self._readers[served.description.version]
        try:
            reader.check(clips)
        except ValueError as error:
            raise Refusal(400, str(error)) from None
        return reader

    async def check_health(self) -> None:
        """Raises unless the model answers a real input with finite numbers; a recent answer is proof enough."""
        if self._served is None:
            return
        version = self._served.description.version
        reader = self._readers[version]
        self._metrics.model(version, True)  # again: Ray forgets a gauge that nobody sets
        if time.monotonic() - self._answered < _FRESH_S:
            return
        answers = await self._batcher.submit(reader, reader.blank())
        if not all(np.isfinite(array).all() for array in (answers.au_probability, answers.expression)):
            raise RuntimeError("the model answers with numbers that are not finite")

    def _current(self) -> Served:
        if self._served is None:
            raise Refusal(503, "no model is loaded yet; try again", retry_after=1)
        return self._served

    async def _fetch(self, served: Served) -> None:
        """Load the model of a video that began before an update; refused where its folder has changed since."""
        async with self._loading:
            if served.description.version in self._readers:
                return
            gone = Refusal(503, "the model was replaced while this request was running; try again", retry_after=1)
            try:
                reader = await in_thread(self._load, served.model)
            except ValueError:
                raise gone from None
            if reader.description.version != served.description.version:
                raise gone
            self._keep(reader)
            if self._served is not None:
                self._readers.move_to_end(self._served.description.version)

    def _load(self, model: str) -> ModelReader:
        from ssm_platform.read import ModelReader  # the other replicas import this module without paying for torch

        threads = self._settings.threads or max(1, int(self._settings.inference.cpus))
        return ModelReader(locate(model, self._settings.registry), self._settings.device, threads)

    def _keep(self, reader: ModelReader) -> None:
        self._readers[reader.description.version] = reader
        self._readers.move_to_end(reader.description.version)
        while len(self._readers) > _KEPT:
            self._readers.popitem(last=False)

    def _read(self, reader: ModelReader, clips: NDArray[np.uint8]) -> ClipAnswers:
        """One pass, in the batcher's thread."""
        with self._metrics.stage("forward"):
            answers = reader.read(clips)
        self._metrics.batch(len(clips))
        self._answered = time.monotonic()
        return answers

    def _look(self, reader: ModelReader, clips: NDArray[np.uint8]) -> NDArray[np.float32]:
        """A pass that asks where, in the batcher's thread."""
        with self._metrics.stage("forward"):
            return reader.where(clips)
