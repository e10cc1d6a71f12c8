"""Frames that somebody holds already: numpy arrays and PIL images, as an input like a video or pictures.

Arrays are uint8 RGB. (H, W, 3) is one picture, (N, H, W, 3) a clip of consecutive frames; a PIL image is turned upright
by its EXIF and made RGB. ValueErrors name shape and type.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ssm_platform.media.video import InputInfo, TimedFrame


@dataclass(frozen=True, eq=False)
class ArrayFrames:
    """Frames in memory (N, H, W, 3)."""

    images: NDArray[np.uint8]
    facts: InputInfo

    def frames(self) -> Iterator[TimedFrame]:
        """One after another; times count from the first where a rate is known, else all are 0."""
        for number, image in enumerate(self.images):
            yield TimedFrame(number, number / self.facts.rate if self.facts.rate else 0.0, image)


def is_frames(value: Any) -> bool:
    """Whether this is an array or a PIL image, and no path."""
    return isinstance(value, np.ndarray) or hasattr(value, "convert")


def open_array(value: Any, rate: float | None = None) -> ArrayFrames:
    """An array or a PIL image, opened. `rate`: frames a second of a clip; without one its rows have no timestamps."""
    images = value if isinstance(value, np.ndarray) else _upright(value)
    if images.dtype != np.uint8 or images.ndim not in (3, 4) or images.shape[-1] != 3 or 0 in images.shape:
        shape = f"{images.dtype} {list(images.shape)}"
        raise ValueError(f"the array is {shape}: must be uint8 RGB [H, W, 3], or [N, H, W, 3] for a clip")
    if rate is not None and not rate > 0:
        raise ValueError(f"rate is {rate}: must be frames a second, above 0")
    clip = images.ndim == 4
    images = images if clip else images[None]
    facts = InputInfo(
        kind="video" if clip else "pictures",
        frames=len(images),
        rate=rate if clip else None,
        width=images.shape[2],
        height=images.shape[1],
        rotation=0,
        decoder="array",
    )
    return ArrayFrames(images, facts)


def _upright(image: Any) -> NDArray[np.uint8]:
    from PIL import ImageOps

    return np.asarray(ImageOps.exif_transpose(image).convert("RGB"), np.uint8)
