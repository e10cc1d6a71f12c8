"""Which frames a video file has: their number, their times, where decoding may start, whether packets can be trusted.

Frame i is the i-th frame in order of display of the file's best video stream. One pass over the packets (no decoding
but the first frame) finds the frames. Three kinds of file exist, and the difference is what makes decoders disagree:

* CLOSED: MP4 or Matroska; every packet is a frame with its own time, nothing crosses a key frame. Any decoder may
  seek.
* OPEN: frames shown before a key frame are stored after it (open groups of pictures, x265's default; edit lists), or
  the container is another than MP4 and Matroska. Only decoding by time stamp from the key frame before is exact.
* COUNTED: packet times say nothing about frames (AVI with B-frames, hidden frames). Only counting from the start is
  exact.

This module knows containers and packets; it knows nothing of pixels, records or corpora.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import Enum
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ssm_platform.media.errors import UnreadableVideo
from ssm_platform.media.formats import HEAD, in_words, picture_format

CONTAINERS = (
    *("mov", "mp4", "3gp", "matroska", "webm", "avi", "mpegts", "mpeg", "flv", "asf", "ogg", "gif", "mxf"),
    *("dv", "rm", "h264", "hevc", "m4v"),
)
"""FFmpeg's names of the containers that are opened: none that can make it read other files or addresses."""

OPENING = {"format_whitelist": ",".join(CONTAINERS), "protocol_whitelist": "file"}
"""How every file is opened."""

_TIMED_CONTAINERS = frozenset({"mp4", "matroska"})
_STORED_ORDER = frozenset({"avi", "mxf"})  # time packets in the order they are stored, not in that of display
_BROADCAST = frozenset({"mpegts", "mpeg"})  # made to be read on over what was lost on the way
_HDR = {16: "PQ", 18: "HLG"}  # transfer functions
_SQUARE, _FLATTEST, _WIDEST = 0.01, 0.25, 4.0  # pixel shapes that are taken for square; those that are believed
_HIDDEN_FRAMES = frozenset({"vp8"})  # packets that are decoded but never shown have a time of their own here
_SLACK_SECONDS = 0.5  # a Matroska file may end this much before the length in its header


class Access(Enum):
    """How single frames of a file can be reached exactly; see the head of this module."""

    CLOSED = "closed"
    OPEN = "open"
    COUNTED = "counted"


@dataclass(frozen=True)
class VideoInfo:
    """What a caller needs to know of a video. Width and height are those of the frames as displayed."""

    path: str
    frames: int
    rate: float  # mean frames per second
    width: int
    height: int
    rotation: int  # degrees counter-clockwise already applied to the frames that readers return: 0, 90, 180 or 270
    access: Access
    reason: str = ""  # why frames cannot be reached freely; empty where access is CLOSED
    coded: tuple[int, int] = (0, 0)  # width and height as stored, before pixels are made square and frames upright
    damaged: bool = False  # packets were lost on the way: frames are those that can still be decoded
    notes: tuple[str, ...] = ()  # what a person should know of how it looks here

    @property
    def flat(self) -> tuple[int, int]:
        """Width and height with square pixels, before frames are turned upright."""
        return (self.height, self.width) if self.rotation % 180 else (self.width, self.height)


@dataclass(frozen=True, eq=False)
class VideoIndex:
    """Display times of all frames (ascending) and of the key frames, in units of `time_base` seconds."""

    info: VideoInfo
    times: NDArray[np.int64]  # (frames,)
    keys: NDArray[np.int64]
    time_base: float
    pixels: int | None = None  # most pixels of a frame that decoding may take on; None: no limit

    def seconds(self, frame: int) -> float:
        """Seconds between the first frame shown and this one."""
        return float(self.times[frame] - self.times[0]) * self.time_base


