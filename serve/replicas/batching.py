"""Clips of many callers into one forward pass. Knows no model and no Ray; the plain part of the model replica.

There is no timer: while a pass runs, clips gather; when it ends, all that wait (up to the limit) go together. A lone
request therefore never waits for company, and under load batches fill by themselves.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Hashable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from ssm_platform.read import ClipAnswers

T = TypeVar("T")
K = TypeVar("K", bound=Hashable)


@dataclass
class _Job(Generic[K]):
    key: K
    clips: NDArray[np.uint8]  # n T S S 3
    future: asyncio.Future[ClipAnswers]


class Batcher(Generic[K]):
    """`await submit(key, clips)`: clips of equal key are read together, at most `most` at a time, in one thread.

    All but `read` belongs to the event loop: the thread is handed its jobs and must look at nothing else here.
    """

    def __init__(self, read: Callable[[K, NDArray[np.uint8]], ClipAnswers], most: int) -> None:
        self._read, self._most = read, most
        self._jobs: deque[_Job[K]] = deque()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="model")
        self._worker: asyncio.Task[None] | None = None

    @property
    def waiting(self) -> int:
        """Clips that no pass has taken yet. To be asked in the event loop."""
        return sum(len(job.clips) for job in self._jobs)

    async def submit(self, key: K, clips: NDArray[np.uint8]) -> ClipAnswers:
        """The answers to `clips`; the error of the pass where it fails.

        Many clips wait in pieces of one pass, each at the end of the queue: others get their turn in between.
        """
        pieces = [await self._piece(key, clips[at : at + self._most]) for at in range(0, len(clips), self._most)]
        return pieces[0] if len(pieces) == 1 else ClipAnswers.joined(pieces)

    async def _piece(self, key: K, clips: NDArray[np.uint8]) -> ClipAnswers:
        job = _Job(key, clips, asyncio.get_running_loop().create_future())
        self._jobs.append(job)
        if self._worker is None or self._worker.done():
            self._worker = asyncio.create_task(self._work())
        return await job.future

    async def run(self, call: Callable[[], T]) -> T:
        """Run something else in the model's thread, between passes."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, call)

    async def _work(self) -> None:
        while self._jobs:
            jobs = self._take()
            if not jobs:
                continue
            try:
                answers = await asyncio.get_running_loop().run_in_executor(self._thread, self._pass, jobs)
            except Exception as error:  # noqa: BLE001 whatever it is belongs to the callers of this pass
                for job in jobs:
                    if not job.future.done():
                        job.future.set_exception(error)
                continue
            for job, answer in zip(jobs, answers, strict=True):
                if not job.future.done():
                    job.future.set_result(answer)

    def _take(self) -> list[_Job[K]]:
        """The oldest job and the jobs of its key that fit beside it; jobs whose caller left are dropped."""
        self._jobs = deque(job for job in self._jobs if not job.future.done())
        taken: list[_Job[K]] = []
        clips, key = 0, self._jobs[0].key if self._jobs else None
        for job in list(self._jobs):
            if job.key == key and (not taken or clips + len(job.clips) <= self._most):
                taken.append(job)
                clips += len(job.clips)
        self._jobs = deque(job for job in self._jobs if not any(job is other for other in taken))
        return taken

    def _pass(self, jobs: list[_Job[K]]) -> list[ClipAnswers]:
        clips = np.concatenate([job.clips for job in jobs])
        stops = np.cumsum([len(job.clips) for job in jobs]).tolist()
        answers = self._read(jobs[0].key, clips)
        return [answers.part(stop - len(job.clips), stop) for job, stop in zip(jobs, stops, strict=True)]
