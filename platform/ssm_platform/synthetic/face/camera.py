"""What stands between a face and a frame: background, light, blur, noise, occlusion, low resolution and JPEG.

One `Scene` holds for a clip. Noise and texture are drawn once and shifted from frame to frame, which looks the same and
costs nothing. Letters: H W pixels.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from ssm_platform.synthetic.face.identity import Colour
from ssm_platform.synthetic.face.pose import Array

Image = NDArray[np.uint8]


@dataclass(frozen=True)
class Occluder:
    """Something before the face: a capsule between two points, in face units around the face's origin."""

    start: tuple[float, float]
    end: tuple[float, float]
    radius: float
    colour: Colour


@dataclass(frozen=True)
class Scene:
    """Everything about a clip that is not the face. Neutral values leave the picture as painted."""

    background: Image  # H W 3 at twice the frame's size
    cloth: Colour = (90, 96, 110)
    light: tuple[float, float] = (-0.35, -0.75)  # picture direction of the light times its contrast
    ambient: float = 0.72  # share of the light that has no direction
    gain: tuple[float, float, float] = (1.0, 1.0, 1.0)
    gamma: float = 1.0
    blur: float = 0.0  # pixels, standard deviation
    noise: float = 1.0  # grey levels, standard deviation
    quality: int | None = None  # of a JPEG that each frame goes through
    shrink: float = 1.0  # share of the resolution that is left
    occluder: Occluder | None = None
    seed: int = 0


class Camera:
    """Turns painted canvases of one clip into frames."""

    def __init__(self, scene: Scene, size: int) -> None:
        self.scene = scene
        self.size = size
        rng = np.random.default_rng(scene.seed)
        pad = size + 32
        self._grain = (rng.standard_normal((pad, pad, 1), np.float32) * scene.noise).astype(np.float32)
        self._shifts = rng.integers(0, 32, (4096, 2))
        levels = np.linspace(0, 1, 256) ** scene.gamma * 255
        self._curve = np.clip(levels[:, None] * np.array(scene.gain), 0, 255).astype(np.uint8)[None]
        self._grid = (np.arange(size // 4, dtype=np.float32) + 0.5) * 4

    def head_light(self, centre: Array, unit: float, roll: float) -> Array:
        """Light (H W) that falls on an ellipsoid head at `centre` (2, pixels), 1 in the middle of an even light."""
        dx, dy = (self._grid - centre[0])[None, :] / unit, (self._grid - centre[1])[:, None] / unit
        x, y = (dx * np.cos(roll) + dy * np.sin(roll)) / 1.12, (dy * np.cos(roll) - dx * np.sin(roll) + 0.03) / 1.50
        z = np.sqrt(np.maximum(1 - x * x - y * y, 0.0))
        towards = self.scene.light
        lit = self.scene.ambient + (1 - self.scene.ambient) * (z + 1.3 * (x * towards[0] + y * towards[1]))
        coarse = np.maximum(lit, 0.25).astype(np.float32)
        return np.asarray(cv2.resize(coarse, (self.size, self.size)), np.float32)

    def expose(self, canvas: Image, light: Array, index: int) -> Image:
        """The frame (H W 3) of a painted canvas (2H 2W 3) under `light` (H W)."""
        frame = cv2.resize(canvas, (self.size, self.size), interpolation=cv2.INTER_AREA)
        shift_y, shift_x = self._shifts[index % len(self._shifts)]
        grain = self._grain[shift_y : shift_y + self.size, shift_x : shift_x + self.size]
        lit = frame * np.clip(light, 0.2, 1.7)[..., None] + grain
        return np.asarray(cv2.LUT(np.clip(lit, 0, 255).astype(np.uint8), self._curve), np.uint8)

    def finish(self, frame: Image) -> Image:
        """Blur, lost resolution and JPEG, in this order."""
        image: cv2.typing.MatLike = frame
        if self.scene.blur > 0.2:
            image = cv2.GaussianBlur(image, (0, 0), self.scene.blur)
        if self.scene.shrink < 0.99:
            small = max(16, round(self.size * self.scene.shrink))
            image = cv2.resize(cv2.resize(image, (small, small), interpolation=cv2.INTER_AREA), (self.size, self.size))
        if self.scene.quality is not None:
            _, packed = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, self.scene.quality])
            return np.asarray(cv2.imdecode(packed, cv2.IMREAD_COLOR), np.uint8)
        return np.asarray(image, np.uint8)

    def occlude(self, frame: Image, centre: Array, unit: float) -> None:
        """Draws the occluder over `frame`, with a lighter core so that it looks round."""
        thing = self.scene.occluder
        if thing is None:
            return
        start, end = (tuple(int(v * 16) for v in centre + np.array(at) * unit) for at in (thing.start, thing.end))
        for share, tone in ((1.0, 0.75), (0.8, 0.92), (0.5, 1.0)):
            colour = tuple(value * tone for value in thing.colour)
            cv2.line(frame, start, end, colour, max(1, round(2 * thing.radius * unit * share)), cv2.LINE_AA, 4)


def backdrop(rng: np.random.Generator, size: int, busy: float) -> Image:
    """A blurred background (2H 2W 3): an even tone for busy 0, patches of colour for busy 1."""
    tone = rng.uniform(50, 190) * rng.uniform(0.85, 1.15, 3)
    cells = tone + busy * (rng.normal(0, 34, (6, 6, 1)) + rng.normal(0, 13, (6, 6, 3)))
    small = np.clip(cells, 8, 248).astype(np.uint8)
    return np.asarray(cv2.resize(small, (2 * size, 2 * size), interpolation=cv2.INTER_CUBIC), np.uint8)
