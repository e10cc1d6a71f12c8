"""Equal segments of a clip: which frames stand for it (method, section 6). Numbers only; no pixels and no torch."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def segment_edges(length: int, count: int) -> NDArray[np.int64]:
    """The `count` + 1 bounds of `count` segments of a clip of `length` >= `count` frames."""
    return np.arange(count + 1) * length // count


def segment_centres(length: int, count: int) -> NDArray[np.int64]:
    """The `count` frames that stand for a clip in evaluation: its segments' centres; the last repeated if short."""
    if length < count:
        return np.minimum(np.arange(count), length - 1)
    edges = segment_edges(length, count)
    return (edges[:-1] + edges[1:]) // 2
