"""How Ray Train feeds its workers: a stream of the course that starts where the newest checkpoint ends.

Ray Data starts every stream at its first row, also after a worker failure or an elastic resize, and the number of
workers is known only then. Ray Train asks `DataConfig.configure` for the streams each time it starts a group of
workers: here the place to start at is decided, once, told to all of them under the name `START`, and the course is
taken from there, cut for that many workers, of whom there may be more or fewer than before. So the batches are exact
after any restart, inside a run or of the whole driver, and the clips of a validation come when it is their turn.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any, Protocol

from ray.data import DataIterator, Dataset, ExecutionOptions
from ray.train import DataConfig

from ssm_platform.data.clips import ClipConfig, Columns
from ssm_platform.data.pace import end
from ssm_platform.data.shared import Shared
from ssm_platform.data.shares import Shares
from ssm_platform.data.streams import ClipStream, batches
from ssm_platform.data.turns import Course, Turns

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

    def __init__(self, stream: ClipStream, course: Course, begin: Callable[[], Begun]) -> None:
        super().__init__(execution_options=ExecutionOptions(preserve_order=True))
        self._clips, self._course, self._begin = stream, Shared(course), begin
        self._begun: Begun | None = None

    @property
    def names(self) -> dict[str, Callable[[], Dataset]]:
        """What Ray Train is told of: the start, and as many segments as there may be from the first step."""
        longest = self._clips.layout(self._course, 0, 1)  # one worker has the most turns, and the shortest blocks
        return dict.fromkeys([START, *map(_name, range(-(-len(longest.turns) // longest.reach(_BLOCKS))))], placeholder)

    def configure(self, datasets: dict[str, Any], world_size: int, *args: Any, **kwargs: Any) -> Any:
        """`START`: what was decided, for each worker. A segment: its part of the course for as many as there are.

        ValueError where they cannot share a batch. Whole blocks: the few turns after the last one that they may hold
        are empty and never asked for.
        """
        begun = self._begun = self._begun or self._begin()
        layout = self._clips.layout(self._course, begun.first, world_size)
        segment = layout.reach(_BLOCKS)
        if START in datasets:
            start = Start(begun, self._clips.reader.config, layout.shares, layout.turns, segment)
            return [{START: start} for _ in range(world_size)]
        (name,) = datasets
        begin = int(name.removeprefix(_SEGMENT)) * segment
        left = max(0, len(layout.turns) - begin)  # none in the last ones: a group may need fewer than one worker
        part = replace(layout, begin=begin, groups=layout.needed(min(segment, left)))
        return super().configure({name: self._clips.dealt(part)}, world_size, *args, **kwargs)


@dataclass(frozen=True)
class Start:
    """What each worker is told: where it goes on, what clips are, whose places are which, and its segments."""

    begun: Any
    clips: ClipConfig
    shares: Shares
    turns: Turns
    segment: int  # turns of one

    def batches(self, shard: Callable[[str], DataIterator], prefetch: int) -> Iterator[Columns]:
        """This worker's columns from the first turn to the last; `shard` gives a segment by name.

        Nobody gets anything of a segment before everybody has asked for it, so the one before has been read by all.
        """
        read: list[DataIterator] = []
        for number, first in enumerate(range(0, len(self.turns), self.segment)):
            part = shard(_name(number))
            for columns in islice(
                batches(part, self.shares.slots, prefetch), min(self.segment, len(self.turns) - first)
            ):
                while read:
                    end(read.pop())
                yield columns
            read.append(part)


def _name(number: int) -> str:
    return f"{_SEGMENT}{number}"
