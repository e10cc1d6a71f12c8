"""What is said between a replica and the process that decodes for it: a job there; facts, faces or a refusal back.

A message is two lengths, a JSON head and raw bytes (the crops, one after another). Numbers survive JSON exactly.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from ssm.interface import Preprocessing
from ssm_platform.faces import Look
from ssm_platform.media import InputInfo
from ssm_platform.read import AnalysisOptions, Face, FaceFrame

LENGTHS = struct.Struct("<II")
MOST_HEAD, MOST_BODY = 2**20, 2**28
"""Bytes of a head and of a body that are believed; more is a child gone wrong."""


class Job(BaseModel):
    """One upload to be decoded, and what that may cost."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    paths: tuple[str, ...] = Field(min_length=1, description="the files")
    options: AnalysisOptions = Field(description="how they are read")
    preprocessing: Preprocessing = Field(description="how faces are cut out")
    frames: int = Field(ge=1, description="most frames of a video")
    cpu_s: float = Field(gt=0, description="CPU seconds; then the process is ended")
    memory_mib: int = Field(ge=1, description="memory beyond what the process starts with")
    threads: int = Field(ge=1, description="threads of OpenCV")


def opened(info: InputInfo) -> bytes:
    """The first message: what the files are; the first frames are decoded by then."""
    return _packed({"info": info.model_dump(mode="json")})


def refused(status: int, message: str) -> bytes:
    """The files are refused; the last message."""
    return _packed({"refused": [status, message]})


def ended() -> bytes:
    """Everything was read; the last message."""
    return _packed({"end": True})


def faces(frames: Sequence[FaceFrame]) -> bytes:
    """Some frames, reduced to their faces."""
    crops = [face.crop for frame in frames for face in frame.faces]
    head = [[frame.number, frame.timestamp, frame.fresh, [*map(_plain, frame.faces)]] for frame in frames]
    return _packed({"side": len(crops[0]) if crops else 0, "frames": head}, b"".join(crop.tobytes() for crop in crops))


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


def _plain(face: Face) -> list[Any]:
    return [face.face_id, face.box, face.score, face.look]


def _face(plain: list[Any], crop: NDArray[np.uint8]) -> Face:
    who, box, score, look = plain
    return Face(who, _box(box), score, crop, None if look is None else Look(*look))


def _box(values: Sequence[float]) -> tuple[float, float, float, float]:
    x, y, width, height = values
    return x, y, width, height


def _packed(head: dict[str, Any], body: bytes = b"") -> bytes:
    text = json.dumps(head, separators=(",", ":")).encode()
    return LENGTHS.pack(len(text), len(body)) + text + body