def index_video(path: str | Path, pixels: int | None = None) -> VideoIndex:
    """The index of a file, kept for the files used last. UnreadableVideo where there is none.

    `pixels`: a frame of more is not decoded, whatever the header says; readers of the index hold to it as well.
    """
    try:
        state = os.stat(path)
    except OSError as error:
        raise UnreadableVideo(path, error.strerror or "cannot be opened") from error
    return _index_cached(os.fspath(path), state.st_size, state.st_mtime_ns, pixels)


@lru_cache(maxsize=2048)
def _index_cached(path: str, size: int, modified: int, pixels: int | None) -> VideoIndex:
    if size == 0:
        raise UnreadableVideo(path, "the file is empty")
    from av.error import FFmpegError

    head = read_head(path)
    if kind := picture_format(head):
        raise UnreadableVideo(path, f"it is a {kind} picture, not a video")
    try:
        with open_container(path, pixels) as container:
            return _index_container(path, container, pixels)
    except FFmpegError as error:
        told = in_words(head)
        raise UnreadableVideo(path, f"truncated or not a video ({told or error.strerror or error})") from error


def read_head(path: str | Path) -> bytes:
    """The first bytes of a file. UnreadableVideo where it cannot be opened or is empty."""
    try:
        with open(path, "rb") as file:
            head = file.read(HEAD)
    except OSError as error:
        raise UnreadableVideo(path, error.strerror or "cannot be opened") from error
    if not head:
        raise UnreadableVideo(path, "the file is empty")
    return head


def open_container(path: str, pixels: int | None = None) -> Any:
    """The file, opened; even what FFmpeg decodes to know its streams is held to `pixels`."""
    import av

    limit = {} if pixels is None else {"max_pixels": str(pixels)}
    return av.open(path, metadata_errors="replace", options={**OPENING, **limit})


def video_stream(path: str, container: Any, pixels: int | None = None) -> Any:
    """The stream that is read: FFmpeg's best that is no cover picture. UnreadableVideo where there is none.

    `pixels`: the codec itself refuses frames of more, before it asks for their memory.
    """
    best = container.streams.best("video")
    streams = [] if best is None else [best, *container.streams.video]
    stream = next((stream for stream in streams if not _is_cover(stream)), None)
    if stream is None:
        sound = "sound with a cover picture: " if streams else ""
        raise UnreadableVideo(path, f"{sound}no video stream")
    if stream.codec_context is None:
        raise UnreadableVideo(path, "unknown video codec")
    if pixels is not None:
        stream.codec_context.options = {"max_pixels": str(pixels)}
    return stream


def _is_cover(stream: Any) -> bool:
    from av.stream import Disposition

    return bool(stream.disposition & Disposition.attached_pic)


def lenient_frames(container: Any, stream: Any) -> Iterator[Any]:
    """What can be decoded of a stream with lost packets, from its beginning."""
    from av.error import FFmpegError

    for packet in container.demux(stream):
        try:
            yield from packet.decode()
        except FFmpegError:
            continue


@dataclass(frozen=True)
class _Packets:
    """The packets of a stream in stored order, those that hold data."""

    times: list[int | None]
    keys: list[bool]
    discarded: list[bool]
    damaged: int  # packets that FFmpeg marks as incomplete
    last_end: int  # display time just after the last packet


