"""Squares around faces, cut out of images; images at another size.

There is one square, whoever found the face: that of OpenCV's frontal cascade. YuNet's boxes are taller than wide and
closer, so they are converted (`square_of`). So a model trained on crops of one detector is given the same crops when
another finds the faces.
"""

from __future__ import annotations

from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from ssm.interface import MARGIN, Alignment
from ssm_platform.faces.detectors import Detection, Points
from ssm_platform.faces.tracker import TrackedFace

_SIDE, _HIGHER = 0.89, 0.025
"""The cascade's square by a YuNet box: its side, and how much higher its middle lies, in heights of that box. Means
over the faces that both find in real videos; `bench/faces.py` measures them."""

_AREA_FROM = 2.0  # reduction from which turning alone would alias


class Square(NamedTuple):
    """The middle and the side of a face's square, in pixels, and the degrees by which it is turned to the right."""

    x: float
    y: float
    side: float
    roll: float = 0.0


def square_of(box: TrackedFace | Detection) -> Square:
    """The cascade's square of a face, by its own box or by YuNet's (which comes with points)."""
    x, y = box.x + box.w / 2, box.y + box.h / 2
    if box.points is None:
        return Square(x, y, max(box.w, box.h))
    return Square(x, y - _HIGHER * box.h, _SIDE * box.h)


def crop_square(box: TrackedFace | Detection, margin: float, alignment: Alignment) -> Square:
    """What `crop` cuts out. ValueError where eyes shall be level and no points are known."""
    x, y, side, roll = square_of(box)
    if alignment == "eyes":
        if box.points is None:
            raise ValueError("crops with level eyes need the points of a face: use face detector 'yunet'")
        roll = roll_of(box.points)
    return Square(x, y, side * (1 + 2 * margin), roll)


def crop(
    image: NDArray[np.uint8],
    box: TrackedFace | Detection,
    margin: float = MARGIN,
    size: int | None = None,
    alignment: Alignment = "none",
) -> NDArray[np.uint8]:
    """The square around a face (side, side, 3), grown by `margin` on each end, resized to `size`.

    What lies outside the image repeats the edge, so the face keeps its place and shape. With `alignment` "eyes" the
    picture is turned about the middle of the square until the eyes are level; ValueError where no points are known.
    """
    square = crop_square(box, margin, alignment)
    whole = max(2, round(square.side))
    if alignment == "eyes":
        return _turned(image, square, size or whole)
    part = _cut(image, round(square.x - whole / 2), round(square.y - whole / 2), whole)
    return resize(part, size or whole, size or whole)


def roll_of(points: Points) -> float:
    """Degrees by which the line of the eyes falls to the right of the picture."""
    right_x, right_y, left_x, left_y = points[:4]
    return float(np.degrees(np.arctan2(left_y - right_y, left_x - right_x)))


def _cut(image: NDArray[np.uint8], left: int, top: int, side: int) -> NDArray[np.uint8]:
    height, width = image.shape[:2]
    if 0 <= top <= height - side and 0 <= left <= width - side:
        return image[top : top + side, left : left + side]
    rows = np.clip(np.arange(top, top + side), 0, height - 1)
    columns = np.clip(np.arange(left, left + side), 0, width - 1)
    return image[rows[:, None], columns]


def _turned(image: NDArray[np.uint8], square: Square, size: int) -> NDArray[np.uint8]:
    """The square, turned back about its middle; where it becomes much smaller it is averaged down first."""
    wide = int(np.ceil(square.side * np.sqrt(2))) + 2
    left, top = round(square.x - wide / 2), round(square.y - wide / 2)
    part, scale = _cut(image, left, top, wide), size / square.side
    if scale * _AREA_FROM < 1:
        small = max(2, round(wide * scale))
        part, before = resize(part, small, small), small / wide
    else:
        before = 1.0
    middle = ((square.x - left) * before, (square.y - top) * before)
    turn = cv2.getRotationMatrix2D(middle, square.roll, scale / before)
    turn[:, 2] = turn[:, 2] + size / 2 - np.array(middle)
    part = np.ascontiguousarray(part)
    return np.asarray(cv2.warpAffine(part, turn, (size, size), borderMode=cv2.BORDER_REPLICATE), np.uint8)


def resize(image: NDArray[np.uint8], width: int, height: int) -> NDArray[np.uint8]:
    """An image at another size: area average down, bicubic up."""
    if image.shape[:2] == (height, width):
        return np.ascontiguousarray(image)
    how = cv2.INTER_AREA if width < image.shape[1] else cv2.INTER_CUBIC
    return np.asarray(cv2.resize(image, (width, height), interpolation=how), np.uint8)
