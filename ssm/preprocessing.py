"""From RGB frames to the model's input: one geometry for evaluation, one random warp for training, one normalisation.

Training's validation, the command line, notebooks and HTTP all go through `center` and `normalise`, so that a saved
model's `Preprocessing` (and its `fingerprint`) says exactly what it saw. `augment` is a pure function of its seed: one
draw per clip, the same for all its frames (method, section 6). Knows no file, no detector and no label.
Letters: N frames, B clips, T frames of a clip, H W pixels, S side of the model's square input.
"""

from __future__ import annotations

import hashlib
import json
import math
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

import cv2
import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, model_validator

if TYPE_CHECKING:  # decode processes crop and warp without loading torch: seconds and hundreds of MB each
    import torch
    from torch import Tensor

Frames = NDArray[np.uint8]

CODE_VERSION = 1
"""Goes into every fingerprint: raise it when `center` or `normalise` gives other numbers for the same config."""

CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)

_AREA_FROM = 2.0  # below this reduction bilinear does not alias visibly and costs a fifth of area averaging

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

    @model_validator(mode="after")
    def _room_to_cut(self) -> Self:
        if self.resize is not None and self.resize < self.image_size:
            raise ValueError(f"resize is {self.resize}: it must be at least image_size, {self.image_size}")
        return self

    def fingerprint(self) -> str:
        """SHA-256 (hex) of the canonical JSON of all fields and the code version: equal means equal pixels."""
        content = {"code_version": CODE_VERSION, **self.model_dump(mode="json")}
        content["resize"] = self.resize or self.image_size
        canonical = json.dumps(content, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(canonical.encode()).hexdigest()


class Augmentation(BaseModel):
    """The ranges of one random warp per clip. Sizes are relative, so the resolution of the frames does not matter."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    scale: tuple[float, float] = Field(default=(1.0, 1.0), description="least and greatest share of the area cut out")
    ratio: tuple[float, float] = Field(default=(1.0, 1.0), description="least and greatest width / height of the cut")
    flip: float = Field(default=0.0, ge=0, le=1, description="probability of a mirror image; AU labels do not change")
    brightness: float = Field(default=0.0, ge=0, lt=1, description="factor on all pixels drawn from 1 -+ this")
    rotation: float = Field(default=0.0, ge=0, le=180, description="angle drawn from -+ this many degrees")

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        for name, (low, high), limit in (("scale", self.scale, 1.0), ("ratio", self.ratio, 10.0)):
            if not 0 < low <= high <= limit:
                raise ValueError(f"{name} is ({low}, {high}): must be 0 < least <= greatest <= {limit:g}")
        return self


FE_AUGMENTATION = Augmentation(scale=(0.08, 1.0), ratio=(3 / 4, 4 / 3), flip=0.5)
"""Random-sized crop and flip. The method gives no range: these are the ranges the operation was published with
(Szegedy et al. 2015). DFEW adds `brightness=0.5`, FERV39K `rotation=4`; small faces want a narrower scale."""

AU_AUGMENTATION = Augmentation(scale=(0.8, 1.0), ratio=(0.9, 1.1), flip=0.5)
"""The method resizes to 256 and cuts 224 at these ranges; as they are relative, one warp does both."""


def center(frames: Frames, preprocessing: Preprocessing) -> Frames:
    """The evaluation geometry: uint8 RGB N H W 3 -> N S S 3, the centre of each frame, never stretched."""
    _check_frames(frames)
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


def augment(frames: Frames, spec: Augmentation, image_size: int, seed: int) -> Frames:
    """One random crop, rotation, flip and brightness for the whole clip: uint8 RGB T H W 3 -> T S S 3.

    A pure function of its arguments. Crop, rotation and flip are one warp per frame; pixels outside repeat the edge.
    """
    _check_frames(frames)
    generator = np.random.default_rng(seed)
    height, width = frames.shape[1:3]
    cut = _draw_cut(generator, spec, height, width)
    matrix = _warp_matrix(generator, spec, cut, image_size)
    brightness = 1 + spec.brightness * (2 * generator.random() - 1)
    frames, matrix = _reduce(frames, matrix, min(cut[2], cut[3]) / image_size)
    out = np.empty((len(frames), image_size, image_size, 3), np.uint8)
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    for source, target in zip(frames, out, strict=True):
        cv2.warpAffine(source, matrix, out.shape[1:3], dst=target, flags=flags, borderMode=cv2.BORDER_REPLICATE)
    return _brighten(out, brightness) if spec.brightness else out


def normalise(clips: Tensor, preprocessing: Preprocessing, dtype: torch.dtype | None = None) -> Tensor:
    """uint8 RGB B T H W 3 on any device -> (x / 255 - mean) / std as contiguous B T 3 H W of `dtype` (float32)."""
    import torch

    if clips.dtype != torch.uint8 or clips.ndim != 5 or clips.shape[-1] != 3:
        raise ValueError(f"clips must be uint8 B T H W 3, got {clips.dtype} {tuple(clips.shape)}")
    scale = [1 / (255 * std) for std in preprocessing.std]
    shift = [-mean / std for mean, std in zip(preprocessing.mean, preprocessing.std, strict=True)]
    scale_C11 = torch.tensor(scale, device=clips.device).view(3, 1, 1)
    shift_C11 = torch.tensor(shift, device=clips.device).view(3, 1, 1)
    # Convert and transpose in one copy, then in place: half the time of permuting lazily (measured on CPU).
    planes = clips.permute(0, 1, 4, 2, 3).to(torch.float32, memory_format=torch.contiguous_format)
    return planes.mul_(scale_C11).add_(shift_C11).to(dtype or torch.float32)


def _check_frames(frames: Any) -> None:
    if not isinstance(frames, np.ndarray) or frames.dtype != np.uint8:
        raise ValueError(f"frames must be a uint8 array, got {getattr(frames, 'dtype', type(frames).__name__)}")
    if frames.ndim != 4 or frames.shape[-1] != 3 or 0 in frames.shape[1:]:
        raise ValueError(f"frames must be RGB of shape N H W 3, got shape {frames.shape}")


def _filter(interpolation: str, reduction: float) -> int:
    area = interpolation == "area" or (interpolation == "auto" and reduction >= _AREA_FROM)
    # OpenCV's area filter means nothing when enlarging
    return int(cv2.INTER_AREA if area and reduction > 1 else cv2.INTER_LINEAR)


def _draw_cut(generator: np.random.Generator, spec: Augmentation, height: int, width: int) -> tuple[float, ...]:
    """Left, top, width, height of a random cut; the largest centred one of a legal ratio after ten misfits."""
    low, high = np.log(spec.ratio)
    for _ in range(10):
        area = height * width * generator.uniform(*spec.scale)
        ratio = math.exp(generator.uniform(low, high))
        cut_width, cut_height = math.sqrt(area * ratio), math.sqrt(area / ratio)
        if cut_width <= width and cut_height <= height:
            left, top = generator.random() * (width - cut_width), generator.random() * (height - cut_height)
            return left, top, cut_width, cut_height
    ratio = min(max(width / height, spec.ratio[0]), spec.ratio[1])
    cut_width, cut_height = min(width, height * ratio), min(height, width / ratio)
    return (width - cut_width) / 2, (height - cut_height) / 2, cut_width, cut_height


def _warp_matrix(
    generator: np.random.Generator, spec: Augmentation, cut: tuple[float, ...], size: int
) -> NDArray[np.float64]:
    """2 x 3, from output pixel centres to source pixel centres: scale to the cut, mirror, rotate about its centre."""
    left, top, width, height = cut
    angle = math.radians(spec.rotation * (2 * generator.random() - 1))
    mirror = -1 if generator.random() < spec.flip else 1
    turn = np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    linear = turn @ np.diag([mirror * width / size, height / size])
    middle = np.array([left + width / 2 - 0.5, top + height / 2 - 0.5])
    shift = middle - linear @ np.full(2, (size - 1) / 2)
    return np.column_stack([linear, shift])


def _reduce(frames: Frames, matrix: NDArray[np.float64], reduction: float) -> tuple[Frames, NDArray[np.float64]]:
    """Where the warp would shrink by 2 or more, shrink first by area so that bilinear sampling does not alias."""
    factor = int(reduction)
    if factor < _AREA_FROM:
        return frames, matrix
    height, width = frames.shape[1] // factor, frames.shape[2] // factor
    small = [cv2.resize(frame, (width, height), interpolation=cv2.INTER_AREA) for frame in frames]
    step = np.array([[width / frames.shape[2]], [height / frames.shape[1]]])
    reduced = matrix * step
    reduced[:, 2:] += (step - 1) / 2  # pixel centres lie half a pixel in, before and after
    return np.stack(small) if small else frames[:, :height, :width], reduced


def _brighten(frames: Frames, factor: float) -> Frames:
    table: Frames = np.clip(np.arange(256) * factor + 0.5, 0, 255).astype(np.uint8)
    return np.asarray(cv2.LUT(frames.reshape(len(frames), -1, 3), table), np.uint8).reshape(frames.shape)
