"""The soft part of a face: bulges, folds and wrinkles as sums of Gaussian spots of light and shadow.

A table says where each fold lies, which AUs deepen it and what it moves with. Every row becomes a chain of spots; a
spot has a dark and a bright lobe along the direction of the light, as a crease or a bulge under that light has. The
sum of axis-aligned Gaussians over a frame is one matrix product, so hundreds of spots cost well under a millisecond.
Letters: T frames, S two sides, A AUs, K spots, H W pixels.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import cv2
import numpy as np

from ssm_platform.synthetic.face.drawing import Anatomy
from ssm_platform.synthetic.face.identity import Identity
from ssm_platform.synthetic.face.muscles import AU_ORDER, Motion
from ssm_platform.synthetic.face.pose import Array, Pose, on_skin
from ssm_platform.synthetic.face.relief_table import ANCHORS, FEATURES, Feature

_SIDES = np.array([-1.0, 1.0], np.float32)
_NO_ADDEND = np.empty((0, 0), np.float32)
_DEEPEST = 0.42  # where several AUs deepen one fold it does not turn black
_FAINT = 0.008  # a spot below this share of light is not drawn


@dataclass(frozen=True)
class Spots:
    """All spots of one clip: positions in pixels (T K 2), widths in pixels (K), strengths (T K)."""

    where: Array
    width: Array
    strength: Array

    def shade(self, frame: int, size: int) -> Array:
        """The light (H W) that the spots add to frame `frame`, 0 where there is none."""
        kept = np.abs(self.strength[frame]) > _FAINT
        where, width = self.where[frame, kept], self.width[kept, None]
        pixels = np.arange(size, dtype=np.float32) + 0.5
        across = np.exp(-(((pixels - where[:, :1]) / width) ** 2))
        down = np.exp(-(((pixels - where[:, 1:]) / width) ** 2))
        return _product(down.T, across * self.strength[frame, kept, None])


@dataclass(frozen=True)
class _Table:
    """The features as arrays: lateral position (K 2), width (K), AU weights (A K), rest (K), age (K), anchor (K)."""

    where: Array
    width: Array
    weights: Array
    rest: Array
    age: Array
    anchor: np.ndarray[tuple[int], np.dtype[np.intp]]
    bulge: Array  # K, +1 a bulge, -1 a crease


def spots(face: Identity, motion: Motion, parts: Anatomy, pose: Pose, light: tuple[float, float], size: float) -> Spots:
    """The relief of one clip. `light` is the picture direction the light comes from, its length the contrast."""
    moves = _anchor_moves(face, motion, parts)
    where = _TABLE.where + moves[:, :, _TABLE.anchor]  # T S K 2, lateral
    where = where * np.stack([_SIDES, np.ones(2, np.float32)], axis=-1)[:, None]
    active = _product(motion.au.reshape(-1, len(AU_ORDER)), _TABLE.weights * np.float32(face.wrinkling))
    active = active.reshape(*motion.au.shape[:2], -1)
    strength = _DEEPEST * np.tanh((active + _TABLE.rest + _TABLE.age * face.age) / _DEEPEST)
    frames = len(strength)
    flat = pose.project(on_skin(where.reshape(frames, -1, 2), face), size)
    scale = float(pose.scale.mean()) * size
    width = np.maximum(np.tile(_TABLE.width, 2) * scale, 0.55)
    return _lit(flat, width, strength.reshape(frames, -1).astype(np.float32), np.tile(_TABLE.bulge, 2), light)


def _lit(where: Array, width: Array, strength: Array, bulge: Array, light: tuple[float, float]) -> Spots:
    """Each spot as two lobes: a crease is dark and bright beside it, a bulge is bright towards the light."""
    towards = np.array(light, np.float32)
    dark_lobe = where - towards * (np.where(bulge > 0, 0.55, 0.0) * width)[:, None]
    bright_lobe = where + towards * (np.where(bulge > 0, 0.55, -1.5) * width)[:, None]
    darker = strength * np.where(bulge > 0, -0.55, -1.0)
    brighter = strength * np.where(bulge > 0, 1.0, 0.40)
    return Spots(
        where=np.concatenate([dark_lobe, bright_lobe], axis=1).astype(np.float32),
        width=np.concatenate([width, width]).astype(np.float32),
        strength=np.concatenate([darker, brighter], axis=1).astype(np.float32),
    )


def _anchor_moves(face: Identity, motion: Motion, parts: Anatomy) -> Array:
    """How far each anchor is from where the table was drawn (T S anchors 2), lateral."""
    brow, lid, mouth = parts.brows.line, parts.lids, parts.lips
    nothing = np.zeros_like(brow[:, :, 0])
    cheek = np.stack([0.03 * motion.of(12), -0.06 * motion.of(12) - 0.05 * motion.of(6)], axis=-1)
    wing = np.stack([0.02 * motion.of(10), -0.045 * motion.of(9) - 0.03 * motion.of(10)], axis=-1)
    chin = nothing.copy()
    chin[..., 1] = parts.jaw + face.chin
    places: Mapping[str, Array] = {
        "fixed": nothing,
        "forehead": 0.35 * (brow[:, :, 2] - _at(0.44, -0.52)) * _at(0, 1),
        "brow_inner": brow[:, :, 0] - _at(0.15, -0.44),
        "brow_outer": brow[:, :, 3] - _at(0.58, -0.50),
        "lower_lid": lid.lower[:, :, 4] - _at(0.405, -0.064),
        "cheek": cheek,
        "wing": wing + _at(0, face.nose_length),
        "corner": mouth.top[:, :, -1] - _at(0.345, 0.714),
        "half_corner": 0.55 * (mouth.top[:, :, -1] - _at(0.345, 0.714)),
        "upper_lip": (mouth.top[:, :, 0] - _at(0.0, 0.65)) * _at(0, 1),
        "lower_lip": (mouth.bottom[:, :, 0] - _at(0.0, 0.838)) * _at(0, 1),
        "chin": chin,
    }
    return np.stack([places[name] for name in ANCHORS], axis=2).astype(np.float32)


def _product(left: Array, right: Array) -> Array:
    """Matrix product on one core: numpy's would start a thread per core for each frame, 15 times the CPU time."""
    return np.asarray(cv2.gemm(left, right, 1.0, _NO_ADDEND, 0.0), np.float32)


