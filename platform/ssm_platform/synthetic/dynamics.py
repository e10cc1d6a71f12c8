"""Time courses: AU intensities from onset over apex to offset, blinks, gaze, head movement, and human coding.

Letters: T frames, A action units. Intensities are 0-5 here. All functions are pure functions of their generator.
"""

from __future__ import annotations

from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from ssm_platform.synthetic.behaviour import ACTIVE
from ssm_platform.synthetic.face.muscles import AU_ORDER

Array = NDArray[np.float64]
Intensity = NDArray[np.float32]

TOP = 5.0
_RISE, _DECAY = 0.20, 0.65  # seconds: how fast events start and how long they last
_SLOPE = 2.75  # intensity per standard deviation of drive above the threshold
_PARTED, _DROPPED = AU_ORDER.index(25), AU_ORDER.index(26)


@dataclass(frozen=True)
class Drive:
    """What makes the AUs of a lab corpus move."""

    active: Array  # A, share of frames in which each AU reaches ACTIVE, over many sequences
    mixing: Array  # A A, Cholesky factor of the drives' correlation
    trait: float  # share of the variance that is constant within a sequence


def lab_course(rng: np.random.Generator, frames: int, rate: float, drive: Drive) -> Intensity:
    """Intensities (T A) of a long sequence: drives, correlated over AUs and smooth in time, above a threshold."""
    threshold = np.array([NormalDist().inv_cdf(1 - share) for share in drive.active])
    stays = rng.standard_normal(len(threshold)) * np.sqrt(drive.trait)
    moves = _impulses(rng, frames, rate, len(threshold)) * np.sqrt(1 - drive.trait)
    above = (moves + stays) @ drive.mixing.T - threshold
    return _lips_follow_jaw(np.clip(ACTIVE + _SLOPE * above, 0, TOP))


def clip_course(rng: np.random.Generator, frames: int, rate: float, peaks: Array) -> Intensity:
    """Intensities (T A) of a short wild clip: each AU with a peak (A) goes through onset, apex and offset.

    Wild clips are cut around the apex: it lies within the clip, onset and offset may lie outside.
    """
    time = np.arange(frames)[:, None] / rate
    length = frames / rate
    apex = rng.uniform(0.15, 0.7) * length + rng.normal(0, 0.06, len(peaks)) * length
    hold = rng.uniform(0.15, 0.7) * length
    rise, fall = rng.uniform(0.15, 0.45), rng.uniform(0.3, 0.9)
    envelope = np.minimum(_ease((time - apex + rise) / rise), _ease((apex + hold + fall - time) / fall))
    wobble = 0.18 * _impulses(rng, frames, rate, len(peaks))
    intensity = np.clip(peaks * envelope + wobble * (0.3 + peaks / TOP), 0, TOP)
    return _lips_follow_jaw(intensity)


def talking(rng: np.random.Generator, frames: int, rate: float) -> Intensity:
    """Intensities (T A) of speech: lips part and jaw drops a few times a second."""
    time = np.arange(frames) / rate
    beat = np.maximum(0, np.sin(2 * np.pi * (rng.uniform(2.2, 4.0) * time + rng.uniform())))
    loud = rng.uniform(1.2, 3.2) * (0.6 + 0.4 * np.sin(2 * np.pi * (0.8 * time + rng.uniform())))
    intensity = np.zeros((frames, len(AU_ORDER)), np.float32)
    intensity[:, _PARTED], intensity[:, _DROPPED] = beat * loud, 0.45 * beat * loud
    return intensity


def blinks(rng: np.random.Generator, frames: int, rate: float) -> NDArray[np.float32]:
    """Lid closure (T) in 0..1: a blink of about a third of a second, some fifteen a minute."""
    closed = np.zeros(frames)
    starts = np.flatnonzero(rng.random(frames) < 0.26 / rate)
    time = np.arange(frames) / rate
    for start in starts:
        closed = np.maximum(closed, np.exp(-(((time - start / rate) / 0.075) ** 2)))
    return closed.astype(np.float32)


def drift(rng: np.random.Generator, frames: int, rate: float, columns: int, seconds: float = 0.8) -> Array:
    """Smooth noise (T columns) of unit variance whose memory is about `seconds`."""
    reach = max(2, round(seconds * rate))
    kernel = np.hanning(2 * reach + 1)
    white = rng.standard_normal((frames + 2 * reach, columns))
    return _filtered(white, kernel, frames)


def tremor(rng: np.random.Generator, frames: int, columns: int) -> Array:
    """Fast jitter (T columns) of unit variance, independent from frame to frame."""
    return np.asarray(rng.standard_normal((frames, columns)))


def coded(rng: np.random.Generator, intensity: Intensity, rate: float, jitter: float) -> NDArray[np.int64]:
    """What a human coder writes (T A), 0-5: unsure by `jitter`, mostly about when an AU starts and ends."""
    unsure = jitter * drift(rng, len(intensity), rate, intensity.shape[1], seconds=0.3)
    seen = np.floor(np.clip(intensity + unsure * (intensity > 0.2), 0, TOP) + 0.5).astype(np.int64)
    return np.where(_too_short(seen >= ACTIVE), 1, seen)


def _too_short(active: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Frames (T A) of active stretches shorter than three frames: no coder marks them."""
    padded = np.pad(active, ((1, 1), (0, 0)))
    alone = ~padded[:-2] & ~padded[2:]
    before = np.pad(padded, ((1, 0), (0, 0)))[:-3]
    after = np.pad(padded, ((0, 1), (0, 0)))[3:]
    first_of_two = ~padded[:-2] & padded[2:] & ~after
    second_of_two = padded[:-2] & ~padded[2:] & ~before
    return np.asarray(active & (alone | first_of_two | second_of_two))


def _impulses(rng: np.random.Generator, frames: int, rate: float, columns: int) -> Array:
    """White noise through an onset-offset kernel (T columns), unit variance."""
    time = np.arange(0, 4 * _DECAY, 1 / rate)
    kernel = (1 - np.exp(-time / _RISE)) * np.exp(-time / _DECAY)
    return _filtered(rng.standard_normal((frames + len(kernel) - 1, columns)), kernel, frames)


def _filtered(white: Array, kernel: Array, frames: int) -> Array:
    kernel = kernel / np.sqrt((kernel**2).sum())
    return np.stack([np.convolve(column, kernel, mode="valid")[:frames] for column in white.T], axis=1)


def _ease(share: Array) -> Array:
    """0 below 0, 1 above 1, smooth between."""
    inside = np.clip(share, 0, 1)
    return np.asarray(inside * inside * (3 - 2 * inside))


def _lips_follow_jaw(intensity: Array) -> Intensity:
    """A dropped jaw parts the lips."""
    intensity[:, _PARTED] = np.maximum(intensity[:, _PARTED], 0.7 * intensity[:, _DROPPED])
    return intensity.astype(np.float32)
