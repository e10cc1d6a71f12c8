"""What is said between a replica and the process that decodes for it: a job there; facts, faces or a refusal back.

An upload is a job and needs no more; a camera's frames follow its job one by one, and each is answered. A message is
two lengths, a JSON head and raw bytes (a frame, or crops one after another). Numbers survive JSON exactly.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Sequence
from typing import Annotated, Any, BinaryIO, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

from serve.decoding.thumbnails import Thumbnail
from ssm.interface import Preprocessing
from ssm_platform.faces import Look, Square
from ssm_platform.media import InputInfo
from ssm_platform.read import AnalysisOptions, Face, FaceFrame

LENGTHS = struct.Struct("<II")
MOST_HEAD, MOST_BODY = 2**20, 2**28
"""Bytes of a head and of a body that are believed; more is a child gone wrong."""


class Work(BaseModel):
    """What a decoding process does, and what that may cost."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    options: AnalysisOptions = Field(description="how frames are read")
    preprocessing: Preprocessing = Field(description="how faces are cut out")
    cpu_s: float = Field(gt=0, description="CPU seconds; then the process is ended")
    memory_mib: int = Field(ge=1, description="memory beyond what the process starts with")
    threads: int = Field(ge=1, description="threads of OpenCV")


class Job(Work):
    """One upload to be decoded."""

    kind: Literal["upload"] = "upload"
    paths: tuple[str, ...] = Field(min_length=1, description="the files")
    frames: int = Field(ge=1, description="most frames of a video")
    thumbnails: int = Field(default=0, ge=0, description="small pictures of frames that are wanted, about so many")


class CameraJob(Work):
    """The frames of a camera, as they come."""

    kind: Literal["camera"] = "camera"


ANY_JOB: TypeAdapter[Job | CameraJob] = TypeAdapter(Annotated[Job | CameraJob, Field(discriminator="kind")])
"""A job as it arrives."""


def opened(info: InputInfo) -> bytes:
    """The first message: what the files are; the first frames are decoded by then."""
    return _packed({"info": info.model_dump(mode="json")})


def refused(status: int, message: str) -> bytes:
    """The files are refused, and this is the last message; or a camera's frame is, and the next may come."""
    return _packed({"refused": [status, message]})


def ended() -> bytes:
    """Everything was read; the last message."""
    return _packed({"end": True})


def faces(frames: Sequence[FaceFrame], **more: Any) -> bytes:
    """Some frames, reduced to their faces; `more` goes into the head."""
    crops = [face.crop for frame in frames for face in frame.faces]
    head = [[frame.number, frame.timestamp, frame.fresh, [*map(_plain, frame.faces)]] for frame in frames]
    facts = {"side": len(crops[0]) if crops else 0, "frames": head, **more}
    return _packed(facts, b"".join(crop.tobytes() for crop in crops))


def thumbnail(small: Thumbnail) -> bytes:
    """A small picture of a frame, before the faces of that frame."""
    return _packed({"thumbnail": small.frame}, small.jpeg)


def read_faces(head: dict[str, Any], body: bytes) -> list[FaceFrame]:
    """The frames of a message. ValueError where head and body do not fit together."""
    side, rows = int(head["side"]), head["frames"]
    count = sum(len(row[3]) for row in rows)
    crops: NDArray[np.uint8] = np.frombuffer(body, np.uint8).reshape(count, side, side, 3)
    left = iter(crops)
    return [
        FaceFrame(number, timestamp, [_face(face, next(left)) for face in found], fresh)
        for number, timestamp, fresh, found in rows
    ]


def frame(number: int, timestamp: float, data: bytes) -> bytes:
    """A camera's encoded frame, on its way to be looked at."""
    return _packed({"number": number, "timestamp": timestamp}, data)


def next_frame(stream: BinaryIO) -> tuple[int, float, bytes] | None:
    """The next frame of a camera; None at its end."""
    lengths = stream.read(LENGTHS.size)
    if len(lengths) < LENGTHS.size:
        return None
    text, body = LENGTHS.unpack(lengths)
    head = json.loads(stream.read(text))
    return int(head["number"]), float(head["timestamp"]), stream.read(body)


def looked(found: FaceFrame, width: int, height: int) -> bytes:
    """The faces of a camera's frame of this size."""
    return faces([found], size=(width, height))


def _plain(face: Face) -> list[Any]:
    return [face.face_id, face.box, face.score, face.square, face.look]


def _face(plain: list[Any], crop: NDArray[np.uint8]) -> Face:
    who, box, score, square, look = plain
    return Face(who, _box(box), score, crop, Square(*square), None if look is None else Look(*look))


def _box(values: Sequence[float]) -> tuple[float, float, float, float]:
    x, y, width, height = values
    return x, y, width, height


def _packed(head: dict[str, Any], body: bytes = b"") -> bytes:
    text = json.dumps(head, separators=(",", ":")).encode()
    return LENGTHS.pack(len(text), len(body)) + text + body
