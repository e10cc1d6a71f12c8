"""From muscles to the curves a painter fills: named polygons and lines of one clip, already projected to pixels.

Letters: T frames, n points of a curve. Curves are closed polygons unless their name says line. Everything is computed
for the whole clip at once; the painter only fills.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ssm_platform.synthetic.face.identity import Identity
from ssm_platform.synthetic.face.muscles import Brows, Lids, Lips, Motion, brows, jaw_drop, lids, lips
from ssm_platform.synthetic.face.pose import Array, Pose, at_depth, on_skin

_SIDES = np.array([[-1.0, 1.0], [1.0, 1.0]], np.float32)  # mirrors lateral coordinates, left of the picture first
_OUTLINE = np.array(
    [
        [0.00, 1.30],
        [0.22, 1.27],
        [0.44, 1.13],
        [0.66, 0.88],
        [0.81, 0.56],
        [0.89, 0.20],
        [0.93, -0.20],
        [0.92, -0.55],
        [0.84, -0.88],
        [0.64, -1.14],
        [0.34, -1.29],
        [0.00, -1.33],
    ],
    np.float32,
)
_JAW_FOLLOWS = np.array([1.0, 1.0, 0.92, 0.62, 0.22, 0.05, 0, 0, 0, 0, 0, 0], np.float32)
_JAW_SHARE = np.array([1.0, 1.0, 1.0, 0.9, 0.6, 0.25, 0, 0, 0, 0, 0, 0], np.float32)
_EAR = np.array([[0.90, -0.2], [1.0, -0.26], [1.06, -0.12], [1.02, 0.12], [0.95, 0.26], [0.88, 0.2]], np.float32)
_NOSTRIL = np.array([[0.045, 0.375], [0.075, 0.350], [0.125, 0.355], [0.150, 0.385], [0.105, 0.400]], np.float32)


_OUTLINE_TURNS = 0.4  # share of the head's turn that its outline shows


@dataclass(frozen=True)
class Anatomy:
    """The moved parts of one clip, in lateral face coordinates; folds and shading hang on them."""

    brows: Brows
    lids: Lids
    lips: Lips
    jaw: Array  # T 1


def anatomy(face: Identity, motion: Motion) -> Anatomy:
    """All moved parts of `face`."""
    return Anatomy(brows(face, motion), lids(face, motion), lips(face, motion), jaw_drop(motion))


def curves(
    face: Identity, motion: Motion, parts: Anatomy, pose: Pose, size: float
) -> Mapping[str, NDArray[np.float32]]:
    """Every curve of the clip in pixels (T n 2), by name."""
    heads = _silhouettes(face, parts)
    skin = {**_eyes(face, motion, parts), **_brow_shapes(face, parts), **_mouth(face, parts), **_nose(face, motion)}
    skin.update(_hair_edges(face, parts))
    frames = len(motion.au)
    drawn = {**_projected(heads, pose.damped(_OUTLINE_TURNS), frames, size), **_projected(skin, pose, frames, size)}
    drawn["strands"] = _strands(face, drawn["crown"], drawn["hairline"])
    drawn["hair_front"] = np.concatenate([drawn["crown"], drawn.pop("hairline")], axis=1)
    drawn["beard"] = np.concatenate([drawn.pop("jawline"), drawn.pop("beard_edge")], axis=1)
    return drawn


def _projected(curves: Mapping[str, Array], pose: Pose, frames: int, size: float) -> dict[str, Array]:
    points = np.concatenate([np.broadcast_to(one, (frames, *one.shape[1:])) for one in curves.values()], axis=1)
    cuts = np.cumsum([one.shape[1] for one in curves.values()])[:-1]
    return dict(zip(curves, np.split(pose.project(points, size), cuts, axis=1), strict=True))


def _outline(face: Identity, parts: Anatomy) -> Array:
    """Right half of the face's outline (T n 2), from the chin up."""
    wide = face.width * (1 + (face.jaw - 1) * _JAW_SHARE)
    half = _OUTLINE * np.stack([wide, np.ones_like(wide)], axis=-1)
    half[:, 1] += face.chin * _JAW_SHARE
    drop = parts.jaw * _JAW_FOLLOWS  # T n
    return np.asarray(half + np.stack([0 * drop, drop], axis=-1), np.float32)


def _silhouettes(face: Identity, parts: Anatomy) -> dict[str, Array]:
    half = _outline(face, parts)
    bulge = 1.0 + 0.10 * face.hair_volume
    ears = _EAR * np.array([face.width, 1.0], np.float32)
    crown = half[:1, 5:] * np.array([1.04 * bulge, 1.02 * bulge], np.float32)
    return {
        "neck": at_depth(_neck(face), -0.35),
        "shoulders": at_depth(_shoulders(), -0.45),
        "hair_back": at_depth(_hair_back(face, bulge), -0.15),
        "ears_left": at_depth(_smooth((ears * _SIDES[0])[None]), -0.1),
        "ears_right": at_depth(_smooth((ears * _SIDES[1])[None]), -0.1),
        "outline": at_depth(_smooth(_both(half)), 0.0),
        "crown": at_depth(_smooth(_both(crown), closed=False), -0.05),
        "jawline": at_depth(_across(half[:, 1:6]), 0.0),
    }


