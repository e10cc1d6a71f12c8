"""The frames of a record as they go into a shard: the main person's face cut out, or the owner's own crop as it is.

Raw frames are read twice: once to follow all faces, once to cut out the main one, so that memory does not depend on
the length of a record. A frame without a face keeps its place: it shows where the face was last, or will be first, and
is marked. Owners' crops keep even their encoded bytes; only those larger than the stored size are shrunk.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from ssm_platform.faces.detectors import Detector
from ssm_platform.faces.tracker import Face, FaceSettings, MainFace, crop, resize, track
from ssm_platform.media import (
    DEFAULT_DECODER,
    Decoder,
    FaceMark,
    StoredFrame,
    UnreadableVideo,
    decode_image,
    encode_jpeg,
    load_image,
    open_frames,
)
from ssm_platform.records import Kind, Record

_CHUNK = 16

OWNERS_CROPS: Mapping[str, frozenset[Kind]] = {
    "affectnet": frozenset({"frames"}),
    "affwild2_au": frozenset({"frames"}),
    "affwild2_expr": frozenset({"frames"}),
    "dfew": frozenset({"frames"}),
    "ferv39k": frozenset({"frames"}),
    "list_bp4d": frozenset({"frames"}),
    "list_disfa": frozenset({"frames"}),
    "list_fe": frozenset({"frames"}),
    "mafw": frozenset({"frames"}),
    "rafdb": frozenset({"frames"}),
}
"""What owners deliver as face crops already: corpus -> kinds of record. Everything else goes through detection."""


class CropSettings(BaseModel):
    """How a stored frame is made."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    faces: FaceSettings = Field(default_factory=FaceSettings, description="how faces are found and followed")
    crops: Literal["auto", "always", "never"] = Field(
        default="auto", description="whether records are owners' face crops; auto: by the table of corpora"
    )
    size: int = Field(default=256, ge=32, le=16384, description="side of a stored crop in pixels")
    margin: float = Field(default=0.25, ge=0, le=2, description="part of the face box added on each side")
    quality: int = Field(default=95, ge=50, le=100, description="JPEG quality of crops we make")
    min_face_share: float = Field(
        default=0.25, ge=0, le=1, description="share of frames with a face below which a clip is quarantined"
    )
    decoder: Decoder = Field(default=DEFAULT_DECODER, description="video decoder")


class _Image(NamedTuple):
    image: NDArray[np.uint8]


def stored_frames(
    record: Record, root: Path, corpus: str, settings: CropSettings, detector: Detector
) -> Iterator[StoredFrame]:
    """The frames of a record, ready to store. UnreadableVideo where its files or its faces cannot be used."""
    if not _is_crop(record, corpus, settings):
        return _cropped(record, root, settings, detector)
    if record.kind == "frames":
        return _delivered_files(record, root, settings)
    return _delivered_video(record, root, settings)


def _is_crop(record: Record, corpus: str, settings: CropSettings) -> bool:
    if settings.crops != "auto":
        return settings.crops == "always"
    return record.kind in OWNERS_CROPS.get(corpus, frozenset())


def _images(record: Record, root: Path, settings: CropSettings) -> Iterator[_Image]:
    """All frames of a record, a few at a time."""
    with closing(open_frames(record, root, settings.decoder)) as source:
        for first in range(0, record.length, _CHUNK):
            for image in source.read(range(first, min(first + _CHUNK, record.length))):
                yield _Image(image)


def _cropped(record: Record, root: Path, settings: CropSettings, detector: Detector) -> Iterator[StoredFrame]:
    found = _main_boxes(record, root, settings, detector)
    share = sum(box is not None for box in found) / record.length
    if share < settings.min_face_share or not any(found):
        rule = f"min_face_share is {settings.min_face_share:g}"
        raise UnreadableVideo(root / record.source, f"a face in {share:.0%} of {record.length} frames; {rule}")
    for frame, box, near in zip(_images(record, root, settings), found, _nearest(found), strict=True):
        data = encode_jpeg(crop(frame.image, near, settings.margin, settings.size), settings.quality)
        yield StoredFrame(data, FaceMark.NONE) if box is None else StoredFrame(data, FaceMark.FOUND, box[1:5])


def _main_boxes(record: Record, root: Path, settings: CropSettings, detector: Detector) -> list[Face | None]:
    """The main person's face in every frame, None where there is none."""
    main, rows = MainFace(), list[tuple[Face, ...]]()
    for frame, faces in track(_images(record, root, settings), settings.faces, detector):
        main.add(faces, *frame.image.shape[:2])
        rows.append(faces)
    wanted = set(main.ids())
    return [next((face for face in faces if face.face_id in wanted), None) for faces in rows]


def _nearest(boxes: Sequence[Face | None]) -> list[Face]:
    """Each frame's box, or that of the nearest frame in time that has one."""
    known = [number for number, box in enumerate(boxes) if box is not None]
    at = np.searchsorted(known, np.arange(len(boxes)))
    out = []
    for number, place in enumerate(at):
        candidates = known[max(place - 1, 0) : place + 1]
        box = boxes[min(candidates, key=lambda other: abs(other - number))]
        assert box is not None
        out.append(box)
    return out


def _delivered_files(record: Record, root: Path, settings: CropSettings) -> Iterator[StoredFrame]:
    shape: tuple[int, ...] | None = None
    for name in record.files or ():
        path = root / record.source / name
        data = load_image(path)
        image = decode_image(data, str(path))
        shape = shape or image.shape
        if image.shape != shape:
            raise UnreadableVideo(path, f"frames of one clip have one size; {image.shape[:2]} after {shape[:2]}")
        if max(shape) > settings.size or not _is_plain_jpeg(data):
            data = encode_jpeg(_limited(image, settings.size), settings.quality)
        yield StoredFrame(data, FaceMark.DELIVERED)


def _delivered_video(record: Record, root: Path, settings: CropSettings) -> Iterator[StoredFrame]:
    for frame in _images(record, root, settings):
        data = encode_jpeg(_limited(frame.image, settings.size), settings.quality)
        yield StoredFrame(data, FaceMark.DELIVERED)


def _is_plain_jpeg(data: bytes) -> bool:
    """JPEG without EXIF, whose orientation would have to be applied at every read."""
    return data.startswith(b"\xff\xd8") and b"Exif\0\0" not in data[:4096]


def _limited(image: NDArray[np.uint8], size: int) -> NDArray[np.uint8]:
    """The image, shrunk so that its longer side is at most `size`."""
    height, width = image.shape[:2]
    scale = size / max(height, width)
    if scale >= 1:
        return image
    return resize(image, max(1, round(width * scale)), max(1, round(height * scale)))
