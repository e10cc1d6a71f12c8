"""How Ray Train feeds its workers: a stream of the plan that starts where the newest checkpoint ends.

Ray Data starts every stream at its first row, also after a worker failure or an elastic resize, and the number of
workers is known only then. Ray Train asks `DataConfig.configure` for the streams each time it starts a group of
workers: here the place to start at is decided, once, told to all of them under the name `START`, and the plan is taken
from there, cut for that many workers. So the batches are exact after any restart, inside a run or of the whole driver.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any, Protocol

from ray.data import DataIterator, Dataset, ExecutionOptions
from ray.train import DataConfig

from ssm_platform.data.clips import Columns
from ssm_platform.data.plan import Plan
from ssm_platform.data.streams import ClipStream, batches

START = "start"
_SEGMENT = "plan-"
_BLOCKS = 16_384  # of a segment for each worker; Ray Data keeps some kilobytes of figures per block as long as a stream


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
    """Ray Train's hook: a copy of it lives as long as a group of workers, and `configure` makes what they ask for.

    A run's stream comes in segments, one after the other, so what Ray Data keeps of it does not grow with the run.
    """

    def __init__(self, stream: ClipStream, plan: Plan, total: int, begin: Callable[[], Begun]) -> None:
        super().__init__(execution_options=ExecutionOptions(preserve_order=True))
        self._clips, self._plan, self._total, self._begin = stream, plan, total, begin
        self._begun: Begun | None = None

    @property
    def names(self) -> dict[str, Callable[[], Dataset]]:
        """What Ray Train is told of: the start, and as many segments as there may be from the first step."""
        each = _BLOCKS * self._clips.steps_per_block(self._plan.config.global_batch)  # the shortest: of one worker
        return dict.fromkeys([START, *map(_name, range(-(-self._total // each)))], placeholder)

    def configure(self, datasets: dict[str, Any], world_size: int, *args: Any, **kwargs: Any) -> Any:
        """`START`: what was decided, for each worker. A segment: its part of the plan for as many workers as there are.

        ValueError where they cannot share a batch. Whole blocks: the few steps after the last one that they may hold
        are decoded and never asked for.
        """
        begun = self._begun = self._begun or self._begin()
        if START in datasets:
            start = Start(begun, self._segment_steps(world_size), self._total)
            return [{START: start} for _ in range(world_size)]
        (name,) = datasets
        steps = self._segment_steps(world_size)
        first = begun.first + int(name.removeprefix(_SEGMENT)) * steps
        dataset = self._clips.dealt(self._plan, first, min(first + steps, self._total), world_size)
        return super().configure({name: dataset}, world_size, *args, **kwargs)

    def _segment_steps(self, world: int) -> int:
        return _BLOCKS * self._clips.steps_per_block(self._plan.config.chunk(world))


@dataclass(frozen=True)
class Start:
    """What each worker is told: where it goes on, and in which segments its stream comes."""

    begun: Any
    steps: int  # of a segment
    total: int

    def batches(self, shard: Callable[[str], DataIterator], share: int, prefetch: int) -> Iterator[Columns]:
        """This worker's columns from the first step to the last; `shard` gives a segment by name."""
        for number, first in enumerate(range(self.begun.first, self.total, self.steps)):
            wanted = min(self.steps, self.total - first)
            yield from islice(batches(shard(_name(number)), share, prefetch), wanted)


def _name(number: int) -> str:
    return f"{_SEGMENT}{number}"
