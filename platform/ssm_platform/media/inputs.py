"""What a person hands in, opened at the edge: one video, or pictures; checked by headers before anything is decoded.

Types are told from the bytes, never from names. Only containers of the list below are opened, so a playlist or a
concatenation script inside an upload cannot make the decoder read other files or addresses. A picture is a video of one
frame: nothing is tracked or smoothed from one picture to the next. ValueErrors name the file and the reason.

Defined answers: sideways video and EXIF orientation are turned upright; grey becomes three equal channels; alpha is
dropped; one frame is enough; no video stream, an unknown codec and a truncated file are refused (`UnreadableVideo`).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from ssm_platform.media.video import InputInfo, Pictures, Video, open_video
from ssm_platform.media.video_index import UnreadableVideo, open_container, video_stream

CONTAINERS = ("mov", "mp4", "3gp", "matroska", "webm", "avi", "mpegts", "mpeg", "flv", "asf", "ogg", "gif", "mxf")
"""FFmpeg's names of the containers that are opened."""

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
    ".ogv",
)
PICTURE_ENDINGS = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff")
"""File names that are taken from a folder."""

_PICTURES = {b"\xff\xd8\xff": "JPEG", b"\x89PNG": "PNG", b"BM": "BMP", b"II*\0": "TIFF", b"MM\0*": "TIFF"}
_SIDE = 32_768


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
    kinds = [_picture_format(path) for path in paths]
    if len(paths) == 1 and kinds[0] is None:
        return _open_video(paths[0], decoder, limits)
    if limits.pictures is not None and len(paths) > limits.pictures:
        raise TooLarge(f"{len(paths)} pictures: at most {limits.pictures} are accepted")
    for path, kind in zip(paths, kinds, strict=True):
        if kind is None:
            raise UnreadableVideo(path, "not a picture; hand in one video, or pictures only")
    sizes = [_picture_size(path, str(kind), limits) for path, kind in zip(paths, kinds, strict=True)]
    width, height = sizes[0]
    facts = InputInfo(
        kind="pictures", frames=len(paths), rate=None, width=width, height=height, rotation=0, decoder="opencv"
    )
    return Pictures(tuple(paths), facts)


def _open_video(path: Path, decoder: str, limits: InputLimits) -> Video:
    _check_header(path, limits)
    video = open_video(path, decoder, limits.pixels)
    info = video.index.info
    _check_seconds(path, info.frames / info.rate, limits)
    return video


def _check_header(path: Path, limits: InputLimits) -> None:
    """Container, size and length as the file's header gives them."""
    from av.error import FFmpegError

    lists = {"format_whitelist": ",".join(CONTAINERS), "protocol_whitelist": "file"}
    try:
        with open_container(str(path), limits.pixels, **lists) as container:
            _check_stream(path, video_stream(str(path), container), container.duration, limits)
    except FFmpegError as error:
        raise UnreadableVideo(path, f"no video that can be read ({error.strerror or error})") from error


def _check_stream(path: Path, stream: Any, duration: int | None, limits: InputLimits) -> None:
    width, height = stream.codec_context.width, stream.codec_context.height
    if not width and limits.pixels is not None:
        raise TooLarge(f"{path}: no frame of at most {limits.pixels} pixels could be decoded")
    if not 0 < width <= _SIDE or not 0 < height <= _SIDE:
        raise UnreadableVideo(path, f"the header says {width} x {height} pixels")
    _check_pixels(path, width, height, limits)
    _check_seconds(path, (duration or 0) / 1e6, limits)


def _picture_format(path: Path) -> str | None:
    """The format of a picture by its first bytes; None for anything else."""
    try:
        with path.open("rb") as file:
            start = file.read(12)
    except OSError as error:
        raise UnreadableVideo(path, error.strerror or "cannot be opened") from error
    if not start:
        raise UnreadableVideo(path, "the file is empty")
    if start[:4] == b"RIFF" and start[8:12] == b"WEBP":
        return "WEBP"
    return next((name for magic, name in _PICTURES.items() if start.startswith(magic)), None)


def _picture_size(path: Path, kind: str, limits: InputLimits) -> tuple[int, int]:
    """Width and height from the header alone."""
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(path, formats=[kind]) as image:
            width, height = image.size
    except (UnidentifiedImageError, OSError, ValueError, SyntaxError) as error:
        raise UnreadableVideo(path, f"not a {kind} picture that can be read") from error
    except Image.DecompressionBombError as error:
        raise TooLarge(f"{path}: a picture of far too many pixels") from error
    _check_pixels(path, width, height, limits)
    return width, height


def _check_pixels(path: Path, width: int, height: int, limits: InputLimits) -> None:
    if limits.pixels is not None and width * height > limits.pixels:
        raise TooLarge(f"{path}: {width} x {height} pixels, at most {limits.pixels} in all are accepted")


def _check_seconds(path: Path, seconds: float, limits: InputLimits) -> None:
    if limits.seconds is not None and seconds > limits.seconds:
        raise TooLarge(f"{path}: {seconds:.1f} s long, at most {limits.seconds:g} s are accepted")
