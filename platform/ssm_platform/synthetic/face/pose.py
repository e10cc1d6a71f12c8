"""Where the head is: rotation of face points in depth, their projection, and the surface they lie on.

Letters: T frames, N points. The camera is orthographic. Depth comes from an ellipsoid with a nose on it, so turning the
head moves near parts more than far ones without a mesh.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ssm_platform.synthetic.face.identity import Identity

Array = NDArray[np.float32]


@dataclass(frozen=True)
class Pose:
    """Head pose of each frame (T). Angles in radians, positive yaw to the picture's right, positive pitch upwards."""

    yaw: Array
    pitch: Array
    roll: Array
    scale: Array  # frame sides per face unit
    shift: Array  # T 2, of the face's origin from the frame's centre, in frame sides

    @classmethod
    def of(cls, turn: NDArray[np.float64], scale: NDArray[np.float64], shift: NDArray[np.float64]) -> Pose:
        """From yaw, pitch and roll as columns (T 3), scale (T) and shift (T 2)."""
        yaw, pitch, roll = turn.T.astype(np.float32)
        return cls(yaw, pitch, roll, scale.astype(np.float32), shift.astype(np.float32))

    def damped(self, share: float) -> Pose:
        """The same head turned by only `share` of its yaw and pitch: outlines of a round thing turn less than it."""
        return Pose(share * self.yaw, share * self.pitch, self.roll, self.scale, self.shift)

    def project(self, points: Array, size: float) -> Array:
        """Pixels (T N 2) of face points (T N 3) in a frame of `size` pixels a side."""
        x, y, z = points[..., 0], points[..., 1], points[..., 2]
        sin, cos = np.sin(self.yaw)[:, None], np.cos(self.yaw)[:, None]
        x, z = x * cos + z * sin, z * cos - x * sin
        y = y * np.cos(self.pitch)[:, None] - z * np.sin(self.pitch)[:, None]
        sin, cos = np.sin(self.roll)[:, None], np.cos(self.roll)[:, None]
        x, y = x * cos - y * sin, x * sin + y * cos
        flat = np.stack([x, y], axis=-1) * self.scale[:, None, None]
        return ((flat + 0.5 + self.shift[:, None, :]) * size).astype(np.float32)


def surface(points: Array, face: Identity) -> Array:
    """Depth (...) of points (... 2) on the skin of a face."""
    x, y = points[..., 0], points[..., 1]
    squared = 1.0 - (x / (1.08 * face.width)) ** 2 - ((y + 0.05) / 1.62) ** 2
    depth = 0.80 * np.sqrt(np.maximum(squared, 0.0))
    along = np.clip((y + 0.25) / 0.60, 0.0, 1.0) * np.clip((0.52 - y) / 0.16, 0.0, 1.0)
    nose = 0.30 * along * np.exp(-((x / 0.13) ** 2))
    mouth = 0.07 * np.exp(-((x / 0.35) ** 2) - ((y - 0.74) / 0.25) ** 2)
    return np.asarray(depth + nose + mouth, np.float32)


def on_skin(points: Array, face: Identity, lift: float = 0.0) -> Array:
    """Points (... 2) with their depth (... 3), `lift` above the skin."""
    depth = surface(points, face)[..., None] + np.float32(lift)
    return np.concatenate([points, depth], axis=-1).astype(np.float32)


def at_depth(points: Array, depth: float) -> Array:
    """Points (... 2) at one depth (... 3): outlines, hair, neck."""
    depths = np.full((*points.shape[:-1], 1), depth, np.float32)
    return np.concatenate([points, depths], axis=-1).astype(np.float32)
