"""How Ray Train feeds its workers: a stream of the plan that starts where the newest checkpoint ends.

Ray Data starts every stream at its first row, also after a worker failure or an elastic resize, and the number of
workers is known only then. Ray Train asks `DataConfig.configure` for the streams each time it starts a group of
workers: here the place to start at is decided, once, told to all of them under the name `START`, and the plan is taken
from there, cut for that many workers. So the batches are exact after any restart, inside a run or of the whole driver.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from ray.data import Dataset, ExecutionOptions
from ray.train import DataConfig

from ssm_platform.data.plan import Plan
from ssm_platform.data.streams import ClipStream

STREAM = "plan"
START = "start"


class Begun(Protocol):
    """What was decided when a group of workers started."""

    @property
    def first(self) -> int:
        """The first step of the stream."""


def placeholder() -> Dataset:
    """What Ray Train is given as its dataset: it is never read, the stream is made in `configure`."""
    import ray.data

    return ray.data.range(1)


class ResumingDataConfig(DataConfig):
    """Ray Train's hook: a copy of it lives as long as a group of workers, and `configure` makes what they ask for."""

    def __init__(self, stream: ClipStream, plan: Plan, total: int, begin: Callable[[], Begun]) -> None:
        super().__init__(execution_options=ExecutionOptions(preserve_order=True))
        self._clips, self._plan, self._total, self._begin = stream, plan, total, begin
        self._begun: Begun | None = None

    def configure(self, datasets: dict[str, Any], world_size: int, *args: Any, **kwargs: Any) -> Any:
        """`START`: what was decided, for each worker. `STREAM`: the rest of the plan for as many workers as there are.

        ValueError where they cannot share a batch. Whole blocks: the few steps after the last one that they may hold
        are decoded and never asked for.
        """
        begun = self._begun = self._begun or self._begin()
        if START in datasets:
            return [{START: begun} for _ in range(world_size)]
        share = self._plan.config.chunk(world_size)
        together = self._clips.steps_per_block(share)
        blocks = -(-(self._total - begun.first) // together)
        rows = self._plan.rows(begun.first, begun.first + blocks * together)
        return super().configure({STREAM: self._clips.dealt(rows, share, world_size)}, world_size, *args, **kwargs)
