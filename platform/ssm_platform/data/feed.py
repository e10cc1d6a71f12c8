"""How Ray Train feeds its workers: a stream of the plan that starts where the newest checkpoint ends.

Ray Data starts every stream at its first row, also after a worker failure or an elastic resize, and the number of
workers is known only then. Ray Train asks `DataConfig.configure` for the streams each time it starts a group of
workers: here it looks up the newest complete checkpoint and takes the plan from that step, cut for that many
workers. So the batches are exact after any restart, inside a run or of the whole driver.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ray.data import Dataset, ExecutionOptions
from ray.train import DataConfig

from ssm_platform.data.plan import Plan
from ssm_platform.data.streams import ClipStream

STREAM = "plan"


def placeholder() -> Dataset:
    """What Ray Train is given as its dataset: it is never read, the stream is made in `configure`."""
    import ray.data

    return ray.data.range(1)


class ResumingDataConfig(DataConfig):
    """Ray Train's hook: `configure` runs at every start of a group of workers."""

    def __init__(self, stream: ClipStream, plan: Plan, total: int, first_step: Callable[[], int]) -> None:
        super().__init__(execution_options=ExecutionOptions(preserve_order=True))
        self._clips, self._plan, self._total, self._first_step = stream, plan, total, first_step

    def configure(self, datasets: dict[str, Dataset], world_size: int, *args: Any, **kwargs: Any) -> Any:
        """The rest of the plan for as many workers as there are now, ValueError where they cannot share a batch.

        Whole blocks: the few steps after the last one that they may hold are decoded and never asked for.
        """
        share = self._plan.config.chunk(world_size)
        first, together = self._first_step(), self._clips.steps_per_block(share)
        blocks = -(-(self._total - first) // together)
        rows = self._plan.rows(first, first + blocks * together)
        return super().configure({STREAM: self._clips.dealt(rows, share, world_size)}, world_size, *args, **kwargs)
