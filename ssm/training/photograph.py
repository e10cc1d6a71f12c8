"""What a camera, a file and a screen do to a face: colour, contrast, loss of colour, blur, resolution, JPEG.

Applied to training clips so that corpora which differ in these alone (grey stills of 48 pixels, colour videos, drawn
faces) look alike to the model. One draw a clip, the same for all its frames; a pure function of (frames, ranges,
seed). Nothing is drawn where all ranges are at their defaults. Letters: T frames, S side.
"""

from __future__ import annotations

from typing import Self

import cv2
import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from ssm.interface import Frames

_STREAM = 2  # keeps these draws apart from those of the warp, which uses the same seed
_LEAST_SIDE = 8  # pixels that a picture is shrunk to at least
_LEAST_BLUR = 0.1  # pixels; below it the kernel is one pixel
_PLAIN_JPEG = 100


class Photograph(BaseModel):
    """Ranges of what happens to a clip's pixels; the defaults change nothing."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    grey: float = Field(default=0.0, ge=0, le=1, description="probability that a clip loses its colour")
    colour: float = Field(default=0.0, ge=0, lt=1, description="factor on each colour channel drawn from 1 -+ this")
    contrast: float = Field(
        default=0.0, ge=0, lt=1, description="factor on the distance from the clip's mean drawn from 1 -+ this"
    )
    blur: float = Field(default=0.0, ge=0, le=8, description="greatest width (sigma, in output pixels) of a blur")
    resolution: float = Field(
        default=1.0, gt=0, le=1, description="least share of the output's side that a clip is shrunk to and back from"
    )
    jpeg: int = Field(
        default=_PLAIN_JPEG, ge=1, le=100, description="least quality of a JPEG pass, drawn up to 100; 100: none"
    )

    @property
    def off(self) -> bool:
        """Whether nothing happens."""
        return self == Photograph()

    def shown(self, frames: Frames, seed: int) -> Frames:
        """uint8 RGB T S S 3 to the same shape, as a camera might have taken them."""
        if self.off:
            return frames
        return _Draw.of(self, seed).apply(frames)


class _Draw:
    """One clip's draw."""

    def __init__(self, gains: NDArray[np.float64], contrast: float, blur: float, share: float, quality: int) -> None:
        self.gains, self.contrast, self.blur, self.share, self.quality = gains, contrast, blur, share, quality
        self.grey = False

    @classmethod
    def of(cls, ranges: Photograph, seed: int) -> Self:
        """All draws are made, whatever is on, so that one setting does not move another's."""
        generator = np.random.default_rng([seed, _STREAM])
        centred = 2 * generator.random(4) - 1
        blur, share, quality, grey = generator.random(4).tolist()
        draw = cls(
            gains=1 + ranges.colour * centred[:3],
            contrast=1 + ranges.contrast * float(centred[3]),
            blur=ranges.blur * blur,
            share=ranges.resolution + (1 - ranges.resolution) * share,
            quality=round(ranges.jpeg + (_PLAIN_JPEG - ranges.jpeg) * quality),
        )
        draw.grey = grey < ranges.grey
        return draw

    def apply(self, frames: Frames) -> Frames:
        toned = self._tone(frames)
        return np.stack([self._file(self._lens(frame)) for frame in toned])

    def _tone(self, frames: Frames) -> Frames:
        """Grey, gains and contrast, one pass over the clip."""
        if self.grey:
            frames = np.stack([cv2.cvtColor(cv2.cvtColor(f, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB) for f in frames])
        gains = np.full(3, self.gains.mean()) if self.grey else self.gains
        if self.contrast == 1 and (gains == 1).all():
            return frames
        pixels = frames * gains
        middle = pixels.mean()
        toned: Frames = np.clip((pixels - middle) * self.contrast + middle + 0.5, 0, 255).astype(np.uint8)
        return toned

    def _lens(self, frame: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Blur and resolution."""
        if self.blur > _LEAST_BLUR:
            frame = np.asarray(cv2.GaussianBlur(frame, (0, 0), self.blur), np.uint8)
        side = max(_LEAST_SIDE, round(len(frame) * self.share))
        if side < len(frame):
            small = cv2.resize(frame, (side, side), interpolation=cv2.INTER_AREA)
            frame = np.asarray(cv2.resize(small, frame.shape[1::-1], interpolation=cv2.INTER_LINEAR), np.uint8)
        return frame

    def _file(self, frame: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """A pass through JPEG."""
        if self.quality == _PLAIN_JPEG:
            return frame
        _, data = cv2.imencode(".jpg", frame, [cv2.IMWRITE_JPEG_QUALITY, self.quality])
        return np.asarray(cv2.imdecode(data, cv2.IMREAD_COLOR), np.uint8)  # channels change places twice
