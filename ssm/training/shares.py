"""How a global batch lies over workers: each has a consecutive part of it, and all are filled up to one size.

So any number of workers up to the number of clips can share a batch, with tensors of one shape everywhere. What fills
up are clips that nobody labels, as those that could not be read: they weigh 0 in every loss. Their number is `PADDING`.

Legend: B clips of the global batch, W workers, S slots of each (B / W, rounded up).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

PADDING = -1


def parts(size: int, world: int) -> NDArray[np.int64]:
    """The number of the clip in each slot (W S), in 0..size-1 or `PADDING`; parts differ by one clip at most."""
    bounds = np.arange(world + 1, dtype=np.int64) * size // world
    numbers = bounds[:-1, None] + np.arange(-(-size // world))
    return np.where(numbers < bounds[1:, None], numbers, PADDING)


def slots(size: int, world: int) -> NDArray[np.int64]:
    """Where each clip lies (B) among the slots of all workers, which are W S."""
    return np.flatnonzero(parts(size, world).ravel() != PADDING)


def exchanged(partners: NDArray[np.int64], world: int) -> NDArray[np.int64]:
    """A permutation of clips (B) as one of slots (W S); what fills up stays where it is."""
    places = slots(len(partners), world)
    rows = np.arange(-(-len(partners) // world) * world)
    rows[places] = places[partners]
    return rows
