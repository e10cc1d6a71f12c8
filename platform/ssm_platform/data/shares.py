"""Which places of a global batch each worker has: any number of workers from 1 to the batch.

Each side of the batch (task) is dealt out by `ssm.training.parts`, so every worker has the exact ratio up to one clip
of each side, and all have as many slots. A number of workers that divides both sides fills every slot; at another some
slots hold `PADDING`, a row without a clip. Validation clips are dealt over the same slots, in rounds.

Legend: G places of a global batch, W workers, S slots of each.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from ssm.training import PADDING, parts


@dataclass(frozen=True, eq=False)
class Shares:
    """A global batch among workers."""

    places: NDArray[np.int64]  # W S, in the batch; `PADDING` where a worker has fewer clips than others
    tasks: NDArray[np.int8]  # W S; what fills up is of the side that it fills up

    @classmethod
    def of(cls, pattern: NDArray[np.int8], world: int) -> Self:
        """Of a batch whose places (G) have these tasks. ValueError for more workers than clips."""
        if not 1 <= world <= len(pattern):
            raise ValueError(f"{world} workers cannot share a batch of {len(pattern)} clips: 1 to {len(pattern)} can")
        sides = [np.flatnonzero(pattern == task) for task in np.unique(pattern)]
        dealt = [parts(len(side), world) for side in sides]
        places = [np.where(part == PADDING, PADDING, side[part]) for side, part in zip(sides, dealt, strict=True)]
        tasks = [np.full_like(part, pattern[side[0]], np.int8) for side, part in zip(sides, dealt, strict=True)]
        every, of_task = np.concatenate(places, 1), np.concatenate(tasks, 1)
        order = np.argsort(np.where(every == PADDING, len(pattern), every), axis=1, kind="stable")
        return cls(np.take_along_axis(every, order, 1), np.take_along_axis(of_task, order, 1))

    @property
    def world(self) -> int:
        """Workers W."""
        return len(self.places)

    @property
    def slots(self) -> int:
        """Rows S of a worker at every turn."""
        return int(self.places.shape[1])

    def rounds(self, count: int) -> int:
        """Turns in which the workers together look at `count` clips."""
        return -(-count // self.places.size)

    def of_round(self, count: int, number: int, rank: int) -> NDArray[np.int64]:
        """Which of `count` clips a worker looks at in round `number` (S), `PADDING` past the last."""
        clips = (number * self.world + rank) * self.slots + np.arange(self.slots)
        return np.where(clips < count, clips, PADDING)
