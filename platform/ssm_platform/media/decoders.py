"""Three video decoders behind one interface: `read(ascending frame numbers) -> (n, H, W, 3) uint8 RGB`.

All return the frames of `video_index` exactly, upright. decord and torchcodec seek by rules that fail on files that
are not CLOSED (measured: wrong frames or errors in open groups of pictures, in AVI and in MPEG-TS); such files are
decoded by av instead, which here goes by time stamps or by counting. `choose_decoder` decides, once per file, and logs
why; a frame number never depends on the decoder.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from typing import Any, Literal, Protocol, get_args

import numpy as np
from numpy.typing import NDArray

from ssm_platform.media.errors import UnreadableVideo
from ssm_platform.media.video_index import Access, VideoIndex, lenient_frames, open_container, video_stream

_log = logging.getLogger(__name__)
_THREADS = 1  # of one reader: its own threads would multiply with those of the worker pool

Decoder = Literal["decord", "av", "torchcodec"]
"""Names of the decoders, for typed settings."""

DEFAULT_DECODER: Decoder = "av"
"""Of everything: it runs on every machine, and here no other was cheaper by the clip (docs/data.md)."""


class VideoReader(Protocol):
    """An open video. Not for use by several threads at once."""

    def read(self, frames: Sequence[int]) -> NDArray[np.uint8]:
        """Frames (n, H, W, 3) for ascending, distinct, valid frame numbers. UnreadableVideo where decoding fails."""

    def close(self) -> None:
        """Let go of the file and its buffers."""


@lru_cache(maxsize=2048)
def choose_decoder(index: VideoIndex, decoder: str) -> str:
    """The decoder that reads this file: the one asked for, or av where that one would not be exact or cannot open it.

    ValueError for an unknown name or one that is not installed.
    """
    if decoder not in _DECODERS:
        raise ValueError(f"decoder {decoder!r} is not one of {', '.join(DECODERS)}")
    if decoder == "av":
        return decoder
    info = index.info
    if info.access is not Access.CLOSED:
        reason = f"access is {info.access.value} ({info.reason}), {decoder} would not be exact"
        _log.info("%s: %s; decoded by av instead", info.path, reason)
        return "av"
    try:
        _DECODERS[decoder](index).close()
    except _Unsuitable as error:
        _log.warning("%s: %s; decoded by av instead", info.path, error)
        return "av"
    return decoder


def open_reader(index: VideoIndex, decoder: str) -> VideoReader:
    """A reader by the name that `choose_decoder` gave."""
    return _DECODERS[decoder](index)


class _Unsuitable(Exception):
    """A decoder cannot open a file that av can, or counts other frames than the index."""


class _AvReader:
    """PyAV: decodes from the key frame before, or from the start where only counting is exact."""

    def __init__(self, index: VideoIndex) -> None:
        from av.video.reformatter import VideoReformatter

        self._convert = VideoReformatter()  # one for all frames: a new one per frame costs more than decoding
        self._index = index
        self._container: Any = open_container(index.info.path, index.pixels)
        self._stream = video_stream(index.info.path, self._container, index.pixels)
        self._stream.codec_context.thread_count = _THREADS
        lenient = index.info.damaged
        decode = lenient_frames(self._container, self._stream) if lenient else self._container.decode(self._stream)
        self._decoded: Iterator[Any] = decode
        self._next = 0  # number of the frame that `_decoded` yields next; -1 while that is not known
        self._turns = index.info.rotation // 90

    def read(self, frames: Sequence[int]) -> NDArray[np.uint8]:
        from av.error import FFmpegError

        out = np.empty((len(frames), self._index.info.height, self._index.info.width, 3), np.uint8)
        try:
            for row, frame in enumerate(frames):
                out[row] = np.rot90(self._image(frame), self._turns)
        except (FFmpegError, ValueError) as error:
            if isinstance(error, UnreadableVideo):
                raise
            raise UnreadableVideo(self._index.info.path, f"frame {frame}: {error}") from error
        return out

    def close(self) -> None:
        self._container.close()

    def _image(self, frame: int) -> NDArray[np.uint8]:
        info, picture = self._index.info, self._picture(frame)
        _refuse_size(info.path, frame, (picture.width, picture.height), info.coded)
        width, height = info.flat
        picture = self._convert.reformat(picture, width, height, "rgb24", interpolation="BICUBIC")  # as ffmpeg does
        return np.asarray(picture.to_ndarray(), np.uint8)

    def _picture(self, frame: int) -> Any:
        """The decoded frame of this number; key frames further back are tried where a seek lands too late."""
        if not self._reachable(frame):
            self._seek(frame)
        picture = self._decode_until(frame)
        for back in range(1, len(self._index.keys) + 1):
            if picture is not None:
                return picture
            self._seek(frame, back)
            picture = self._decode_until(frame)
        if picture is None:
            raise UnreadableVideo(self._index.info.path, f"frame {frame} of {self._index.info.frames} is not decodable")
        return picture

    def _reachable(self, frame: int) -> bool:
        """Whether decoding on is exact and no slower than a seek."""
        if not 0 <= self._next <= frame:
            return False
        if self._index.info.access is Access.COUNTED:
            return True
        first, last = self._index.times[self._next], self._index.times[frame]
        return not np.any((self._index.keys > first) & (self._index.keys <= last))

    def _seek(self, frame: int, back: int = 0) -> None:
        keys = self._index.keys
        at = int(np.searchsorted(keys, self._index.times[frame], "right")) - 1 - back
        counted = self._index.info.access is Access.COUNTED
        if counted or at <= 0:
            self._reopen()
        else:
            self._container.seek(int(keys[at]), stream=self._stream, backward=True)
            self._decoded = self._container.decode(self._stream)
            self._next = -1

    def _reopen(self) -> None:
        """From the very first frame; a seek to 0 is not that in every container."""
        self.close()
        self.__init__(self._index)  # type: ignore[misc]

    def _decode_until(self, frame: int) -> Any | None:
        """The frame of this number, or None where decoding began or ended without it.

        After a seek nothing before the first key frame counts: it may be a picture whose references were skipped.
        """
        for picture in self._decoded:
            number = self._number(picture)
            if number > frame:
                break
            if self._next < 0 and self._index.times[number] not in self._index.keys:
                continue
            self._next = number + 1
            if number == frame:
                return picture
        self._next = -1
        return None

    def _number(self, picture: Any) -> int:
        if self._index.info.access is Access.COUNTED:
            return self._next
        if picture.pts is None:
            raise UnreadableVideo(self._index.info.path, f"a frame after {self._next - 1} has no time stamp")
        return int(np.searchsorted(self._index.times, picture.pts))


class _DecordReader:
    """decord; where it counts other frames than the index it is not used."""

    def __init__(self, index: VideoIndex) -> None:
        decord = _imported("decord", "pip install 'ssm-platform[platform]' on x86-64 Linux")
        decord.logging.set_level(decord.logging.QUIET)
        self._info = index.info
        self._error = decord.DECORDError
        try:
            self._reader: Any = decord.VideoReader(index.info.path, ctx=decord.cpu(0), num_threads=_THREADS)
        except (self._error, RuntimeError) as error:
            raise _Unsuitable(f"decord cannot open it ({_first_line(error)})") from error
        if len(self._reader) != index.info.frames:
            raise _Unsuitable(f"decord sees {len(self._reader)} frames of {self._info.frames}")

    def read(self, frames: Sequence[int]) -> NDArray[np.uint8]:
        try:
            batch: NDArray[np.uint8] = self._reader.get_batch(list(frames)).asnumpy()
        except (self._error, RuntimeError) as error:
            raise UnreadableVideo(self._info.path, f"decord: {_first_line(error)}") from error
        _refuse_size(
            self._info.path, frames[0], (batch.shape[2], batch.shape[1]), (self._info.width, self._info.height)
        )
        return batch

    def close(self) -> None:
        self._reader = None


class _TorchcodecReader:
    """torchcodec in its exact seek mode; optional, needs a system FFmpeg."""

    def __init__(self, index: VideoIndex) -> None:
        torchcodec = _imported("torchcodec.decoders", "pip install 'ssm-platform[torchcodec]' and a system FFmpeg 4-9")
        self._info = index.info
        try:
            self._reader: Any = torchcodec.VideoDecoder(
                index.info.path, dimension_order="NHWC", num_ffmpeg_threads=_THREADS, seek_mode="exact"
            )
        except (RuntimeError, ValueError) as error:
            raise _Unsuitable(f"torchcodec cannot open it ({_first_line(error)})") from error
        if len(self._reader) != index.info.frames:
            raise _Unsuitable(f"torchcodec sees {len(self._reader)} frames of {self._info.frames}")

    def read(self, frames: Sequence[int]) -> NDArray[np.uint8]:
        try:
            batch: NDArray[np.uint8] = self._reader.get_frames_at(list(frames)).data.numpy()
        except (RuntimeError, IndexError) as error:
            raise UnreadableVideo(self._info.path, f"torchcodec: {_first_line(error)}") from error
        _refuse_size(
            self._info.path, frames[0], (batch.shape[2], batch.shape[1]), (self._info.width, self._info.height)
        )
        return batch

    def close(self) -> None:
        self._reader = None


def _refuse_size(path: str, frame: int, got: tuple[int, ...], first: tuple[int, int]) -> None:
    """UnreadableVideo where a frame has another size than the first one: said before anything is made of it."""
    if got != first:
        size = f"{got[0]} x {got[1]} after {first[0]} x {first[1]} pixels"
        raise UnreadableVideo(path, f"frame {frame} is {size}: two sizes in one stream; cut the file there")


def _imported(module: str, remedy: str) -> Any:
    from importlib import import_module

    try:
        return import_module(module)
    except (ImportError, OSError, RuntimeError) as error:  # a missing FFmpeg shows as any of these
        name = module.partition(".")[0]
        raise ValueError(f"decoder {name!r} cannot be loaded ({_first_line(error)}): {remedy}") from error


def _first_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__


_DECODERS: dict[str, Callable[[VideoIndex], VideoReader]] = {
    "decord": _DecordReader,
    "av": _AvReader,
    "torchcodec": _TorchcodecReader,
}
DECODERS: tuple[str, ...] = get_args(Decoder)
"""Names of the decoders."""