def _neck(face: Identity) -> Array:
    wide = 0.56 * face.width
    return np.array([[[-wide, 0.7], [wide, 0.7], [wide * 1.12, 2.0], [-wide * 1.12, 2.0]]], np.float32)


def _shoulders() -> Array:
    half = np.array([[0.45, 1.52], [0.75, 1.66], [1.3, 1.8], [1.8, 2.1], [1.9, 2.8]], np.float32)
    return _both(half[None])


def _hair_back(face: Identity, bulge: float) -> Array:
    bottom = {"long": 1.75, "bob": 0.85}.get(face.hair_style, 0.10)
    half = _OUTLINE[5:] * np.array([1.06 * face.width * bulge, 1.04 * bulge], np.float32)
    fall = np.array([[0.7, bottom], [half[0, 0] * 1.08, bottom - 0.1], [half[0, 0] * 1.06, 0.3]], np.float32)
    sides = fall if bottom > 0.5 else np.array([[0.7, 0.15]], np.float32)
    return _smooth(_both(np.concatenate([sides, half])[None]))


def _hair_edges(face: Identity, parts: Anatomy) -> dict[str, Array]:
    """Where hair and beard end on the skin; closed by the crown and the jawline."""
    across = np.linspace(-1, 1, 13, dtype=np.float32)
    high, side = {"receding": (-1.12, -0.5), "fringe": (-0.66, -0.30)}.get(face.hair_style, (-0.95, -0.30))
    line = high + face.forehead + (side - high) * np.abs(across) ** 3.5
    line = line - 0.10 * np.exp(-(((across - 0.5 * face.parting) / 0.35) ** 2))
    bottom = parts.lips.bottom.mean(axis=1)
    corner, middle = bottom[:, -1:] + _at(0.10, 0.05), bottom[:, :1] + _at(0.16, 0.08)
    cheek = np.broadcast_to(_at(0.72, 0.42), corner.shape)
    beard = _across(np.concatenate([middle, corner, cheek], axis=1))[:, ::-1]
    return {
        "hairline": on_skin(np.stack([across * 0.95 * face.width, line], axis=-1)[None], face),
        "beard_edge": on_skin(beard, face),
    }


def _strands(face: Identity, crown: Array, hairline: Array, count: int = 26) -> Array:
    """Lines of hair from the crown to the hairline, as (T 2 count 2): start and end of each in turn."""
    rng = np.random.default_rng(face.texture_seed)
    share = np.sort(rng.uniform(0.02, 0.98, count))
    top = crown[:, ::-1][:, np.round(share * (crown.shape[1] - 1)).astype(int)]
    low = hairline[:, np.round(np.clip(share + rng.normal(0, 0.03, count), 0, 1) * (hairline.shape[1] - 1)).astype(int)]
    ends = np.stack([top + (low - top) * np.float32(0.08), top + (low - top) * np.float32(0.94)], axis=2)
    return ends.reshape(len(crown), 2 * count, 2)


def _eyes(face: Identity, motion: Motion, parts: Anatomy) -> dict[str, Array]:
    made: dict[str, Array] = {}
    for side, name in enumerate(("left", "right")):
        upper = parts.lids.upper[:, side] * _SIDES[side]
        lower = parts.lids.lower[:, side] * _SIDES[side]
        hole = np.concatenate([_fine(upper), _fine(lower)[:, ::-1]], axis=1)
        centre = np.array(parts.lids.centre, np.float32) * _SIDES[side] + motion.gaze
        lift = (0.03 + 0.45 * (parts.brows.line[:, side, 2, 1] + 0.52))[:, None]
        crease = upper + np.stack([0 * lift, -np.clip(0.062 - 0.4 * lift, 0.030, 0.11) + 0 * lift], axis=-1)
        made[f"eye_{name}"] = on_skin(hole, face)
        made[f"lash_line_{name}"] = on_skin(_fine(upper), face)
        made[f"low_lash_line_{name}"] = on_skin(_fine(lower), face)
        made[f"crease_line_{name}"] = on_skin(_fine(crease), face)
        made[f"iris_{name}"] = on_skin(centre[:, None], face, lift=-0.06)
        made[f"glass_{name}"] = on_skin(_glass(face) * _SIDES[side], face, lift=0.08)
    bridge = np.array([[[-0.17, -0.17], [0.0, -0.2], [0.17, -0.17]]], np.float32)
    made["bridge_line"] = on_skin(bridge, face, lift=0.08)
    return made


def _glass(face: Identity) -> Array:
    angle = np.linspace(0, 2 * np.pi, 20, endpoint=False)
    shape = np.sign(np.cos(angle)) * np.abs(np.cos(angle)) ** 0.7, np.sign(np.sin(angle)) * np.abs(np.sin(angle)) ** 0.7
    ring = np.stack([0.415 * face.eye_spacing + 0.27 * shape[0], -0.10 + 0.20 * shape[1]], axis=-1)
    return ring[None].astype(np.float32)


