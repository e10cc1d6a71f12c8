"""A video or pictures to be read, opened once: facts, index and frames are asked of the value, never of the path again.

    with-less use: video = open_video(path); video.facts; for number, seconds, image in video.frames(): ...

Frames are (H, W, 3) uint8 RGB, upright, numbered in order of display whatever the rate; times are seconds from the
first frame shown. Which decoder reads the file is decided at `open_video` and kept. Every pass over `frames` opens the
file anew and lets go of it at its end, so the value itself holds no handle and memory is flat in the length of a video.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from ssm_platform.media.decoders import DEFAULT_DECODER, VideoReader, choose_decoder, open_reader
from ssm_platform.media.images import read_image
from ssm_platform.media.video_index import VideoIndex, index_video

_CHUNK = 16  # frames held at once while streaming,
_CHUNK_BYTES = 2**23  # or as many as take this much: one of 1920 x 1080; two such chunks are held for a moment


class TimedFrame(NamedTuple):
    """A frame of a stream: its number, its seconds from the first frame, its pixels (H, W, 3)."""

    number: int
    timestamp: float
    image: NDArray[np.uint8]


class InputInfo(BaseModel):
    """What was handed in."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["video", "pictures"] = Field(description="a video, or pictures in the order given")
    frames: int = Field(description="frames, or pictures")
    rate: float | None = Field(description="mean frames per second; None for pictures")
    width: int = Field(description="width of the upright frames, or of the first picture, in pixels")
    height: int = Field(description="height likewise")
    rotation: int = Field(description="degrees counter-clockwise by which frames were turned upright")
    decoder: str = Field(description="what decodes it")
    notes: tuple[str, ...] = Field(default=(), description="what a person should know of how it is shown here")


@dataclass(frozen=True, eq=False)
class Video:
    """One video file: its index, and the decoder that reads it."""

    index: VideoIndex
    decoder: str

    @property
    def facts(self) -> InputInfo:
        """What it is."""
        info = self.index.info
        return InputInfo(
            kind="video",
            frames=info.frames,
            rate=info.rate,
            width=info.width,
            height=info.height,
            rotation=info.rotation,
            decoder=self.decoder,
            notes=info.notes,
        )

    def reader(self) -> VideoReader:
        """An open reader, for frames in any order; the caller closes it."""
        return open_reader(self.index, self.decoder)

    def frames(self, start: int = 0, stop: int | None = None) -> Iterator[TimedFrame]:
        """Frames start..stop-1 in order, a few in memory at a time."""
        info = self.index.info
        end = info.frames if stop is None else stop
        if not 0 <= start <= end <= info.frames:
            raise ValueError(f"{info.path}: frames {start}..{end} asked for, it has {info.frames}")
        reader = self.reader()
        try:
            chunk = max(1, min(_CHUNK, _CHUNK_BYTES // (3 * info.width * info.height)))
            for first in range(start, end, chunk):
                numbers = range(first, min(first + chunk, end))
                for number, image in zip(numbers, reader.read(numbers), strict=True):
                    yield TimedFrame(number, self.index.seconds(number), image)
        finally:
            reader.close()


@dataclass(frozen=True)
class Pictures:
    """Pictures in the order given: each stands for itself, nothing connects one to the next."""

    paths: tuple[Path, ...]
    facts: InputInfo

    def frames(self) -> Iterator[TimedFrame]:
        """The pictures, one in memory at a time."""
        for number, path in enumerate(self.paths):
            yield TimedFrame(number, 0.0, read_image(path))


def open_video(path: str | Path, decoder: str = DEFAULT_DECODER, pixels: int | None = None) -> Video:
    """UnreadableVideo (a ValueError) with path and reason where there is nothing usable, or a frame above `pixels`."""
    index = index_video(path, pixels)
    return Video(index, choose_decoder(index, decoder))