def _at(x: float, y: float) -> Array:
    return np.array([x, y], np.float32)


def _chain(feature: Feature) -> tuple[Array, Array]:
    """The spots along a feature: positions (n 2) and how strong each is (n), fading towards the ends."""
    points = np.array(feature.points, np.float32)
    if len(points) == 1:
        return points, np.ones(1, np.float32)
    along = np.concatenate([[0], np.cumsum(np.linalg.norm(np.diff(points, axis=0), axis=1))])
    count = max(3, round(along[-1] / (feature.width * 1.15)) + 1)
    at = np.linspace(0, along[-1], count)
    line = np.stack([np.interp(at, along, points[:, axis]) for axis in range(2)], axis=-1)
    fade = 0.45 + 0.55 * np.sin(np.linspace(0.12, 0.88, count) * np.pi)
    return line.astype(np.float32), (0.62 * fade).astype(np.float32)


def _compile(features: tuple[Feature, ...]) -> _Table:
    chains = [_chain(feature) for feature in features]
    counts = [len(strength) for _, strength in chains]
    each = np.repeat(np.arange(len(features)), counts)
    strength = np.concatenate([strength for _, strength in chains])
    weights = np.zeros((len(AU_ORDER), len(features)), np.float32)
    for column, feature in enumerate(features):
        for number, weight in feature.aus.items():
            weights[AU_ORDER.index(number), column] = weight

    def of(name: str) -> Array:
        return np.array([getattr(feature, name) for feature in features], np.float32)[each]

    return _Table(
        where=np.concatenate([line for line, _ in chains]),
        width=of("width"),
        weights=weights[:, each] * strength,
        rest=of("rest") * strength,
        age=of("age") * strength,
        anchor=np.array([ANCHORS.index(feature.anchor) for feature in features])[each],
        bulge=np.array([1.0 if feature.bulge else -1.0 for feature in features], np.float32)[each],
    )


_TABLE = _compile(FEATURES)
