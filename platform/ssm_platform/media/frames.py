"""The frames of one manifest record by number, in any order, with repeats: of a video, a folder, a shard or a table.

Frames are (n, H, W, 3) uint8 RGB, upright (rotation metadata and EXIF orientation applied), square pixels assumed.
Frame i of a video is its i-th frame in order of display. Knows records, not labels; no Ray.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from ssm_platform.media.decoders import DEFAULT_DECODER, VideoReader, choose_decoder
from ssm_platform.media.errors import UnreadableVideo
from ssm_platform.media.images import check_indices, read_image
from ssm_platform.media.kept_indices import corpus_index
from ssm_platform.media.pixel_rows import PixelRow
from ssm_platform.media.shards import ShardFrames
from ssm_platform.media.video import Video
from ssm_platform.media.video_index import VideoInfo
from ssm_platform.records import Record


class FrameSource(Protocol):
    """The frames of one record, numbered from 0."""

    @property
    def length(self) -> int:
        """Number of frames."""

    def read(self, indices: Sequence[int]) -> NDArray[np.uint8]:
        """Frames (n, H, W, 3) in the order asked for. ValueError names source, index and length."""

    def close(self) -> None:
        """Let go of files and buffers."""


def open_frames(record: Record, root: str | Path, decoder: str = DEFAULT_DECODER) -> FrameSource:
    """The frames of a record below its manifest's root (a folder; for shards also an s3:// prefix)."""
    if record.kind == "shard":
        return ShardFrames(record, str(root))
    if record.kind == "pixels":
        return PixelRow(record, Path(root))
    if record.kind == "frames":
        return _FolderFrames(record, Path(root))
    return _VideoFrames(record, Path(root), decoder)


class _VideoFrames:
    """The frames start..start+length-1 of a video file; it stays open between reads."""

    def __init__(self, record: Record, root: Path, decoder: str) -> None:
        self._path = root / record.source
        self._start = record.start
        self.length = record.length
        index = corpus_index(self._path, root)
        video = Video(index, choose_decoder(index, decoder))
        self._info = index.info
        if record.start + record.length > self._info.frames:
            raise UnreadableVideo(
                self._path,
                f"record {record.clip!r} needs frames {record.start}..{record.start + record.length - 1}, "
                f"the video has {self._info.frames}",
            )
        self._reader = video.reader()

    def read(self, indices: Sequence[int]) -> NDArray[np.uint8]:
        check_indices(str(self._path), indices, self.length)
        return _read_any_order(self._reader, [index + self._start for index in indices], self._info)

    def close(self) -> None:
        self._reader.close()


class _FolderFrames:
    """The files of a frame folder; all of one size."""

    def __init__(self, record: Record, root: Path) -> None:
        self._folder = root / record.source
        self._files = record.files or ()
        self.length = record.length

    def read(self, indices: Sequence[int]) -> NDArray[np.uint8]:
        check_indices(str(self._folder), indices, self.length)
        images = {index: read_image(self._folder / self._files[index]) for index in dict.fromkeys(indices)}
        shapes = {image.shape: index for index, image in images.items()}
        if len(shapes) > 1:
            sizes = ", ".join(f"{self._files[i]} {w}x{h}" for (h, w, _), i in sorted(shapes.items()))
            raise UnreadableVideo(self._folder, f"frames of one clip have one size; found {sizes}")
        if not images:
            return np.empty((0, 0, 0, 3), np.uint8)
        return np.stack([images[index] for index in indices])

    def close(self) -> None:
        """Nothing stays open."""


def _read_any_order(reader: VideoReader, indices: Sequence[int], info: VideoInfo) -> NDArray[np.uint8]:
    """Decode each frame once, ascending; hand out in the order asked for."""
    if not len(indices):
        return np.empty((0, info.height, info.width, 3), np.uint8)
    distinct, places = np.unique(np.asarray(indices, np.int64), return_inverse=True)
    frames = reader.read(distinct.tolist())
    if frames.shape[1:] != (info.height, info.width, 3):
        raise UnreadableVideo(info.path, f"frames change size: {frames.shape[1:3]} after {(info.height, info.width)}")
    return frames if np.array_equal(places, np.arange(len(distinct))) else frames[places]