def _index_container(path: str, container: Any, pixels: int | None) -> VideoIndex:
    stream = video_stream(path, container, pixels)
    packets = _read_packets(stream, container)
    if not packets.times:
        raise UnreadableVideo(path, "no frames")
    _refuse_truncated(path, container, stream, packets)
    container.seek(0)
    first = next(lenient_frames(container, stream) if packets.damaged else container.decode(stream), None)
    if first is None:
        raise UnreadableVideo(path, "no frame could be decoded")
    codec, usual = stream.codec_context, _is_usual(container, stream)
    look = _Look(container.format.name, codec.name, bool(codec.has_b_frames), packets, first, usual)
    access, reason = _access(look)
    if access is Access.COUNTED:
        times, keys = _count_frames(path, container, stream, bool(packets.damaged))
    else:
        times, keys = _frame_times(packets)
    width, height = _square(first.width, first.height, _pixel_shape(stream))
    turned = round(first.rotation / 90) % 2 == 1
    info = VideoInfo(
        path=path,
        frames=len(times),
        rate=_mean_rate(times, stream),
        width=height if turned else width,
        height=width if turned else height,
        rotation=90 * (round(first.rotation / 90) % 4),
        access=access,
        reason=reason,
        coded=(first.width, first.height),
        damaged=bool(packets.damaged),
        notes=tuple(_notes(stream, first, packets, (width, height))),
    )
    return VideoIndex(info=info, times=times, keys=keys, time_base=float(stream.time_base), pixels=pixels)


def _read_packets(stream: Any, container: Any) -> _Packets:
    times, keys, discarded, damaged, last_end = [], [], [], 0, 0
    for packet in container.demux(stream):
        if packet.size == 0:
            continue
        times.append(packet.pts)
        keys.append(packet.is_keyframe)
        discarded.append(packet.is_discard)
        damaged += packet.is_corrupt
        time = packet.pts if packet.pts is not None else packet.dts
        last_end = max(last_end, (time or 0) + (packet.duration or 0))
    return _Packets(times, keys, discarded, damaged, last_end)


def _refuse_truncated(path: str, container: Any, stream: Any, packets: _Packets) -> None:
    names = container.format.name.split(",")
    found, declared = len(packets.times), stream.frames
    if packets.damaged and _BROADCAST.isdisjoint(names):
        raise UnreadableVideo(path, f"truncated: the file ends inside packet {found} of {declared or 'unknown'}")
    if "mp4" in names and found < declared:
        raise UnreadableVideo(path, f"truncated: {found} of {declared} frames")
    if "avi" in names and max(found, packets.last_end) < declared:  # AVI counts time in frames; dropped ones take time
        raise UnreadableVideo(path, f"truncated: {found} of {declared} frames")
    if "matroska" in names and container.duration and len(container.streams) == 1:
        seconds, promised = packets.last_end * float(stream.time_base), container.duration / 1e6
        if seconds + _SLACK_SECONDS < promised:
            raise UnreadableVideo(path, f"truncated: {seconds:.2f} of {promised:.2f} s")


@dataclass(frozen=True)
class _Look:
    """What one pass over the packets and the first decoded frame show of a file."""

    container: str  # FFmpeg's names, comma separated
    codec: str
    reorders: bool
    packets: _Packets
    first: Any
    usual: bool  # whether every decoder would take this stream, and show it in this shape

    @property
    def shown(self) -> list[int | None]:
        """Times of the packets that are not discarded."""
        packets = self.packets
        return [time for time, gone in zip(packets.times, packets.discarded, strict=True) if not gone]


def _times_are_incomplete(look: _Look) -> bool:
    return None in look.shown or len(set(look.shown)) < len(look.shown)


def _first_frame_is_late(look: _Look) -> bool:
    return bool(look.first.pts != min(time for time in look.shown if time is not None))


_RULES: tuple[tuple[Callable[[_Look], bool], str, Access], ...] = (
    (lambda look: bool(look.packets.damaged), "packets were lost", Access.COUNTED),
    (_times_are_incomplete, "packets without a time of their own", Access.COUNTED),
    (lambda look: not look.packets.keys[0], "it does not begin with a key frame", Access.COUNTED),
    (lambda look: look.container in _STORED_ORDER and look.reorders, "AVI or MXF with B-frames", Access.COUNTED),
    (lambda look: look.codec in _HIDDEN_FRAMES, f"{', '.join(_HIDDEN_FRAMES)} hides frames", Access.COUNTED),
    (_first_frame_is_late, "the first frame decoded is not the first by time", Access.COUNTED),
    (lambda look: _TIMED_CONTAINERS.isdisjoint(look.container.split(",")), "not MP4 or Matroska", Access.OPEN),
    (lambda look: any(look.packets.discarded), "an edit list discards frames", Access.OPEN),
    (lambda look: _crosses_key(look.packets), "open groups of pictures", Access.OPEN),
    (lambda look: bool(look.first.rotation % 90), "turned by no right angle", Access.OPEN),
    (lambda look: not look.usual, "pixels are not square, or a cover comes first", Access.OPEN),
)
"""What forbids free seeking, the strictest first: the first rule that holds decides."""


