"""Images typed as numbers: one line of a csv each, in a column "pixels" (FER-2013 as its owners ship it).

A line holds a square grey image, row by row, values 0..255 separated by spaces. Where each line begins is found once
a file and process; an image is then one short read. Knows no labels.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from functools import lru_cache
from math import isqrt
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ssm_platform.media.errors import UnreadableVideo
from ssm_platform.media.images import check_indices
from ssm_platform.records import Record

PIXELS = "pixels"
"""The column."""

_LEAST_SIDE = 8  # below it there is no face to see


class PixelRow:
    """The one frame of a record of kind "pixels" (a `frames.FrameSource`)."""

    def __init__(self, record: Record, root: Path) -> None:
        self._path, self._line, self.length = root / record.source, record.start, record.length

    def read(self, indices: Sequence[int]) -> NDArray[np.uint8]:
        check_indices(f"{self._path}:{self._line + 1}", indices, self.length)
        try:
            column, starts = _lines(str(self._path))
            with self._path.open("rb") as file:
                file.seek(int(starts[self._line]))
                cells = split_row(file.readline())
            image = parse_pixels(cells[column])
        except (OSError, IndexError, ValueError) as error:
            raise UnreadableVideo(self._path, f"line {self._line + 1}: {error}") from error
        return np.repeat(image[None, :, :, None], 3, axis=3)[[0] * len(indices)]

    def close(self) -> None:
        """Nothing stays open."""


def rows_of(path: Path) -> Iterator[tuple[int, list[str]]]:
    """(line counted from 1, stripped cells) of each line of a csv whose cells hold no line end."""
    with path.open("rb") as file:
        yield from enumerate((split_row(line) for line in file), 1)


def split_row(line: bytes) -> list[str]:
    """The stripped cells of one line."""
    row: list[str] = next(csv.reader([line.decode("utf-8-sig", errors="replace")]), [])
    return [cell.strip() for cell in row]


def parse_pixels(text: str) -> NDArray[np.uint8]:
    """A square grey image; ValueError says what is no pixel, or what number of them is no square."""
    cells = text.split()
    wrong = next((cell for cell in cells if not (cell.isascii() and cell.isdigit() and int(cell) < 256)), None)
    if wrong is not None:
        raise ValueError(f"a pixel is a whole number 0..255, found {wrong!r}")
    side = isqrt(len(cells))
    if side * side != len(cells) or side < _LEAST_SIDE:
        raise ValueError(f"an image is square and at least {_LEAST_SIDE} pixels wide, found {len(cells)} pixels")
    return np.array(cells, np.uint8).reshape(side, side)


@lru_cache(maxsize=2)
def _lines(path: str) -> tuple[int, NDArray[np.int64]]:
    """The column of pixels, and where each line of the file begins."""
    with open(path, "rb") as file:
        column = split_row(file.readline()).index(PIXELS)
        file.seek(0)
        lengths = np.fromiter((len(line) for line in file), np.int64)
    return column, np.concatenate([[0], lengths.cumsum()])
