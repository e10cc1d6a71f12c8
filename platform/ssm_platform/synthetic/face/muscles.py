"""What each action unit moves: the displacement of the landmarks of a face, for all frames of a clip at once.

Letters: T frames, S the two sides (left of the picture first), A action units, n points of a curve. Sides are computed
in lateral coordinates (x grows away from the midline) and mirrored when a curve is put together. Intensities are 0..1.
Directions follow the FACS manual's description of each AU; distances are in face units (`identity`).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ssm.labels import ACTION_UNITS
from ssm_platform.synthetic.face.identity import Identity

Array = NDArray[np.float32]
AU_ORDER = tuple(ACTION_UNITS)
"""Column order of every intensity array here: ascending AU numbers."""

# Five points of a brow from the inner to the outer end: how far each follows the three muscles.
_BROW_X = np.array([0.15, 0.29, 0.44, 0.58, 0.69], np.float32)
_BROW_ARCH = np.array([0.0, -0.045, -0.08, -0.062, 0.0], np.float32)
_BROW_HALF = np.array([0.030, 0.036, 0.033, 0.022, 0.008], np.float32)
_INNER_UP = np.array([1.0, 0.68, 0.28, 0.04, -0.03], np.float32)
_OUTER_UP = np.array([-0.02, 0.18, 0.66, 1.0, 0.80], np.float32)
_LOWERED = np.array([1.0, 0.86, 0.62, 0.36, 0.18], np.float32)


@dataclass(frozen=True)
class Motion:
    """The intensities of one clip: `au` (T S A) in 0..1, `blink` (T) in 0..1, `gaze` (T 2) in face units."""

    au: Array
    blink: Array
    gaze: Array

    def of(self, number: int) -> Array:
        """Intensity (T S) of one AU."""
        return self.au[:, :, AU_ORDER.index(number)]

    def middle(self, number: int) -> Array:
        """Intensity (T 1) of one AU where both sides meet."""
        return np.asarray(self.of(number).mean(axis=1, keepdims=True), np.float32)


@dataclass(frozen=True)
class Brows:
    """Centre line (T S 5 2, lateral) and half thickness (5)."""

    line: Array
    half: Array


@dataclass(frozen=True)
class Lids:
    """Upper and lower lid (T S n 2, lateral, inner to outer corner) and the eye's centre (S-independent, 2)."""

    upper: Array
    lower: Array
    centre: tuple[float, float]


@dataclass(frozen=True)
class Lips:
    """Four edges of the mouth (T S n 2, lateral, midline to corner), from top to bottom."""

    top: Array
    inner_top: Array
    inner_bottom: Array
    bottom: Array


def brows(face: Identity, motion: Motion) -> Brows:
    """AU 1 lifts the inner end, 2 the outer end, 4 lowers and draws together; 9 drags the inner end, 6 the outer."""
    y = (
        -0.44
        + face.brow_height
        + _BROW_ARCH * face.brow_arch
        + face.brow_slant * np.linspace(-0.5, 1, 5, dtype=np.float32)
    )
    one, two, four = motion.of(1)[..., None], motion.of(2)[..., None], motion.of(4)[..., None]
    nine, six = motion.of(9)[..., None], motion.of(6)[..., None]
    rise = 0.185 * one * _INNER_UP + 0.185 * two * _OUTER_UP
    fall = (0.135 * four + 0.05 * nine) * _LOWERED + 0.03 * six * (1 - _INNER_UP)
    together = 0.075 * four * _LOWERED + 0.012 * one * _INNER_UP
    x = _BROW_X * face.eye_spacing - together
    return Brows(_points(x, y - rise + fall), _BROW_HALF * face.brow_thickness)


