"""What a person hands in, opened at the edge: one video, or pictures; checked by headers before anything is decoded.

Types are told from the bytes, never from names. Only containers of the list below are opened, so a playlist or a
concatenation script inside an upload cannot make the decoder read other files or addresses. A picture is a video of one
frame: nothing is tracked or smoothed from one picture to the next. ValueErrors name the file and the reason.

Defined answers: sideways video and EXIF orientation are turned upright; grey becomes three equal channels; alpha is
dropped; one frame is enough; no video stream, an unknown codec and a truncated file are refused (`UnreadableVideo`).
"""

from __future__ import annotations

import io
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from ssm_platform.media.errors import UnreadableVideo
from ssm_platform.media.formats import HEAD, in_words, picture_format
from ssm_platform.media.images import decode_image, heif_size, load_image
from ssm_platform.media.jpeg import is_damaged, picture_end
from ssm_platform.media.video import InputInfo, Pictures, Video, open_video
from ssm_platform.media.video_index import open_container, read_head, video_stream

VIDEO_ENDINGS = (
    ".mp4",
    ".mov",
    ".m4v",
    ".mkv",
    ".webm",
    ".avi",
    ".mpg",
    ".mpeg",
    ".ts",
    ".flv",
    ".wmv",
    ".3gp",
    ".3g2",
    ".ogv",
    ".mts",
    ".m2ts",
    ".vob",
    ".mxf",
    ".asf",
    ".gif",
)
PICTURE_ENDINGS = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".heic", ".heif", ".avif")
"""File names that are taken from a folder."""

_SIDE = 32_768
_ORIENTATION = 0x0112  # EXIF


class TooLarge(ValueError):
    """The input is more than the limits allow; the message names value and limit."""


class InputLimits(BaseModel):
    """What is accepted; checked against headers, and against the frames as they come."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    pixels: int | None = Field(default=None, ge=1, description="most pixels of a frame or picture; None: no limit")
    seconds: float | None = Field(default=None, gt=0, description="longest video; None: no limit")
    pictures: int | None = Field(default=None, ge=1, description="most pictures; None: no limit")


def open_input(paths: Sequence[Path], decoder: str, limits: InputLimits) -> Video | Pictures:
    """Read headers, hold them against the limits, open. `UnreadableVideo` or `TooLarge`, both ValueErrors."""
    kinds = [picture_format(read_head(path)) for path in paths]
    if len(paths) == 1 and kinds[0] is None:
        return _open_video(paths[0], decoder, limits)
    if limits.pictures is not None and len(paths) > limits.pictures:
        raise TooLarge(f"{len(paths)} pictures: at most {limits.pictures} are accepted")
    for path, kind in zip(paths, kinds, strict=True):
        if kind is None:
            told = in_words(read_head(path))
            what = f"not a picture but {told}" if told else "not a picture"
            raise UnreadableVideo(path, f"{what}; hand in one video, or pictures only")
    looks = [_look_at(path, str(kind), limits) for path, kind in zip(paths, kinds, strict=True)]
    first = looks[0]
    facts = InputInfo(
        kind="pictures",
        frames=len(paths),
        rate=None,
        width=first.width,
        height=first.height,
        rotation=first.rotation,
        decoder="libheif" if kinds[0] == "HEIF" else "opencv",
        notes=tuple(f"{path.name}: {look.note}" for path, look in zip(paths, looks, strict=True) if look.note),
    )
    return Pictures(tuple(paths), facts)


def decode_frame(data: bytes, limits: InputLimits) -> NDArray[np.uint8]:
    """A camera's frame, JPEG or WebP, as (H, W, 3) RGB; its header is held against the limits before it is decoded."""
    kind = picture_format(data[:HEAD])
    if kind not in ("JPEG", "WEBP"):
        told = kind or in_words(data[:HEAD]) or f"{len(data)} bytes of something else"
        raise UnreadableVideo("frame", f"JPEG or WebP are read, this is {told}")
    (width, height), _ = _size_and_turn(io.BytesIO(data), kind, "frame")
    _check_pixels("frame", width, height, limits)
    return decode_image(data, "frame")


