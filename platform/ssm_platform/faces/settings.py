"""How faces are found and followed: the settings, and the detector they name."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from ssm_platform.faces.detectors import Detector, HaarDetector, YuNetDetector


class FaceSettings(BaseModel):
    """How faces are found and followed."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    detector: Literal["haar", "yunet"] = Field(default="haar", description="haar: OpenCV's own; yunet: needs `model`")
    model: Path | None = Field(default=None, description="ONNX file of YuNet")
    every: int = Field(default=5, ge=1, description="look in every n-th frame; interpolate between")
    search: int = Field(default=3, ge=1, description="every n-th look goes over the whole frame, others around faces")
    side: int = Field(default=480, ge=64, description="longer side in pixels to which a frame is shrunk for detection")
    smallest: float = Field(default=0.1, gt=0, lt=1, description="smallest face, as part of the frame's shorter side")
    max_gap: int = Field(default=10, ge=1, description="frames without a detection that a track survives and bridges")
    remember: int = Field(default=50, ge=1, description="frames after which a face seen again is somebody new")
    min_frames: int = Field(
        default=10, ge=1, description="frames a track must last to count; half the frames of shorter videos"
    )

    @model_validator(mode="after")
    def _consistent(self) -> FaceSettings:
        if self.max_gap < self.every:
            raise ValueError(f"max_gap {self.max_gap} < every {self.every}: a track would end between two detections")
        if self.remember < self.lookahead:
            raise ValueError(
                f"remember {self.remember} < lookahead {self.lookahead}: a face must outlast its own frames"
            )
        if (self.detector == "yunet") != (self.model is not None):
            raise ValueError(
                f"detector {self.detector!r} with model {self.model}: yunet, and only yunet, needs a model"
            )
        return self

    @property
    def lookahead(self) -> int:
        """Frames after which the faces of a frame are final."""
        return max(self.max_gap, self.min_frames) + self.every


def make_detector(settings: FaceSettings) -> Detector:
    """The detector of the settings; ValueError names a model file that is missing."""
    if settings.model is not None:
        return YuNetDetector(settings.model, settings.smallest)
    return HaarDetector(settings.smallest)
