"""From RGB frames to the model's input: one geometry and one normalisation.

Training's validation, the command line, notebooks and HTTP all go through `center` and `normalise`, so that a saved
model's `Preprocessing` (and its `fingerprint`) says exactly what it saw. Training's random
warp is `ssm.training.augmentation`. Knows no file, no detector and no label.
Letters: N frames, B clips, T frames of a clip, H W pixels, S side of the model's square input.
"""

from __future__ import annotations

import hashlib
import json
from functools import lru_cache
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

import cv2
import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, model_validator

from ssm.interface.crops import FaceCrop

if TYPE_CHECKING:  # decode processes crop and warp without loading torch: seconds and hundreds of MB each
    import torch
    from torch import Tensor

Frames = NDArray[np.uint8]

CODE_VERSION = 1
"""Goes into every fingerprint: raise it when `center` or `normalise` gives other numbers for the same config."""

CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)

LUMINANCE = (0.299, 0.587, 0.114)
"""Shares of R, G and B in a grey picture (ITU-R BT.601, as in JPEG and OpenCV)."""

AREA_FROM = 2.0
"""Below this reduction bilinear does not alias visibly and costs a fifth of area averaging."""

_FLAT = 1.0  # grey levels added to a frame's deviation: a frame of one colour has none

Positive = Annotated[float, Field(gt=0)]


class Preprocessing(BaseModel):
    """How a frame becomes the model's input; saved with every model and compared by `fingerprint`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    image_size: int = Field(default=224, ge=8, le=2048, description="side S of the square input in pixels")
    resize: int | None = Field(
        default=None,
        ge=8,
        le=4096,
        description="the shorter side becomes this before the S x S centre is cut; None: S, the largest centred square",
    )
    interpolation: Literal["auto", "linear", "area"] = Field(
        default="auto", description="filter of the evaluation geometry; auto: area from a reduction by 2, else linear"
    )
    mean: tuple[float, float, float] = Field(default=CLIP_MEAN, description="RGB mean taken off, in units of [0, 1]")
    std: tuple[Positive, Positive, Positive] = Field(default=CLIP_STD, description="RGB deviation divided by")
    grey: bool = Field(
        default=False,
        description="every colour channel becomes the luminance: for models that learned from grey pictures",
    )
    standardise: bool = Field(
        default=False,
        description="each frame is brought to mean 0 and deviation 1 first, so that light and contrast are no news; "
        "mean and std are then in units of that deviation",
    )
    crop: FaceCrop | None = Field(default=None, description="the face crops its frames are; null: not recorded")

    @model_validator(mode="after")
    def _room_to_cut(self) -> Self:
        if self.resize is not None and self.resize < self.image_size:
            raise ValueError(f"resize is {self.resize}: it must be at least image_size, {self.image_size}")
        return self

    def fingerprint(self) -> str:
        """SHA-256 (hex) of the canonical JSON of all fields and the code version: equal means equal pixels."""
        content = {"code_version": CODE_VERSION, **self.model_dump(mode="json")}
        content["resize"] = self.resize or self.image_size
        if self.crop is None:  # models of before it was recorded keep their fingerprint
            del content["crop"]
        for name in ("grey", "standardise"):  # as above
            if not content[name]:
                del content[name]
        canonical = json.dumps(content, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(canonical.encode()).hexdigest()


def center(frames: Frames, preprocessing: Preprocessing) -> Frames:
    """The evaluation geometry: uint8 RGB N H W 3 -> N S S 3, the centre of each frame, never stretched."""
    check_frames(frames)
    size = preprocessing.image_size
    height, width = frames.shape[1:3]
    side = max(1, round(min(height, width) * size / (preprocessing.resize or size)))
    top, left = (height - side) // 2, (width - side) // 2
    cut = frames[:, top : top + side, left : left + side]
    if side == size:
        return np.ascontiguousarray(cut)
    filter_ = _filter(preprocessing.interpolation, side / size)
    out = np.empty((len(frames), size, size, 3), np.uint8)
    for source, target in zip(cut, out, strict=True):
        cv2.resize(source, (size, size), dst=target, interpolation=filter_)
    return out


def normalise(clips: Tensor, preprocessing: Preprocessing, dtype: torch.dtype | None = None) -> Tensor:
    """uint8 RGB B T H W 3 on any device -> (x / 255 - mean) / std as contiguous B T 3 H W of `dtype` (float32).

    With `grey`, x is first the luminance in all three channels; with `standardise`, x / 255 gives way to
    (x - m) / (s + 1), m and s the mean and the deviation of the frame's values.
    """
    import torch

    if clips.dtype != torch.uint8 or clips.ndim != 5 or clips.shape[-1] != 3:
        raise ValueError(f"clips must be uint8 B T H W 3, got {clips.dtype} {tuple(clips.shape)}")
    units = 1 if preprocessing.standardise else 255
    scale_C11, shift_C11 = _affine(preprocessing.mean, preprocessing.std, units, clips.device)
    # Convert and transpose in one copy, then in place: half the time of permuting lazily (measured on CPU).
    planes = clips.permute(0, 1, 4, 2, 3).to(torch.float32, memory_format=torch.contiguous_format)
    if preprocessing.grey:
        red, green, blue = (share * planes[:, :, each : each + 1] for each, share in enumerate(LUMINANCE))
        planes = red + green + blue
    if preprocessing.standardise:
        frames = planes.flatten(2)
        mean = frames.mean(-1, keepdim=True)
        deviation = torch.linalg.vector_norm(frames.sub_(mean), dim=-1, keepdim=True) / frames.shape[-1] ** 0.5
        frames.div_(deviation + _FLAT)
    planes = planes.expand(-1, -1, 3, -1, -1) * scale_C11 if preprocessing.grey else planes.mul_(scale_C11)
    return planes.add_(shift_C11).to(dtype or torch.float32)


@lru_cache(maxsize=64)
def _affine(mean: tuple[float, ...], std: tuple[float, ...], units: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Factor and summand of each colour (3 1 1), copied to the device once: a copy would wait for a GPU."""
    import torch

    with torch.inference_mode(False):
        scale = torch.tensor([1 / (units * each) for each in std], device=device)
        shift = torch.tensor([-middle / each for middle, each in zip(mean, std, strict=True)], device=device)
    return scale.view(3, 1, 1), shift.view(3, 1, 1)


def check_frames(frames: Any) -> None:
    """ValueError unless these are uint8 RGB frames N H W 3."""
    if not isinstance(frames, np.ndarray) or frames.dtype != np.uint8:
        raise ValueError(f"frames must be a uint8 array, got {getattr(frames, 'dtype', type(frames).__name__)}")
    if frames.ndim != 4 or frames.shape[-1] != 3 or 0 in frames.shape[1:]:
        raise ValueError(f"frames must be RGB of shape N H W 3, got shape {frames.shape}")


def _filter(interpolation: str, reduction: float) -> int:
    area = interpolation == "area" or (interpolation == "auto" and reduction >= AREA_FROM)
    # OpenCV's area filter means nothing when enlarging
    return int(cv2.INTER_AREA if area and reduction > 1 else cv2.INTER_LINEAR)
