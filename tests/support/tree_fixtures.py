"""A small corpus tree to build and break: text in any encoding, numbered images, real videos, BP4D tables."""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Sequence
from pathlib import Path

import av
import cv2
import numpy as np
import pytest


class Tree:
    """Writes below ``root``; every method makes the folders it needs."""

    def __init__(self, root: Path) -> None:
        self.root = root
        _, encoded = cv2.imencode(".jpg", np.full((8, 8, 3), 90, np.uint8))
        self._image = encoded.tobytes()

    def text(self, path: str, text: str, encoding: str = "utf-8") -> Path:
        place = self._place(path)
        place.write_bytes(text.encode(encoding))
        return place

    def images(self, folder: str, numbers: Iterable[int], name: str = "{}.jpg") -> None:
        for number in numbers:
            self._place(f"{folder}/{name.format(number)}").write_bytes(self._image)

    def pictures(self, *paths: str, side: int = 48) -> None:
        """Grey images, each of its own: the path seeds the pixels."""
        for path in paths:
            place, seed = self._place(path), zlib.crc32(path.encode())
            pixels = np.random.default_rng(seed).integers(0, 256, (side, side), dtype=np.uint8)
            cv2.imwrite(str(place), pixels)

    def video(self, path: str, frames: int, rate: int = 20) -> Path:
        place = self._place(path)
        codec = "mpeg4" if place.suffix == ".avi" else "libx264"
        with av.open(str(place), "w") as container:
            stream = container.add_stream(codec, rate=rate)
            stream.width = stream.height = 32
            stream.pix_fmt = "yuv420p"
            for number in range(frames):
                image = np.full((32, 32, 3), 8 * number % 256, np.uint8)
                container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
            container.mux(stream.encode())
        return place

    def occurrences(self, path: str, rows: dict[int, Sequence[object]], aus: Sequence[int]) -> Path:
        """A BP4D table: header "0,1,2,...", then frame number and one cell per AU."""
        lines = [",".join(map(str, (0, *aus))), *(",".join(map(str, (frame, *cells))) for frame, cells in rows.items())]
        return self.text(path, "\n".join(lines) + "\n")

    def _place(self, path: str) -> Path:
        place = self.root / path
        place.parent.mkdir(parents=True, exist_ok=True)
        return place


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    """An empty tree."""
    return Tree(tmp_path / "corpus with space")
