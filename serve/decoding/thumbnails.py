"""Small pictures of some frames, for who cannot play the file: taken while the frames pass by, in the same decoding."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from ssm_platform.media import Pictures, TimedFrame, Video, encode_jpeg

SIDE, QUALITY = 480, 70
"""Longer side in pixels, and JPEG quality: some 20 KB each."""


class Thumbnail(NamedTuple):
    """A frame's number and its small picture as JPEG."""

    frame: int
    jpeg: bytes


@dataclass
class Thumbnails:
    """About `most` frames of `frames`, evenly spread; taken out in order as soon as they have passed."""

    most: int
    frames: int
    _ready: list[Thumbnail] = field(default_factory=list)

    def see(self, frame: TimedFrame) -> None:
        """A frame passes by."""
        if self.most and frame.number % max(1, -(-self.frames // self.most)) == 0:
            self._ready.append(Thumbnail(frame.number, encode_jpeg(_small(frame.image), QUALITY)))

    def taken(self) -> list[Thumbnail]:
        """Those that are ready and were not taken yet."""
        ready, self._ready = self._ready, []
        return ready


@dataclass(frozen=True, eq=False)
class WatchedVideo(Video):
    """A video whose frames are seen as they pass."""

    seen: Thumbnails

    def frames(self, start: int = 0, stop: int | None = None) -> Iterator[TimedFrame]:
        """As the video's."""
        for frame in super().frames(start, stop):
            self.seen.see(frame)
            yield frame


@dataclass(frozen=True)
class WatchedPictures(Pictures):
    """Pictures that are seen as they pass."""

    seen: Thumbnails

    def frames(self) -> Iterator[TimedFrame]:
        """As the pictures'."""
        for frame in super().frames():
            self.seen.see(frame)
            yield frame


def watched(source: Video | Pictures, seen: Thumbnails) -> Video | Pictures:
    """The same, seen as it passes."""
    if isinstance(source, Video):
        return WatchedVideo(source.index, source.decoder, seen)
    return WatchedPictures(source.paths, source.facts, seen)


def _small(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    height, width = image.shape[:2]
    scale = SIDE / max(height, width)
    if scale >= 1:
        return image
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    return np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), np.uint8)
