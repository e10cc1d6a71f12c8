"""From scores of single frames to a video: fill, smooth, gate, threshold. One pure module for every caller.

    fill      s_i = (1-u) s_p + u s_q between the present frames p < i < q, u = (i-p)/(q-p); at the ends the nearest
    box       mean of s_j, j in [max(first, i-h), min(last, i+h)]: the window shrinks at the edges, nothing is padded
    gaussian  for sparse frames: weights exp(-(frame_i - frame_j)^2 / sigma) within h listed neighbours
    gate      the encoder's own class where its smoothed probability is above t, else the head's
    reached   s_i >= threshold of its column

A window never crosses from one sequence into another. Each mean is added up from its first frame to its last, whatever
else is in the array, so a stream gives the bits of the whole (`BoxStream`). After the baselines of the ABAW challenges
(arXiv 2603.12693). Letters: N frames of all sequences one after another, K columns, h half-window.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

Scores = NDArray[np.float64]
MOST_HALF_WINDOW = 1000
"""Frames on either side, at most."""


class Smoothing(BaseModel):
    """What is done to a model's frame scores wherever it predicts; fitted on validation and saved with it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    affect: int = Field(default=0, ge=0, le=MOST_HALF_WINDOW, description="half-window of the box over affect")
    aus: int = Field(default=0, ge=0, le=MOST_HALF_WINDOW, description="half-window of the box over AU probabilities")
    expressions: int = Field(
        default=0, ge=0, le=MOST_HALF_WINDOW, description="half-window of the box over expressions of single frames"
    )
    gate: float = Field(
        default=1.0, gt=0, le=1, description="the encoder's class is taken above this probability; 1: never"
    )

    @property
    def reach(self) -> int:
        """How many frames on either side any answer depends on."""
        return max(self.affect, self.aus, self.expressions)


def fill(scores_NK: NDArray[Any], present_N: NDArray[np.bool_]) -> Scores:
    """One sequence with its absent frames filled in between the present ones; ValueError where none is present."""
    scores = np.array(scores_NK, np.float64)
    (known,) = np.nonzero(present_N)
    if len(present_N) != len(scores) or not len(known):
        raise ValueError(f"{len(present_N)} marks for {len(scores)} frames, {len(known)} present: one is needed")
    absent = np.flatnonzero(~np.asarray(present_N, bool))
    after = np.searchsorted(known, absent)
    q, p = known[np.minimum(after, len(known) - 1)], known[np.maximum(after - 1, 0)]
    p, q = np.where(after == 0, q, p), np.where(after == len(known), p, q)
    u = np.divide(absent - p, q - p, out=np.zeros(len(absent)), where=q > p)[:, None]
    scores[absent] = (1 - u) * scores[p] + u * scores[q]
    return scores


def box(scores_NK: NDArray[Any], half_window: int, lengths: Sequence[int] | None = None) -> Scores:
    """Moving mean within each sequence; `lengths` are theirs (None: one). 0 changes nothing."""
    scores = np.asarray(scores_NK, np.float64)
    first, last = _ends(len(scores), lengths)
    return _weighted(scores, half_window, first, last, lambda here, there: np.ones(len(here)))


def gaussian(
    scores_NK: NDArray[Any],
    frames_N: NDArray[np.integer[Any]],
    sigma: float,
    half_window: int,
    lengths: Sequence[int] | None = None,
) -> Scores:
    """As `box` over listed frames that lie apart, near ones counting more; `frames_N` are their numbers."""
    if not sigma > 0:
        raise ValueError(f"sigma is {sigma}: must be positive")
    scores, frames = np.asarray(scores_NK, np.float64), np.asarray(frames_N, np.float64)
    first, last = _ends(len(scores), lengths)

    def weight(here: NDArray[np.intp], there: NDArray[np.intp]) -> Scores:
        return np.asarray(np.exp(-((frames[here] - frames[there]) ** 2) / sigma), np.float64)

    return _weighted(scores, half_window, first, last, weight)


