"""What was found drawn on what was read: boxes, likeliest expression, AUs present. A second pass, streamed."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from itertools import groupby
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from ssm.labels import Vocabulary
from ssm_platform.base import part_path
from ssm_platform.faces import blurred
from ssm_platform.media import Pictures, Video, encode_jpeg
from ssm_platform.read.tables import iterate_table

_COLOUR = (127, 212, 240)
_QUALITY = 92
_DARK = (16, 32, 42)


def overlay_ending(source: Video | Pictures) -> str:
    """What the overlay's name ends in: a video's is a video, a picture's a picture."""
    return ".overlay.mp4" if isinstance(source, Video) else ".overlay.jpg"


def write_overlay(
    source: Video | Pictures, table: Path, vocabulary: Vocabulary, target: Path, *, blur: bool = False
) -> Path:
    """As large as what was read; appears whole or not at all. `blur`: the faces that were read are hidden."""
    if isinstance(source, Video):
        return _write_video(source, table, vocabulary, target, blur)
    by_frame = groupby(iterate_table(table), key=lambda row: int(row["frame"]))
    part = part_path(target, ".jpg")
    try:
        image, rows = next(_paired(source, by_frame))
        part.write_bytes(encode_jpeg(_draw(image, rows, vocabulary, blur), _QUALITY))
        part.replace(target)
    finally:
        part.unlink(missing_ok=True)
    return target


def _write_video(video: Video, table: Path, vocabulary: Vocabulary, target: Path, blur: bool) -> Path:
    """H.264 in MP4; odd sides lose a pixel."""
    import av

    info, part = video.facts, part_path(target, ".mp4")
    by_frame = groupby(iterate_table(table), key=lambda row: int(row["frame"]))
    try:
        with av.open(str(part), "w", format="mp4") as container:
            stream = container.add_stream("libx264", rate=Fraction(info.rate or 25).limit_denominator(60_000))
            stream.width, stream.height, stream.pix_fmt = info.width // 2 * 2, info.height // 2 * 2, "yuv420p"
            for image, rows in _paired(video, by_frame):
                drawn = _draw(image, rows, vocabulary, blur)[: stream.height, : stream.width]
                container.mux(stream.encode(av.VideoFrame.from_ndarray(drawn, format="rgb24")))
            container.mux(stream.encode())
        part.replace(target)
    finally:
        part.unlink(missing_ok=True)
    return target


def _paired(source: Video | Pictures, by_frame: Any) -> Iterator[tuple[NDArray[np.uint8], list[dict[str, Any]]]]:
    for (_, _, image), (_, rows) in zip(source.frames(), by_frame, strict=True):
        yield image, list(rows)


def _draw(
    image: NDArray[np.uint8], rows: list[dict[str, Any]], vocabulary: Vocabulary, blur: bool
) -> NDArray[np.uint8]:
    rows = [row for row in rows if row["success"] == 1]
    boxes = [(row["FaceRectX"], row["FaceRectY"], row["FaceRectWidth"], row["FaceRectHeight"]) for row in rows]
    canvas = np.ascontiguousarray(blurred(image, boxes) if blur else image.copy())
    scale = max(0.4, min(canvas.shape[:2]) / 900)
    for row in rows:
        left, top = int(row["FaceRectX"]), int(row["FaceRectY"])
        right, bottom = left + int(row["FaceRectWidth"]), top + int(row["FaceRectHeight"])
        cv2.rectangle(canvas, (left, top), (right, bottom), _COLOUR, max(1, round(2 * scale)))
        _text(canvas, f"{int(row['face_id'])}{_likeliest(row, vocabulary)}", left, top - 6, scale)
        present = [code for code in vocabulary.au_codes if row[f"{code}_c"] == 1]
        _text(canvas, " ".join(code.removeprefix("AU") for code in present), left, bottom + round(24 * scale), scale)
    return canvas


def _likeliest(row: dict[str, Any], vocabulary: Vocabulary) -> str:
    """The likeliest expression, where any is named."""
    if not vocabulary.expressions:
        return ""
    name = max(vocabulary.expressions, key=lambda expression: row[expression])
    return f" {name} {row[name]:.0%}"


def _text(canvas: NDArray[np.uint8], text: str, left: int, base: int, scale: float) -> None:
    for colour, width in ((_DARK, 4), (_COLOUR, 1)):
        place = (max(0, left), max(12, base))
        cv2.putText(canvas, text, place, cv2.FONT_HERSHEY_SIMPLEX, 0.8 * scale, colour, width, cv2.LINE_AA)