def _access(look: _Look) -> tuple[Access, str]:
    """How frames can be reached exactly, and why not freely."""
    found = ((access, reason) for holds, reason, access in _RULES if holds(look))
    return next(found, (Access.CLOSED, ""))


def _crosses_key(packets: _Packets) -> bool:
    """Whether a frame stored after a key frame is shown before it."""
    last_key = None
    for time, key in zip(packets.times, packets.keys, strict=True):
        if key:
            last_key = time
        elif last_key is not None and time is not None and time < last_key:
            return True
    return False


def _frame_times(packets: _Packets) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    rows = list(zip(packets.times, packets.keys, packets.discarded, strict=True))
    times = sorted(time for time, _, gone in rows if time is not None and not gone)
    keys = sorted(time for time, key, _ in rows if time is not None and key)
    return np.array(times, np.int64), np.array(keys, np.int64)


def _is_usual(container: Any, stream: Any) -> bool:
    best = container.streams.best("video")
    return best is not None and best.index == stream.index and _pixel_shape(stream) == 1


def _pixel_shape(stream: Any) -> float:
    """Width of a pixel by its height; 1 where it is not said, about 1, or beyond belief."""
    shape = float(stream.sample_aspect_ratio or 1)
    return shape if _FLATTEST <= shape <= _WIDEST and abs(shape - 1) > _SQUARE else 1.0


def _square(width: int, height: int, shape: float) -> tuple[int, int]:
    """The size with square pixels: the longer side of a pixel is kept, so nothing is lost."""
    return (round(width * shape), height) if shape >= 1 else (width, round(height / shape))


def _notes(stream: Any, first: Any, packets: _Packets, size: tuple[int, int]) -> Iterator[str]:
    if packets.damaged:
        yield f"{packets.damaged} packets are damaged or were lost; frames that cannot be decoded are left out"
    if size != (first.width, first.height):
        yield f"pixels are not square: {first.width} x {first.height} stretched to {size[0]} x {size[1]}"
    if first.interlaced_frame:
        yield "interlaced: both fields of a frame are shown together"
    if name := _HDR.get(int(first.color_trc or 0)):
        yield f"HDR ({name}): brightness is not mapped to that of a usual screen"


def _count_frames(path: str, container: Any, stream: Any, damaged: bool) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Times by decoding everything; frames without a usable time are spaced by the rate."""
    if damaged:  # from a fresh decoder on one thread, as readers do: what it conceals must be the same
        with open_container(path) as fresh:
            chosen = video_stream(path, fresh)
            chosen.codec_context.thread_count = 1
            times = [frame.pts for frame in lenient_frames(fresh, chosen)]
    else:
        container.seek(0)
        times = [frame.pts for frame in container.decode(stream)]
    usable = None not in times and all(a < b for a, b in itertools.pairwise(times))
    step = 1 / (float(stream.average_rate or 25) * float(stream.time_base))
    spaced = np.round(np.arange(len(times)) * step).astype(np.int64)
    array = np.array(times, np.int64) if usable else spaced
    return array, array[:1]


def _mean_rate(times: NDArray[np.int64], stream: Any) -> float:
    span = float(times[-1] - times[0]) * float(stream.time_base)
    if len(times) > 1 and span > 0:
        return (len(times) - 1) / span
    return float(stream.average_rate or stream.base_rate or 25)