def gate(
    encoder_NK: NDArray[Any],
    encoder_classes: Sequence[str],
    head_NE: NDArray[Any],
    head_classes: Sequence[str],
    threshold: float,
) -> NDArray[np.intp]:
    """Class of each frame (N), a place in `head_classes`, from smoothed probabilities of encoder and head.

    Classes are matched by name: what the head has and the encoder has not ("other") is never the gate's answer, and
    what only the encoder has is no answer at all. Threshold 1 leaves the head alone. ValueError where they share none.
    """
    shared = [name for name in encoder_classes if name in head_classes]
    if not shared:
        raise ValueError(f"encoder and head share no class: {', '.join(encoder_classes)}; {', '.join(head_classes)}")
    columns = [encoder_classes.index(name) for name in shared]
    places = np.array([head_classes.index(name) for name in shared], np.intp)
    among = np.asarray(encoder_NK, np.float64)[:, columns]
    best = among.argmax(1)
    sure = among[np.arange(len(among)), best] > threshold
    return np.asarray(np.where(sure, places[best], np.asarray(head_NE).argmax(1)), np.intp)


def reached(scores_NK: NDArray[Any], thresholds_K: Sequence[float]) -> NDArray[np.bool_]:
    """Which scores reach the threshold of their column."""
    return np.asarray(np.asarray(scores_NK, np.float64) >= np.asarray(thresholds_K, np.float64))


class BoxStream:
    """`box` of one sequence that comes in pieces: rows leave as soon as all that they depend on has come."""

    def __init__(self, half_window: int) -> None:
        self._half = _checked(half_window)
        self._kept: Scores | None = None  # the rows that the next one looks back on, and all after
        self._before = 0  # how many of those have left

    def push(self, scores_nK: NDArray[Any]) -> Scores:
        """Take in the next rows; those that are final now."""
        came = np.asarray(scores_nK, np.float64)
        self._kept = came.copy() if self._kept is None else np.concatenate([self._kept, came])
        return self._leave(max(0, len(self._kept) - self._before - self._half))

    def finish(self) -> Scores:
        """What is left, at the end of the sequence; the next row begins another one."""
        if self._kept is None:
            raise ValueError("nothing was pushed")
        rest = self._leave(len(self._kept) - self._before)
        self._kept, self._before = None, 0
        return rest

    def _leave(self, count: int) -> Scores:
        assert self._kept is not None
        # What lies before the kept rows is further away than any window of a row that leaves now.
        smoothed = box(self._kept, self._half)[self._before : self._before + count]
        cut = max(0, self._before + count - self._half)
        self._kept, self._before = self._kept[cut:], self._before + count - cut
        return smoothed


def _weighted(scores: Scores, half_window: int, first: NDArray[np.intp], last: NDArray[np.intp], weight: Any) -> Scores:
    """Weighted means, added up from the first frame of each window to its last."""
    here = np.arange(len(scores))
    total, weights = np.zeros_like(scores), np.zeros((len(scores), 1))
    reach = min(_checked(half_window), max(len(scores) - 1, 0))
    for offset in range(-reach, reach + 1):
        inside = here[(here + offset >= first) & (here + offset <= last)]
        share = weight(inside, inside + offset)[:, None]
        total[inside] += share * scores[inside + offset]
        weights[inside] += share
    return np.asarray(total / weights, np.float64) if half_window else scores.copy()


def _checked(half_window: int) -> int:
    if not 0 <= half_window <= MOST_HALF_WINDOW:
        raise ValueError(f"half_window is {half_window}: must be in 0..{MOST_HALF_WINDOW}")
    return half_window


def _ends(frames: int, lengths: Sequence[int] | None) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """First and last frame of the sequence of each frame (N)."""
    sizes = np.asarray([frames] * (frames > 0) if lengths is None else lengths, np.intp)
    if (sizes < 1).any() or sizes.sum() != frames:
        raise ValueError(f"sequence lengths sum to {sizes.sum()} (least {sizes.min(initial=0)}); frames: {frames}")
    ends = np.cumsum(sizes)
    return np.repeat(ends - sizes, sizes), np.repeat(ends - 1, sizes)
