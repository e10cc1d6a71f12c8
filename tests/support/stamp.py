"""Clip and frame number written into the pixels of a frame, so that a test can ask a decoder which frame it returned.

The lower half of the frame becomes a grid of ROWS x COLUMNS black and white blocks: 16 bits clip number, 16 bits frame
number, 8 bits checksum, most significant first. Geometry is relative to the frame, so a stamp survives resizing as well
as H.264, MPEG-4 and JPEG from 64 pixels on. It does not survive cropping; a flipped stamp is refused by its checksum.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

ROWS, COLUMNS = 4, 10
LIMIT = 2**16
SMALLEST = 64  # pixels of the shorter side
_BLACK, _WHITE = 24, 232
_UNSURE = 30  # grey levels around the middle in which a block is not read


class StampError(ValueError):
    """A frame carries no readable stamp."""


@dataclass(frozen=True)
class Stamp:
    """What a frame says about itself."""

    clip: int
    frame: int


def stamp(image: NDArray[np.uint8], clip: int, frame: int) -> NDArray[np.uint8]:
    """A copy of `image` (H W 3 uint8, any channel order) that carries both numbers, each in 0..65535."""
    for name, number in (("clip", clip), ("frame", frame)):
        if not 0 <= number < LIMIT:
            raise ValueError(f"{name} number {number} does not fit a stamp: 0 <= number < {LIMIT}")
    if min(image.shape[:2]) < SMALLEST:
        raise ValueError(f"a frame of shape {image.shape} is too small for a stamp: both sides >= {SMALLEST}")
    stamped = image.copy()
    for bit, (rows, columns) in zip(_bits(clip, frame), _blocks(*image.shape[:2]), strict=True):
        stamped[rows, columns] = _WHITE if bit else _BLACK
    return stamped


def read_stamp(image: NDArray[np.uint8]) -> Stamp:
    """The numbers in a decoded frame (H W 3 uint8). StampError where a block is grey or the checksum is wrong."""
    grey = image.mean(axis=2)
    means = np.array([_inner_mean(grey[rows, columns]) for rows, columns in _blocks(*grey.shape)])
    unsure = np.abs(means - (_BLACK + _WHITE) / 2) < _UNSURE
    if unsure.any():
        raise StampError(f"no stamp: {int(unsure.sum())} of {means.size} blocks are neither black nor white")
    read = np.packbits(means > (_BLACK + _WHITE) / 2).tobytes()
    numbers, checksum = read[:4], read[4]
    if _checksum(numbers) != checksum:
        raise StampError(f"no stamp: checksum {checksum} does not belong to {numbers.hex()}")
    return Stamp(clip=int.from_bytes(numbers[:2], "big"), frame=int.from_bytes(numbers[2:], "big"))


def _bits(clip: int, frame: int) -> NDArray[np.uint8]:
    numbers = clip.to_bytes(2, "big") + frame.to_bytes(2, "big")
    return np.unpackbits(np.frombuffer(numbers + bytes([_checksum(numbers)]), np.uint8))


def _checksum(numbers: bytes) -> int:
    return zlib.crc32(numbers) & 0xFF


def _blocks(height: int, width: int) -> list[tuple[slice, slice]]:
    edges_y = np.linspace(height / 2, height, ROWS + 1).round().astype(int)
    edges_x = np.linspace(0, width, COLUMNS + 1).round().astype(int)
    return [
        (slice(edges_y[row], edges_y[row + 1]), slice(edges_x[column], edges_x[column + 1]))
        for row in range(ROWS)
        for column in range(COLUMNS)
    ]


def _inner_mean(block: NDArray[np.float64]) -> float:
    height, width = block.shape
    return float(block[height // 4 : height - height // 4, width // 4 : width - width // 4].mean())
