"""Where the face crops of a record come from: three sources behind one interface, chosen once by `crop_source`.

* `DeliveredFiles`: a folder of the owner's own crops keeps even its encoded bytes; only larger ones are shrunk.
* `DeliveredVideo`: a video of the owner's own crops.
* `MainFaceCrops`: raw frames, out of which the main person's face is cut. They are read twice, once to follow all
  faces and once to cut, so that memory does not depend on the length of a record. A frame without a face keeps its
  place: it shows where the face was last, or will be first, and is marked.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Literal, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from ssm.interface import MARGIN, Alignment, FaceCrop
from ssm_platform.faces.detectors import Detector
from ssm_platform.faces.main_face import MainFace
from ssm_platform.faces.settings import FaceSettings
from ssm_platform.faces.squares import crop, resize
from ssm_platform.faces.tracker import TrackedFace, track
from ssm_platform.media import (
    Decoder,
    FaceMark,
    FrameSource,
    StoredFrame,
    UnreadableVideo,
    decode_image,
    encode_jpeg,
    load_image,
    open_frames,
    picture_only,
)
from ssm_platform.records import Kind, Record

_CHUNK = 16

OWNERS_CROPS: Mapping[str, frozenset[Kind]] = {
    "affectnet": frozenset({"frames"}),
    "affwild2_au": frozenset({"frames"}),
    "affwild2_expr": frozenset({"frames"}),
    "affwild2_mtl": frozenset({"frames"}),
    "affwild2_va": frozenset({"frames"}),
    "dfew": frozenset({"frames"}),
    "fer2013": frozenset({"frames", "pixels"}),
    "ferplus": frozenset({"frames", "pixels"}),
    "ferv39k": frozenset({"frames"}),
    "list_bp4d": frozenset({"frames"}),
    "list_disfa": frozenset({"frames"}),
    "list_fe": frozenset({"frames"}),
    "mafw": frozenset({"frames"}),
    "rafdb": frozenset({"frames"}),
}
"""What owners deliver as face crops already: corpus -> kinds of record. Everything else goes through detection."""

_FER_SQUARES = FaceCrop(source="detected", detector="haar", margin=0.05)
SQUARES: Mapping[str, FaceCrop] = {"fer2013": _FER_SQUARES, "ferplus": _FER_SQUARES}
"""Owners' crops that are squares like ours. FER-2013's faces were found with OpenCV (Goodfellow et al., 2013); the
margin is the median over its images, `python bench/faces.py --owner FOLDER`."""


class CropSettings(BaseModel):
    """How a stored frame is made."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    faces: FaceSettings = Field(default_factory=FaceSettings, description="how faces are found and followed")
    crops: Literal["auto", "always", "never"] = Field(
        default="auto", description="whether records are owners' face crops; auto: by the table of corpora"
    )
    size: int = Field(default=256, ge=32, le=16384, description="side of a stored crop in pixels")
    margin: float = Field(default=MARGIN, ge=0, le=2, description="part of the face's square added on each side")
    alignment: Alignment = Field(
        default="none", description="eyes: crops are turned so that the eyes are level, which needs yunet"
    )
    quality: int = Field(default=95, ge=50, le=100, description="JPEG quality of crops we make")
    min_face_share: float = Field(
        default=0.25, ge=0, le=1, description="share of frames with a face below which a clip is quarantined"
    )
    decoder: Decoder = Field(default="av", description="video decoder")


class CropSource(Protocol):
    """The face crops of one record."""

    @property
    def kind(self) -> FaceCrop:
        """What they are."""

    def frames(self) -> Iterator[StoredFrame]:
        """One per frame, ready to store. UnreadableVideo where files or faces cannot be used."""


def crop_source(record: Record, root: Path, corpus: str, settings: CropSettings, detector: Detector) -> CropSource:
    """The source of a record's crops: by what its owner ships, unless the settings say."""
    owners = _owners_crop(record.kind, corpus)
    if settings.crops == "never" or (settings.crops == "auto" and owners is None):
        return MainFaceCrops(record, root, settings, detector)
    delivered = DeliveredFiles if record.kind == "frames" else DeliveredVideo
    return delivered(record, root, settings, owners or FaceCrop(source="owner"))


