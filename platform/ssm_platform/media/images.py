"""Still images (JPEG, PNG, ...) to upright RGB uint8, and JPEG back.

Grey images become three equal channels, 16 bit becomes 8 bit, alpha is dropped, the EXIF orientation is applied. A
truncated JPEG is refused: OpenCV itself would fill the rest with grey and only print a line.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from ssm_platform.media.video_index import UnreadableVideo


def read_image(path: str | Path) -> NDArray[np.uint8]:
    """An image file as (H, W, 3) RGB. UnreadableVideo with path and reason where there is none."""
    return decode_image(load_image(path), str(path))


def load_image(path: str | Path) -> bytes:
    """An image file as it is stored. UnreadableVideo where it cannot be opened."""
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise UnreadableVideo(path, error.strerror or "cannot be opened") from error


def decode_image(data: bytes | memoryview, name: str) -> NDArray[np.uint8]:
    """Encoded bytes as (H, W, 3) RGB; `name` is what errors call them."""
    if not len(data):
        raise UnreadableVideo(name, "the file is empty")
    encoded = np.frombuffer(data, np.uint8)
    if encoded[:2].tobytes() == b"\xff\xd8" and _is_cut(bytes(data)):
        raise UnreadableVideo(name, f"truncated JPEG ({len(data)} bytes, no end marker)")
    image = cv2.imdecode(encoded, cv2.IMREAD_COLOR_RGB)
    if image is None:
        raise UnreadableVideo(name, f"not an image OpenCV can decode ({len(data)} bytes)")
    return np.asarray(image, np.uint8)


def encode_jpeg(image: NDArray[np.uint8], quality: int) -> bytes:
    """(H, W, 3) RGB as JPEG bytes, quality 1..100; at 100 colours are not subsampled either."""
    options = [cv2.IMWRITE_JPEG_QUALITY, quality]
    if quality == 100:
        options += [cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444]
    good, data = cv2.imencode(".jpg", cv2.cvtColor(image, cv2.COLOR_RGB2BGR), options)
    if not good:
        raise ValueError(f"an image of shape {image.shape} cannot be stored as JPEG")
    return bytes(data)


def _is_cut(data: bytes) -> bool:
    """No end marker after the last start of scan (an earlier one may belong to a thumbnail)."""
    return data.find(b"\xff\xd9", data.rfind(b"\xff\xda")) < 0


def check_indices(name: str, indices: Sequence[int], length: int) -> None:
    """ValueError for the first index outside 0..length-1."""
    for index in indices:
        if not 0 <= index < length:
            raise ValueError(f"{name}: frame {index} is not in 0..{length - 1} (length {length})")
