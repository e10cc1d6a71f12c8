"""How faces are found and followed: the settings, and the detector they name.

`auto`, the default, is YuNet where its file is to be had, else the cascade, with one line that says what to do.
`resolved` decides that once, so that workers, answers and identities of outputs name the detector that was used.
"""

from __future__ import annotations

import logging
import threading
from functools import lru_cache
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from ssm_platform.faces.detectors import Detector, HaarDetector, YuNetDetector
from ssm_platform.faces.embedding import Embedder, SFace
from ssm_platform.faces.hub import SFACE, YUNET, NoModel, find

LOG = logging.getLogger(__name__)


class FaceSettings(BaseModel):
    """How faces are found and followed."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    detector: Literal["auto", "haar", "yunet"] = Field(
        default="auto", description="haar: OpenCV's own cascade; auto: yunet where its file is to be had, else haar"
    )
    model: Path | None = Field(default=None, description="ONNX file of YuNet; null: from the hub or its cache")
    identity: Literal["track", "sface"] = Field(
        default="track", description="track: ids end at cuts; sface: a face seen again is recognised by SFace"
    )
    embedding: Path | None = Field(default=None, description="ONNX file of SFace; null: from the hub or its cache")
    every: int = Field(default=5, ge=1, description="look in every n-th frame; interpolate between")
    search: int = Field(default=3, ge=1, description="every n-th look goes over the whole frame, others around faces")
    side: int = Field(default=480, ge=64, description="longer side in pixels to which a frame is shrunk for detection")
    smallest: float = Field(default=0.1, gt=0, lt=1, description="smallest face, as part of the frame's shorter side")
    max_gap: int = Field(default=10, ge=1, description="frames without a detection that a track survives and bridges")
    remember: int = Field(default=50, ge=1, description="frames after which a face seen again is somebody new")
    min_frames: int = Field(
        default=10, ge=1, description="frames a track must last to count; half the frames of shorter videos"
    )

    @field_validator("model", "embedding")
    @classmethod
    def _absolute(cls, path: Path | None) -> Path | None:
        """As seen from where the settings are made: workers and decoding processes stand elsewhere."""
        return None if path is None else path.expanduser().absolute()

    @model_validator(mode="after")
    def _consistent(self) -> FaceSettings:
        if self.max_gap < self.every:
            raise ValueError(f"max_gap {self.max_gap} < every {self.every}: a track would end between two detections")
        if self.remember < self.lookahead:
            raise ValueError(
                f"remember {self.remember} < lookahead {self.lookahead}: a face must outlast its own frames"
            )
        if self.detector == "haar" and (self.model is not None or self.identity == "sface"):
            raise ValueError("detector 'haar' takes no model, and tells no points, which identity 'sface' needs")
        if self.identity == "track" and self.embedding is not None:
            raise ValueError(f"embedding {self.embedding} with identity 'track': only identity 'sface' has one")
        return self

    @property
    def lookahead(self) -> int:
        """Frames after which the faces of a frame are final."""
        return max(self.max_gap, self.min_frames) + self.every


def resolved(settings: FaceSettings) -> FaceSettings:
    """The same with a detector that is named, and the files it needs. ValueError where what is asked for is absent."""
    changes: dict[str, object] = {}
    if settings.detector != "haar" and settings.model is None:
        model = find(YUNET) if settings.detector == "yunet" or settings.identity == "sface" else _yunet()
        changes = {"model": model, "detector": "haar" if model is None else "yunet"}
    elif settings.detector == "auto":
        changes = {"detector": "yunet"}
    if settings.identity == "sface" and settings.embedding is None:
        changes["embedding"] = find(SFACE)
    return settings.model_copy(update=changes)


def decided(settings: FaceSettings) -> FaceSettings:
    """The same with a detector that is named; every machine then finds its own copy of the files it needs."""
    return settings.model_copy(update={"detector": resolved(settings).detector})


def make_detector(settings: FaceSettings) -> Detector:
    """The detector of the settings; ValueError names a model file that is missing."""
    settings = resolved(settings)
    if settings.model is not None:
        return YuNetDetector(settings.model, settings.smallest)
    return HaarDetector(settings.smallest)


def make_embedder(settings: FaceSettings) -> Embedder | None:
    """What recognises a face seen again; None where ids end at cuts."""
    if settings.identity == "track":
        return None
    embedding = resolved(settings).embedding
    assert embedding is not None
    return _sface(embedding, threading.get_ident())


@lru_cache(maxsize=2)
def _sface(embedding: Path, thread: int) -> SFace:
    """The network, loaded once for the videos that a thread reads: it is 38 MB."""
    return SFace(embedding)


@lru_cache(maxsize=1)
def _yunet() -> Path | None:
    """YuNet's file, looked for once a process; None where it is not to be had, which is said once."""
    try:
        return find(YUNET)
    except NoModel as error:
        LOG.warning("faces are found by OpenCV's cascade, which misses turned heads, since YuNet is absent: %s", error)
        return None
