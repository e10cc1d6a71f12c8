"""Frames of one clip: who is seen, how the face moves, where the head is, and the scene around it.

A pure function of its arguments. About 200 frames a second on one core at 112 pixels (`bench/synthetic.py` measures).
"""

from __future__ import annotations

from collections.abc import Iterator

import cv2
import numpy as np
from numpy.typing import NDArray

from ssm_platform.synthetic.face.camera import Camera, Scene
from ssm_platform.synthetic.face.drawing import anatomy, curves
from ssm_platform.synthetic.face.identity import Identity
from ssm_platform.synthetic.face.muscles import Motion
from ssm_platform.synthetic.face.painter import Painter, to_fixed
from ssm_platform.synthetic.face.pose import Array, Pose
from ssm_platform.synthetic.face.relief import spots

Image = NDArray[np.uint8]
_CHUNK = 64  # frames whose geometry is computed at once; bounds the memory of a long sequence


def render(face: Identity, motion: Motion, pose: Pose, scene: Scene, size: int = 112) -> Iterator[Image]:
    """RGB frames (H W 3 uint8, H = W = `size`), one per row of `motion` and `pose`."""
    painter, camera = Painter(face, scene.cloth), Camera(scene, size)
    skin = _Texture(face, size)
    motion = _on_this_face(face, motion)
    for first in range(0, len(motion.au), _CHUNK):
        part = slice(first, first + _CHUNK)
        yield from _render_part(face, _cut(motion, part), _cut_pose(pose, part), painter, camera, skin, size, first)


def _render_part(
    face: Identity, motion: Motion, pose: Pose, painter: Painter, camera: Camera, skin: _Texture, size: int, first: int
) -> Iterator[Image]:
    parts = anatomy(face, motion)
    fixed = to_fixed(curves(face, motion, parts, pose, 2.0 * size))
    relief = spots(face, motion, parts, pose, camera.scene.light, size)
    for index in range(len(motion.au)):
        canvas = camera.scene.background.copy()
        unit = float(pose.scale[index]) * size
        centre = (pose.shift[index] + 0.5) * size
        roll = float(pose.roll[index])
        painter.paint(canvas, fixed, index, 2 * unit)
        light = camera.head_light(centre, unit, roll) + relief.shade(index, size)
        light = 1 + (light * skin.at(centre, unit, roll) - 1) * painter.head_mask(fixed, index, size)
        frame = camera.expose(canvas, light, first + index)
        camera.occlude(frame, centre, unit)
        yield camera.finish(frame)


class _Texture:
    """Blotches and pores of one skin: a factor on the light that moves with the head."""

    def __init__(self, face: Identity, size: int) -> None:
        rng = np.random.default_rng(face.texture_seed)
        coarse = cv2.resize(rng.standard_normal((9, 9), np.float32), (96, 96), interpolation=cv2.INTER_CUBIC)
        fine = cv2.GaussianBlur(rng.standard_normal((96, 96), np.float32), (0, 0), 0.8)
        self._factor = np.asarray(1 + 0.022 * coarse + (0.02 + 0.03 * face.age) * fine, np.float32)
        self._size = size

    def at(self, centre: Array, unit: float, roll: float) -> Array:
        """The factor (H W) for a head at `centre` (2, pixels)."""
        scale = unit * 3.2 / 96
        cos, sin = scale * np.cos(roll), scale * np.sin(roll)
        matrix = np.array(
            [[cos, -sin, centre[0] - 48 * (cos - sin)], [sin, cos, centre[1] - 48 * (sin + cos)]], np.float32
        )
        return np.asarray(cv2.warpAffine(self._factor, matrix, (self._size, self._size), borderValue=1.0), np.float32)


def _on_this_face(face: Identity, motion: Motion) -> Motion:
    """Intensities as this face shows them: how far its muscles go, and its small asymmetry."""
    sides = np.stack([1 + face.lopsided, 1 - face.lopsided]) * face.mobility
    return Motion(au=np.clip(motion.au * sides, 0, 1.2).astype(np.float32), blink=motion.blink, gaze=motion.gaze)


def _cut(motion: Motion, part: slice) -> Motion:
    return Motion(motion.au[part], motion.blink[part], motion.gaze[part])


def _cut_pose(pose: Pose, part: slice) -> Pose:
    return Pose(pose.yaw[part], pose.pitch[part], pose.roll[part], pose.scale[part], pose.shift[part])
