"""Face detectors: an RGB image in, boxes with scores out. Each frame on its own; identity over time is `faces`' part.

YuNet is a small network that also tells five points of the face; its file comes from the hub (`hub`). OpenCV's own Haar
cascade needs no download: it finds upright frontal faces; strongly turned or tilted heads and sunglasses are its known
misses.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from operator import mul
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import cv2
import numpy as np
from cv2.data import haarcascades
from numpy.typing import NDArray

from ssm_platform.faces.hub import YUNET, digest

_CASCADE = "haarcascade_frontalface_alt2.xml"  # fewer false finds than `default` on our videos, twice as fast as `alt`
_SCALE_STEP = 1.1
_NEIGHBOURS = 3
_CONTRAST = (3.0, (4, 4))  # limit and tiles of local equalisation
_REACH = 0.5  # how far around a known face to look, in its widths
_GROWTH = 1.35  # and how much larger or smaller it may be
_YUNET_SCORE = 0.6
_YUNET_OVERLAP = 0.3
_TRIED = 64  # side of the picture a network is tried on before it is believed

Points = tuple[float, ...]
"""x, y of five points in the picture: the subject's right eye and left eye, nose tip, right and left mouth corner."""


class Detection(NamedTuple):
    """A box in pixels of the image given, how sure the detector is (0..1), and its points where it tells them."""

    x: float
    y: float
    w: float
    h: float
    score: float
    points: Points | None = None

    def scaled(self, factor: float) -> Detection:
        """The same face in an image of another size."""
        points = None if self.points is None else tuple(value * factor for value in self.points)
        return Detection(self.x * factor, self.y * factor, self.w * factor, self.h * factor, self.score, points)

    @classmethod
    def mean(cls, parts: Sequence[tuple[float, Detection]]) -> Detection:
        """The weighted mean of detections of one face, with points where all have them.

        The same bits in every process: a product of arrays rounds by where they lie in memory.
        """
        weights = [weight for weight, _ in parts]
        total = math.fsum(weights)

        def means(rows: Iterable[Sequence[Any]]) -> tuple[float, ...]:
            return tuple(math.fsum(map(mul, weights, column)) / total for column in zip(*rows, strict=True))

        x, y, w, h, score = means([one[:5] for _, one in parts])
        points = [one.points for _, one in parts if one.points is not None]
        return cls(x, y, w, h, score, means(points) if len(points) == len(parts) else None)


class Detector(Protocol):
    """Not for use by several threads at once."""

    def __call__(self, image: NDArray[np.uint8], near: Sequence[Detection] = ()) -> list[Detection]:
        """Faces in an RGB image (H, W, 3), best first. With `near`, only those about where these were and as large
        are wanted; a detector to which the whole image costs no more may look everywhere.
        """


class HaarDetector:
    """OpenCV's cascade; the score is n / (n + 5) for n overlapping hits.

    Where it finds nothing, it looks again after evening out the light: cascades miss dark skin and backlit faces more
    often than others, and this second look finds about half of those.
    """

    def __init__(self, smallest: float) -> None:
        self._smallest = smallest
        self._cascade = cv2.CascadeClassifier(str(Path(haarcascades) / _CASCADE))
        self._even = cv2.createCLAHE(*_CONTRAST)

    def __call__(self, image: NDArray[np.uint8], near: Sequence[Detection] = ()) -> list[Detection]:
        grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
        smallest = round(self._smallest * min(grey.shape))
        found = self._look_about(grey, near) if near else self._look(grey, smallest) or self._look_again(grey, smallest)
        return sorted(found, key=lambda face: -face.score)

    def _look_again(self, grey: NDArray[Any], smallest: int) -> list[Detection]:
        return self._look(self._even.apply(grey), smallest)

    def _look_about(self, grey: NDArray[Any], near: Sequence[Detection]) -> list[Detection]:
        """The best face about each place: some 2 ms instead of 45 for a whole frame of 480 pixels."""
        out = []
        for face in near:
            reach = _REACH * face.w
            left, top = max(0, round(face.x - reach)), max(0, round(face.y - reach))
            part = grey[top : round(face.y + face.h + reach), left : round(face.x + face.w + reach)]
            found = self._look(part, round(face.w / _GROWTH), round(face.w * _GROWTH))
            if found:
                best = max(found, key=lambda one: one.score)
                out.append(best._replace(x=best.x + left, y=best.y + top))
        return out

    def _look(self, grey: NDArray[Any], smallest: int, largest: int = 0) -> list[Detection]:
        low, high = max(20, smallest), max(20, largest) if largest else 0
        if min(grey.shape) < low:
            return []
        boxes, hits = self._cascade.detectMultiScale2(
            grey, _SCALE_STEP, _NEIGHBOURS, minSize=(low, low), maxSize=(high, high)
        )
        return [
            Detection(float(x), float(y), float(w), float(h), float(n / (n + 5)))
            for (x, y, w, h), n in zip(boxes, hits, strict=True)
        ]


class YuNetDetector:
    """cv2.FaceDetectorYN with a model file. ValueError names path and digest where it is no such model."""

    def __init__(self, model: str | Path, smallest: float) -> None:
        if not Path(model).is_file():
            raise ValueError(f"{model}: no such file; face detector 'yunet' needs the YuNet ONNX model there")
        self._smallest = smallest
        try:
            self._network: Any = cv2.FaceDetectorYN.create(str(model), "", (320, 320), _YUNET_SCORE, _YUNET_OVERLAP)
            self(np.zeros((_TRIED, _TRIED, 3), np.uint8))  # some files load and fail at the first picture
        except cv2.error as error:
            what = f"OpenCV cannot use it as a YuNet model ({error.err})"
            raise ValueError(
                f"{model}: {what}; its SHA-256 is {digest(Path(model))}, that of {YUNET.name} is {YUNET.sha256}"
            ) from error

    def __call__(self, image: NDArray[np.uint8], near: Sequence[Detection] = ()) -> list[Detection]:
        height, width = image.shape[:2]
        self._network.setInputSize((width, height))
        _, rows = self._network.detect(cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
        side = self._smallest * min(height, width)
        found = [_detection(row) for row in (rows if rows is not None else [])]
        return sorted((face for face in found if min(face.w, face.h) >= side), key=lambda face: -face.score)


def _detection(row: NDArray[np.float32]) -> Detection:
    """A row of OpenCV: box, five points, score."""
    x, y, w, h, *points, score = (float(value) for value in row)
    return Detection(x, y, w, h, score, tuple(points))
