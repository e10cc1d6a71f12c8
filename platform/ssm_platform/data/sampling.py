"""Which frames of a record make one clip: pure functions of (length, T, seed), no pixels and no labels.

Method, section 6. Expression clips (FE): T equal segments of the record, in training one random frame of each, in
evaluation the centre of each; a record shorter than T repeats its last frame. AU clips: T consecutive frames at stride
T, never across a record. A last window that reaches past the record repeats the last frame, and those places are marked
as padding, so training and evaluation see every labelled frame exactly once per pass and none twice.

Legend: T frames of a clip, N records, W windows of all records.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ssm.interface import segment_centres, segment_edges

_STREAM = 1  # keeps these draws apart from those of the augmentation, which uses the same seed


class Window(NamedTuple):
    """Frame numbers of one AU clip and which of them are real."""

    indices: NDArray[np.int64]  # T, ascending, in 0..length-1
    inside: NDArray[np.bool_]  # T, False where the last frame is repeated to fill the window


class Windows(NamedTuple):
    """All windows of a corpus, in order."""

    record: NDArray[np.int32]  # W
    start: NDArray[np.int32]  # W, first frame of the window, counted from the record's first


def segment_indices(length: int, count: int, seed: int | None = None) -> NDArray[np.int64]:
    """`count` ascending frame numbers, one per segment: random with a seed (training), centres without (evaluation)."""
    _check(length, count)
    if seed is None or length < count:
        return segment_centres(length, count)
    edges = segment_edges(length, count)
    return np.random.default_rng([seed, _STREAM]).integers(edges[:-1], edges[1:])


def window_indices(start: int, length: int, count: int) -> Window:
    """The `count` consecutive frames from `start`, the last frame of the record repeated past its end."""
    _check(length, count)
    if not 0 <= start < length:
        raise ValueError(f"window starts at frame {start}: must be in 0..{length - 1} (length {length})")
    frames = np.arange(start, start + count)
    return Window(np.minimum(frames, length - 1), frames < length)


def windows(lengths: NDArray[np.integer], count: int) -> Windows:
    """Windows of `count` frames at stride `count` over records of these lengths (N); each frame is in exactly one."""
    each = -(-lengths.astype(np.int64) // count)
    first = np.cumsum(each) - each
    place = np.arange(int(each.sum())) - np.repeat(first, each)
    record = np.repeat(np.arange(len(lengths), dtype=np.int32), each)
    return Windows(record, (place * count).astype(np.int32))


def _check(length: int, count: int) -> None:
    for name, value in (("length", length), ("count", count)):
        if value < 1:
            raise ValueError(f"{name} is {value}: must be at least 1")