def _open_video(path: Path, decoder: str, limits: InputLimits) -> Video:
    _check_header(path, limits)
    video = open_video(path, decoder, limits.pixels)
    info = video.index.info
    _check_seconds(path, info.frames / info.rate, limits)
    return video


def _check_header(path: Path, limits: InputLimits) -> None:
    """Container, size and length as the file's header gives them."""
    from av.error import FFmpegError

    try:
        with open_container(str(path), limits.pixels) as container:
            _check_stream(path, video_stream(str(path), container), container.duration, limits)
    except FFmpegError as error:
        told = in_words(read_head(path))
        raise UnreadableVideo(path, f"no video that can be read ({told or error.strerror or error})") from error


def _check_stream(path: Path, stream: Any, duration: int | None, limits: InputLimits) -> None:
    width, height = stream.codec_context.width, stream.codec_context.height
    if not width and limits.pixels is not None:
        raise TooLarge(f"{path}: no frame of at most {limits.pixels} pixels could be decoded")
    if not 0 < width <= _SIDE or not 0 < height <= _SIDE:
        raise UnreadableVideo(path, f"the header says {width} x {height} pixels")
    _check_pixels(path, width, height, limits)
    _check_seconds(path, (duration or 0) / 1e6, limits)


@dataclass(frozen=True)
class _Look:
    """What a picture's header says: size and turn of the upright picture, and what is odd about it."""

    width: int
    height: int
    rotation: int
    note: str


_TURNS = {3: 180, 4: 180, 5: 270, 6: 270, 7: 90, 8: 90}
"""EXIF orientation -> degrees counter-clockwise by which the picture is turned."""


def _look_at(path: Path, kind: str, limits: InputLimits) -> _Look:
    """From the header; a JPEG is also looked through for damage, which its decoder would paint over."""
    if kind in ("HEIF", "AVIF"):
        (width, height), turn = heif_size(load_image(path), kind, str(path)), 0
    else:
        (width, height), turn = _size_and_turn(path, kind, path)
    _check_pixels(path, width, height, limits)
    return _Look(width, height, turn, _damage(path) if kind == "JPEG" else "")


def _size_and_turn(source: Path | BinaryIO, kind: str, path: Path | str) -> tuple[tuple[int, int], int]:
    """Size of the upright picture, and the degrees by which it is turned for that; `path` is what errors call it."""
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(source, formats=[kind]) as image:
            width, height = image.size
            turn = _TURNS.get(image.getexif().get(_ORIENTATION, 1), 0)
    except (UnidentifiedImageError, OSError, EOFError, ValueError, SyntaxError, struct.error) as error:
        raise UnreadableVideo(path, f"not a {kind} picture that can be read") from error
    except Image.DecompressionBombError as error:
        raise TooLarge(f"{path}: a picture of far too many pixels") from error
    return ((height, width) if turn % 180 else (width, height)), turn


def _damage(path: Path) -> str:
    data = load_image(path)
    end = picture_end(data)
    if end is None or not is_damaged(data[:end]):  # a cut one is refused where it is decoded
        return ""
    return "damaged inside: part of the picture is not what was taken"


def _check_pixels(path: Path | str, width: int, height: int, limits: InputLimits) -> None:
    if limits.pixels is not None and width * height > limits.pixels:
        raise TooLarge(f"{path}: {width} x {height} pixels, at most {limits.pixels} in all are accepted")


def _check_seconds(path: Path, seconds: float, limits: InputLimits) -> None:
    if limits.seconds is not None and seconds > limits.seconds:
        raise TooLarge(f"{path}: {seconds:.1f} s long, at most {limits.seconds:g} s are accepted")