def lids(face: Identity, motion: Motion, points: int = 9) -> Lids:
    """AU 5 lifts the upper lid off the iris, 7 closes both lids and straightens the lower one, 6 pushes it up."""
    across = np.linspace(-1, 1, points, dtype=np.float32)
    centre = (0.405 * face.eye_spacing, -0.13)
    five, six, seven = motion.of(5), motion.of(6), motion.of(7)
    four, nine = motion.of(4), motion.of(9)
    rest = face.eye_size * face.eye_opening
    upper = 0.083 * rest + 0.098 * five - 0.034 * seven - 0.014 * six - 0.012 * four - 0.014 * nine
    lower = 0.066 * rest - 0.058 * seven - 0.034 * six - 0.018 * nine + 0.008 * five
    lower = np.maximum(lower, 0.006)
    shut = motion.blink[:, None]
    upper = (1 - shut) * np.maximum(upper, 0.012) - shut * (lower - 0.004)
    flat = seven[..., None]
    top_shape = 1 - np.abs(across) ** 2.3
    low_shape = (1 - flat) * (1 - across**2) + flat * (1 - np.abs(across) ** 3.2) * 0.9
    tilt = face.eye_tilt * across
    inner = (motion.of(1) * 0.022)[..., None] * np.clip(-across + 0.4, 0, 1) * top_shape
    outer = (motion.of(2) * 0.014)[..., None] * np.clip(across + 0.4, 0, 1) * top_shape
    x = np.broadcast_to(centre[0] + 0.205 * face.eye_size * across, (*upper.shape, points))
    top = centre[1] + tilt - upper[..., None] * top_shape - (inner + outer) * (1 - shut[..., None])
    return Lids(_points(x, top), _points(x, centre[1] + tilt + lower[..., None] * low_shape), centre)


def lips(face: Identity, motion: Motion, points: int = 9) -> Lips:
    """The mouth: 12 15 20 14 23 move its corners; 10 25 26 17 its edges; 20 23 24 thin the red of the lips."""
    along = np.linspace(0, 1, points, dtype=np.float32)
    dome = 1 - along**2
    corner = _corner(face, motion)
    up = {number: _spread(motion, number, along) for number in (10, 12, 17, 20, 23, 24, 25, 26)}
    thin = (1 - 0.50 * up[23]) * (1 - 0.90 * up[24]) * (1 - 0.35 * up[20]) * (1 - 0.18 * up[12])
    line = 0.72 + face.mouth_height + corner[..., 1:] * along**1.7
    line = line - (0.095 * up[17] + 0.02 * up[12] - 0.02 * up[26]) * dome - 0.012 * up[24]
    raised = 0.115 * up[10] * (1 - along**3.5)
    open_mouth = 1 - 0.75 * np.minimum(1, up[24] + 0.35 * up[23])
    gap_top = (0.030 * up[25] + 0.012 * up[26]) * open_mouth * (1 - along**2.2) ** 0.8
    gap_low = (0.105 * up[25] + 0.250 * up[26]) * open_mouth * (1 - along**2.4) ** 0.8
    bow = 1 - 0.22 * np.exp(-((along / 0.16) ** 2))
    inner_top = line - gap_top - 0.80 * raised
    top = inner_top - 0.082 * face.upper_lip * thin * dome**0.75 * bow - 0.20 * raised - 0.006
    inner_bottom = line + gap_low - 0.68 * raised
    full = 0.112 * face.lower_lip * thin * (1 + 0.30 * up[17])
    bottom = inner_bottom + full * (1 - along**2.4) ** 0.9 + 0.006
    x = corner[..., :1] * along
    return Lips(*(_points(x, edge) for edge in (top, inner_top, inner_bottom, bottom)))


def _corner(face: Identity, motion: Motion) -> Array:
    """Mouth corner (T S 2): lateral distance from the midline and offset of its height."""
    au = motion.of
    wide = 0.155 * au(12) + 0.215 * au(20) - 0.030 * au(14) - 0.015 * au(15)
    narrow = 0.095 * au(23) + 0.020 * au(24) + 0.065 * au(26) + 0.02 * au(17)
    high = 0.180 * au(12) + 0.02 * au(10) + 0.012 * au(14)
    low = 0.175 * au(15) + 0.030 * au(20) + 0.03 * au(26)
    across = 0.345 * face.mouth_width + wide - narrow
    return np.stack([across, face.corner_rest - high + low], axis=-1).astype(np.float32)


def jaw_drop(motion: Motion) -> Array:
    """How far the chin is below its resting place (T 1): 26 drops it, 25 a little, 17 lifts the chin's skin."""
    lifted = 0.045 * motion.middle(17)
    return np.asarray(0.265 * motion.middle(26) + 0.02 * motion.middle(25) - lifted, np.float32)


def _spread(motion: Motion, number: int, along: Array) -> Array:
    """One AU along half a mouth (T S n): both sides' mean at the midline, the side's own at the corner."""
    side, middle = motion.of(number)[..., None], motion.middle(number)[..., None]
    return (middle + (side - middle) * np.minimum(1, 2 * along)).astype(np.float32)


def _points(x: Array, y: Array) -> Array:
    x, y = np.broadcast_arrays(x, y)
    return np.stack([x, y], axis=-1).astype(np.float32)
