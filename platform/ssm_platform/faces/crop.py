"""Squares around faces, cut out of images; images at another size."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from ssm_platform.faces.detectors import Detection
from ssm_platform.faces.tracker import TrackedFace


def crop(
    image: NDArray[np.uint8], box: TrackedFace | Detection, margin: float = 0.25, size: int | None = None
) -> NDArray[np.uint8]:
    """The square around a face (side, side, 3), its longer side grown by `margin` on each end, resized to `size`.

    What lies outside the image repeats the edge, so the face keeps its place and shape.
    """
    side = max(2, round(max(box.w, box.h) * (1 + 2 * margin)))
    left, top = round(box.x + box.w / 2 - side / 2), round(box.y + box.h / 2 - side / 2)
    height, width = image.shape[:2]
    rows = np.clip(np.arange(top, top + side), 0, height - 1)
    columns = np.clip(np.arange(left, left + side), 0, width - 1)
    inside = 0 <= top <= height - side and 0 <= left <= width - side
    square = image[top : top + side, left : left + side] if inside else image[rows[:, None], columns]
    return resize(square, size or side, size or side)


def resize(image: NDArray[np.uint8], width: int, height: int) -> NDArray[np.uint8]:
    """An image at another size: area average down, bicubic up."""
    if image.shape[:2] == (height, width):
        return np.ascontiguousarray(image)
    how = cv2.INTER_AREA if width < image.shape[1] else cv2.INTER_CUBIC
    return np.asarray(cv2.resize(image, (width, height), interpolation=how), np.uint8)
