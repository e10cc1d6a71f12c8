"""Face detectors: an RGB image in, boxes with scores out. Each frame on its own; identity over time is `faces`' part.

Default: OpenCV's own Haar cascade, which needs no download. It finds upright frontal faces; strongly turned or tilted
heads and sunglasses are its known misses. YuNet is the better choice for a user who has its ONNX file.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple, Protocol

import cv2
import numpy as np
from cv2.data import haarcascades
from numpy.typing import NDArray

_CASCADE = "haarcascade_frontalface_alt2.xml"  # fewer false finds than `default` on our videos, twice as fast as `alt`
_SCALE_STEP = 1.1
_NEIGHBOURS = 3
_CONTRAST = (3.0, (4, 4))  # limit and tiles of local equalisation
_YUNET_SCORE = 0.6
_YUNET_OVERLAP = 0.3


class Detection(NamedTuple):
    """A box in pixels of the image given, and how sure the detector is (0..1)."""

    x: float
    y: float
    w: float
    h: float
    score: float


class Detector(Protocol):
    """Not for use by several threads at once."""

    def __call__(self, image: NDArray[np.uint8]) -> list[Detection]:
        """Faces in an RGB image (H, W, 3), best first."""


class HaarDetector:
    """OpenCV's cascade; the score is n / (n + 5) for n overlapping hits.

    Where it finds nothing, it looks again after evening out the light: cascades miss dark skin and backlit faces more
    often than others, and this second look finds about half of those.
    """

    def __init__(self, smallest: float) -> None:
        self._smallest = smallest
        self._cascade = cv2.CascadeClassifier(str(Path(haarcascades) / _CASCADE))
        self._even = cv2.createCLAHE(*_CONTRAST)

    def __call__(self, image: NDArray[np.uint8]) -> list[Detection]:
        grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
        return self._look(grey) or self._look(self._even.apply(grey))

    def _look(self, grey: NDArray[Any]) -> list[Detection]:
        side = max(20, round(self._smallest * min(grey.shape)))
        boxes, hits = self._cascade.detectMultiScale2(grey, _SCALE_STEP, _NEIGHBOURS, minSize=(side, side))
        found = [
            Detection(float(x), float(y), float(w), float(h), float(n / (n + 5)))
            for (x, y, w, h), n in zip(boxes, hits, strict=True)
        ]
        return sorted(found, key=lambda face: -face.score)


class YuNetDetector:
    """cv2.FaceDetectorYN with the user's model file. ValueError names the path where it cannot be loaded."""

    def __init__(self, model: str | Path, smallest: float) -> None:
        if not Path(model).is_file():
            raise ValueError(f"{model}: no such file; face detector 'yunet' needs the YuNet ONNX model there")
        try:
            self._network: Any = cv2.FaceDetectorYN.create(str(model), "", (320, 320), _YUNET_SCORE, _YUNET_OVERLAP)
        except cv2.error as error:
            raise ValueError(f"{model}: OpenCV cannot load it as a YuNet model ({error.err})") from error
        self._smallest = smallest

    def __call__(self, image: NDArray[np.uint8]) -> list[Detection]:
        height, width = image.shape[:2]
        self._network.setInputSize((width, height))
        _, rows = self._network.detect(cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
        side = self._smallest * min(height, width)
        found = [Detection(*map(float, (*row[:4], row[-1]))) for row in (rows if rows is not None else [])]
        return sorted((face for face in found if min(face.w, face.h) >= side), key=lambda face: -face.score)
