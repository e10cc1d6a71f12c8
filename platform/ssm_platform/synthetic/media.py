"""Frames to files: H.264 or MPEG-4 videos through PyAV, folders of JPEG images through OpenCV."""

from __future__ import annotations

from collections.abc import Iterable
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
from numpy.typing import NDArray

Image = NDArray[np.uint8]


def write_video(path: Path, frames: Iterable[Image], size: int, rate: float, quality: int = 23) -> None:
    """Writes square RGB frames of `size` pixels as H.264 (`quality` is the constant rate factor, lower is better)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=Fraction(rate).limit_denominator(1001))
        stream.pix_fmt = "yuv420p"
        stream.codec_context.thread_count = 1
        stream.options = {"crf": str(quality), "preset": "ultrafast", "g": "24"}
        stream.height = stream.width = size
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())


def write_images(folder: Path, names: Iterable[str], frames: Iterable[Image], quality: int = 92) -> None:
    """Writes RGB frames as JPEG images under `names`, one each."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, frame in zip(names, frames, strict=True):
        path = folder / name
        if not cv2.imwrite(str(path), np.ascontiguousarray(frame[..., ::-1]), [cv2.IMWRITE_JPEG_QUALITY, quality]):
            raise OSError(f"{path} could not be written")
