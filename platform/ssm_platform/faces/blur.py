"""Faces made unrecognisable in a picture, for overlays and thumbnails that others will see.

A face becomes a few flat cells, then those are smoothed: what the cells averaged away cannot be sharpened back. Only
the boxes given are hidden: a face that no detector found, or that was left out as one too many, stays to be seen.
"""

from __future__ import annotations

from collections.abc import Iterable

import cv2
import numpy as np
from numpy.typing import NDArray

_CELLS = 6
"""Cells along a face's box. FER-2013's 48 pixels still tell expressions; nobody is told by 6."""

_GROWN = 0.2  # of the box's sides on each end: hair, chin and ears tell people too

Box = tuple[float, float, float, float]


def blurred(image: NDArray[np.uint8], boxes: Iterable[Box]) -> NDArray[np.uint8]:
    """A copy (H, W, 3) in which the faces in `boxes` (x, y, width, height in pixels) cannot be recognised."""
    hidden = image.copy()
    for x, y, width, height in boxes:
        left, top = max(0, round(x - _GROWN * width)), max(0, round(y - _GROWN * height))
        right, bottom = round(x + (1 + _GROWN) * width), round(y + (1 + _GROWN) * height)
        part = hidden[top : max(top, bottom), left : max(left, right)]
        if part.size:
            cells = cv2.resize(part, (_CELLS, _CELLS), interpolation=cv2.INTER_AREA)
            part[:] = cv2.resize(cells, part.shape[1::-1], interpolation=cv2.INTER_LINEAR)
    return hidden
