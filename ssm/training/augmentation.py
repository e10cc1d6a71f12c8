"""One random warp per training clip: crop, rotation, flip, brightness, drawn once for all its frames (section 6).

A pure function of its seed. Not part of a saved model: what a model sees when it serves is
`ssm.interface.Preprocessing`. Knows no torch, so decode processes warp without loading it. Letters: T frames, H W
pixels, S side of the square input.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Self

import cv2
import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, model_validator

from ssm.interface import AREA_FROM, Frames, check_frames
from ssm.training.photograph import Photograph


class Augmentation(BaseModel):
    """The ranges of one random warp per clip. Sizes are relative, so the resolution of the frames does not matter."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    scale: tuple[float, float] = Field(default=(1.0, 1.0), description="least and greatest share of the area cut out")
    ratio: tuple[float, float] = Field(default=(1.0, 1.0), description="least and greatest width / height of the cut")
    flip: float = Field(default=0.0, ge=0, le=1, description="probability of a mirror image; AU labels do not change")
    brightness: float = Field(default=0.0, ge=0, lt=1, description="factor on all pixels drawn from 1 -+ this")
    rotation: float = Field(default=0.0, ge=0, le=180, description="angle drawn from -+ this many degrees")
    photograph: Photograph = Field(default=Photograph(), description="colour, blur, resolution and JPEG; off")

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


def augment(frames: Frames, spec: Augmentation, image_size: int, seed: int) -> Frames:
    """One random crop, rotation, flip and brightness for the whole clip: uint8 RGB T H W 3 -> T S S 3.

    A pure function of its arguments. Crop, rotation and flip are one warp per frame; pixels outside repeat the edge.
    """
    check_frames(frames)
    warp = draw_warp(spec, frames.shape[1], frames.shape[2], image_size, seed)
    frames, matrix = _reduce(frames, warp)
    out = np.empty((len(frames), image_size, image_size, 3), np.uint8)
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    for source, target in zip(frames, out, strict=True):
        cv2.warpAffine(source, matrix, out.shape[1:3], dst=target, flags=flags, borderMode=cv2.BORDER_REPLICATE)
    return spec.photograph.shown(_brighten(out, warp.brightness) if spec.brightness else out, seed)


@dataclass(frozen=True)
class Warp:
    """One draw: what is done to all frames of a clip before colours are photographed."""

    matrix: NDArray[np.float64]  # 2 x 3, from output pixel centres to source pixel centres
    factor: int  # of reduction by area before, 1: none
    brightness: float  # factor on all pixels

    def reduced(self, height: int, width: int) -> tuple[int, int, NDArray[np.float64]]:
        """Height and width after the reduction, and the matrix to those pixels."""
        small = height // self.factor, width // self.factor
        step = np.array([[small[1] / width], [small[0] / height]])
        matrix = self.matrix * step
        matrix[:, 2:] += (step - 1) / 2  # pixel centres lie half a pixel in, before and after
        return *small, matrix


def draw_warp(spec: Augmentation, height: int, width: int, image_size: int, seed: int) -> Warp:
    """The warp of frames of that size, a pure function of its arguments.

    Where it would shrink by 2 or more, they are first reduced by area, so that bilinear sampling does not alias.
    """
    generator = np.random.default_rng(seed)
    cut = _draw_cut(generator, spec, height, width)
    matrix = _warp_matrix(generator, spec, cut, image_size)
    brightness = 1 + spec.brightness * (2 * generator.random() - 1)
    factor = int(min(cut[2], cut[3]) / image_size)
    return Warp(matrix, factor if factor >= AREA_FROM else 1, brightness)


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


def _reduce(frames: Frames, warp: Warp) -> tuple[Frames, NDArray[np.float64]]:
    if warp.factor == 1:
        return frames, warp.matrix
    height, width, matrix = warp.reduced(*frames.shape[1:3])
    small = [cv2.resize(frame, (width, height), interpolation=cv2.INTER_AREA) for frame in frames]
    return np.stack(small) if small else frames[:, :height, :width], matrix


def _brighten(frames: Frames, factor: float) -> Frames:
    table: Frames = np.clip(np.arange(256) * factor + 0.5, 0, 255).astype(np.uint8)
    return np.asarray(cv2.LUT(frames.reshape(len(frames), -1, 3), table), np.uint8).reshape(frames.shape)