def recorded_crop(kind: Kind, corpus: str, recorded: str | None) -> FaceCrop | None:
    """What the frames of a record of this kind are: as its manifest says, else by what owners ship; None: unknown."""
    if recorded is not None:
        return FaceCrop.parse(recorded)
    if kind == "shard":  # of before it was recorded
        return None
    return _owners_crop(kind, corpus) or FaceCrop(source="frame")


def _owners_crop(kind: Kind, corpus: str) -> FaceCrop | None:
    """What an owner's files are; None where they are no face crops."""
    return SQUARES.get(corpus, FaceCrop(source="owner")) if kind in OWNERS_CROPS.get(corpus, ()) else None


class DeliveredFiles:
    """The owner's crops, one file each."""

    def __init__(self, record: Record, root: Path, settings: CropSettings, kind: FaceCrop) -> None:
        self.kind = kind
        self._paths = [root / record.source / name for name in record.files or ()]
        self._settings = settings

    def frames(self) -> Iterator[StoredFrame]:
        shape: tuple[int, ...] | None = None
        for path in self._paths:
            data = load_image(path)
            image = decode_image(data, str(path))
            shape = shape or image.shape
            if image.shape != shape:
                raise UnreadableVideo(path, f"frames of one clip have one size; {image.shape[:2]} after {shape[:2]}")
            if max(shape) > self._settings.size or not _is_plain_jpeg(data):
                data = encode_jpeg(_limited(image, self._settings.size), self._settings.quality)
            else:
                data = picture_only(data, str(path))  # a phone's film behind it is no part of the crop
            yield StoredFrame(data, FaceMark.DELIVERED)


class DeliveredVideo:
    """The owner's crops as a video, or as files no byte of which is kept."""

    def __init__(self, record: Record, root: Path, settings: CropSettings, kind: FaceCrop) -> None:
        self.kind = kind
        self._record, self._root, self._settings = record, root, settings

    def frames(self) -> Iterator[StoredFrame]:
        with closing(open_frames(self._record, self._root, self._settings.decoder)) as source:
            for frame in _in_order(source):
                data = encode_jpeg(_limited(frame.image, self._settings.size), self._settings.quality)
                yield StoredFrame(data, FaceMark.DELIVERED)


class MainFaceCrops:
    """The main person's face in raw frames, of a folder or a video."""

    def __init__(self, record: Record, root: Path, settings: CropSettings, detector: Detector) -> None:
        self._record, self._root, self._settings, self._detector = record, root, settings, detector
        family = None if settings.faces.detector == "auto" else settings.faces.detector
        self.kind = FaceCrop(source="detected", detector=family, margin=settings.margin, alignment=settings.alignment)

    def frames(self) -> Iterator[StoredFrame]:
        settings = self._settings
        with closing(open_frames(self._record, self._root, settings.decoder)) as source:
            found = self._main_boxes(source)
            self._check_share(found)
            for frame, box, near in zip(_in_order(source), found, _nearest(found), strict=True):
                square = crop(frame.image, near, settings.margin, settings.size, settings.alignment)
                data = encode_jpeg(square, settings.quality)
                yield StoredFrame(data, FaceMark.NONE) if box is None else StoredFrame(data, FaceMark.FOUND, box[1:5])

    def _main_boxes(self, source: FrameSource) -> list[TrackedFace | None]:
        """The main person's face in every frame, None where there is none."""
        main, rows = MainFace(), list[tuple[TrackedFace, ...]]()
        for frame, faces in track(_in_order(source), self._settings.faces, self._detector):
            main.add(faces, *frame.image.shape[:2])
            rows.append(faces)
        wanted = set(main.ids())
        return [next((face for face in faces if face.face_id in wanted), None) for faces in rows]

    def _check_share(self, found: Sequence[TrackedFace | None]) -> None:
        share, least = sum(box is not None for box in found) / len(found), self._settings.min_face_share
        if share < least or not any(found):
            place, rule = self._root / self._record.source, f"min_face_share is {least:g}"
            raise UnreadableVideo(place, f"a face in {share:.0%} of {len(found)} frames; {rule}")


class _Image(NamedTuple):
    image: NDArray[np.uint8]


def _in_order(source: FrameSource) -> Iterator[_Image]:
    """All frames, a few at a time."""
    for first in range(0, source.length, _CHUNK):
        for image in source.read(range(first, min(first + _CHUNK, source.length))):
            yield _Image(image)


def _nearest(boxes: Sequence[TrackedFace | None]) -> list[TrackedFace]:
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