def _brow_shapes(face: Identity, parts: Anatomy) -> dict[str, Array]:
    line, down = parts.brows.line, np.stack([0 * parts.brows.half, parts.brows.half], axis=-1)
    made: dict[str, Array] = {}
    for side, name in enumerate(("left", "right")):
        top, bottom = (line[:, side] - down) * _SIDES[side], (line[:, side] + down) * _SIDES[side]
        shape = np.concatenate([_fine(top), _fine(bottom)[:, ::-1]], axis=1)
        made[f"brow_{name}"] = on_skin(shape, face)
    return made


def _mouth(face: Identity, parts: Anatomy) -> dict[str, Array]:
    top, inner_top, inner_bottom, bottom = (
        _both_open(edge) for edge in (parts.lips.top, parts.lips.inner_top, parts.lips.inner_bottom, parts.lips.bottom)
    )
    gap = inner_bottom - inner_top
    teeth = inner_top + np.minimum(0.78 * gap, np.array([9, 0.085], np.float32))
    low = inner_bottom - np.minimum(0.30 * gap, np.array([9, 0.06], np.float32))
    return {
        "mouth": on_skin(np.concatenate([inner_top, inner_bottom[:, ::-1]], axis=1), face),
        "teeth": on_skin(np.concatenate([inner_top, teeth[:, ::-1]], axis=1), face, lift=-0.03),
        "tongue": on_skin(np.concatenate([low, inner_bottom[:, ::-1]], axis=1), face, lift=-0.03),
        "upper_lip": on_skin(np.concatenate([top, inner_top[:, ::-1]], axis=1), face),
        "lower_lip": on_skin(np.concatenate([inner_bottom, bottom[:, ::-1]], axis=1), face),
        "press_line": on_skin(inner_top + np.float32(0.5) * gap, face),
        "moustache": on_skin(np.concatenate([top - _at(0, 0.10), top[:, ::-1] - _at(0, 0.01)], axis=1), face),
    }


def _nose(face: Identity, motion: Motion) -> dict[str, Array]:
    shape = _NOSTRIL * np.array([face.nose_width, 1.0], np.float32) + np.array([0, face.nose_length], np.float32)
    up = 0.045 * motion.of(9) + 0.020 * motion.of(10)
    wide = 1 + 0.12 * motion.of(10) + 0.10 * motion.of(9) + 0.06 * motion.of(12)
    made: dict[str, Array] = {}
    for side, name in enumerate(("left", "right")):
        moved = shape * np.stack([wide[:, side], 1 + 0 * wide[:, side]], axis=-1)[:, None]
        moved = (moved - np.stack([0 * up[:, side], up[:, side]], axis=-1)[:, None]) * _SIDES[side]
        made[f"nostril_{name}"] = on_skin(moved.astype(np.float32), face)
    return made


def _at(x: float, y: float) -> Array:
    return np.array([x, y], np.float32)


def _both(half: Array) -> Array:
    """A closed curve (T 2n 2) from its right half (T n 2) in lateral coordinates, from the bottom up."""
    return np.concatenate([half, (half * _SIDES[0])[:, ::-1]], axis=1)


def _across(half: Array) -> Array:
    """A line (T 2n 2) from left to right out of its right half (T n 2), ordered from the midline outwards."""
    return np.concatenate([(half * _SIDES[0])[:, ::-1], half], axis=1)


def _both_open(edge: Array) -> Array:
    """A line (T m 2) from left to right out of both its halves (T S n 2), which share the midline."""
    left, right = _fine(edge[:, 0] * _SIDES[0])[:, ::-1], _fine(edge[:, 1])
    return np.concatenate([left, right[:, 1:]], axis=1)


def _fine(line: Array, steps: int = 3) -> Array:
    return _smooth(line, closed=False, steps=steps)


def _smooth(line: Array, closed: bool = True, steps: int = 4) -> Array:
    """Catmull-Rom through the points of a curve (T n 2), `steps` pieces a span."""
    if closed:
        padded = np.concatenate([line[:, -1:], line, line[:, :2]], axis=1)
    else:
        padded = np.concatenate([2 * line[:, :1] - line[:, 1:2], line, 2 * line[:, -1:] - line[:, -2:-1]], axis=1)
    before, start, end, after = padded[:, :-3], padded[:, 1:-2], padded[:, 2:-1], padded[:, 3:]
    u = np.arange(steps, dtype=np.float32)[:, None, None, None] / steps
    span = 0.5 * (
        2 * start
        + (end - before) * u
        + (2 * before - 5 * start + 4 * end - after) * u**2
        + (3 * start - before - 3 * end + after) * u**3
    )
    fine = np.moveaxis(span, 0, 2).reshape(len(line), -1, 2)
    return (fine if closed else np.concatenate([fine, line[:, -1:]], axis=1)).astype(np.float32)
