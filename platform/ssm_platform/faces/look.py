"""How well a face can be read in a frame: head pose by its five points, sharpness, light, and one quality of all.

Pose is `solvePnP` of a mean head under a camera as wide as the picture is long: angles are those of the head towards
the camera, good to some degrees, in the picture's sense (yaw > 0: the nose points to the right of the picture, pitch
> 0: down, roll > 0: the head leans to the right of the picture). Quality is the least of its parts, each 0..1: a face
is as bad as what is worst about it. Rows below a stated quality are marked, never dropped.
"""

from __future__ import annotations

from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from ssm_platform.faces.detectors import Detection, Points
from ssm_platform.faces.squares import crop, square_of
from ssm_platform.faces.tracker import TrackedFace

_HEAD = np.array([[-31.5, -28, 26], [31.5, -28, 26], [0, 0, 0], [-26, 36, 24], [26, 36, 24]], np.float64)
"""Eyes' middles, nose tip, mouth corners of a mean adult head in millimetres: x right, y down, z away from the camera,
with the subject's right eye first."""

_SIDE = 112  # pixels that sharpness and light are measured at
_LARGE = 64.0  # side of a face's square in the picture from which its size is no drawback
_SHARP = 60.0  # variance of the Laplacian at `_SIDE` pixels from which sharpness is none
_LIGHT = (40.0, 70.0, 200.0, 240.0)  # mean grey: black, dark, bright, washed out
_CONTRAST = 30.0  # deviation of grey from which contrast is none
_TURN = (30.0, 75.0)  # degrees up to which pose is no drawback, and from which it is all


class Look(NamedTuple):
    """One face in one frame. Angles in degrees, None where the detector tells no points; the rest from 0 to 1."""

    pitch: float | None
    roll: float | None
    yaw: float | None
    sharpness: float
    light: float
    quality: float
    usable: bool


def look_at(image: NDArray[np.uint8], face: TrackedFace | Detection, least: float = 0.0) -> Look:
    """How the face looks in its image (H, W, 3); `least`: the quality from which it is usable."""
    grey = cv2.cvtColor(crop(image, face, 0.0, _SIDE), cv2.COLOR_RGB2GRAY)
    sharpness = min(1.0, float(cv2.Laplacian(grey, cv2.CV_64F).var()) / _SHARP)
    light = min(float(np.interp(grey.mean(), _LIGHT, (0, 1, 1, 0))), min(1.0, float(grey.std()) / _CONTRAST))
    size = min(1.0, square_of(face).side / _LARGE)
    pitch, roll, yaw = (None, None, None) if face.points is None else pose(face.points, image.shape[1], image.shape[0])
    turned = max(abs(yaw or 0.0), abs(pitch or 0.0))
    frontal = float(np.interp(turned, _TURN, (1, 0)))
    quality = min(sharpness, light, size, frontal, max(0.0, face.score))
    return Look(pitch, roll, yaw, sharpness, light, quality, quality >= least)


def pose(points: Points, width: int, height: int) -> tuple[float, float, float]:
    """Pitch, roll and yaw in degrees."""
    focal = float(max(width, height))
    camera = np.array([[focal, 0, width / 2], [0, focal, height / 2], [0, 0, 1]])
    seen = np.asarray(points, np.float64).reshape(5, 1, 2)
    _, turn, _ = cv2.solvePnP(_HEAD, seen, camera, None, flags=cv2.SOLVEPNP_SQPNP)
    matrix, _ = cv2.Rodrigues(turn)
    # the head's axes: where its face points to (-z), and where its right-to-left axis (x) points to
    ahead, across = -matrix[:, 2], matrix[:, 0]
    yaw = np.degrees(np.arctan2(ahead[0], -ahead[2]))
    pitch = np.degrees(np.arcsin(np.clip(ahead[1], -1, 1)))
    roll = np.degrees(np.arctan2(across[1], np.hypot(across[0], across[2])))
    return float(pitch), float(roll), float(yaw)
