"""Who a face is, as far as a network tells: ids that survive cuts. Only where a user asks for it (`identity: sface`).

Two faces are one person where the cosine of their embeddings reaches OpenCV's own threshold for SFace. Embeddings live
as long as one video is read; none is stored or sent anywhere.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any, Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

from ssm_platform.faces.detectors import Detection
from ssm_platform.faces.hub import SFACE, digest

Embedding = NDArray[np.float32]

SAME = 0.363
"""Cosine from which OpenCV's documentation of SFace takes two faces for one person (99.6 % on LFW, as it says)."""

_MOST = 256  # people remembered of one video; the one seen least lately goes first


class Embedder(Protocol):
    """Not for use by several threads at once."""

    def __call__(self, image: NDArray[np.uint8], face: Detection) -> Embedding:
        """The direction (unit length) that stands for a face with points in an RGB image (H, W, 3)."""


class SFace:
    """cv2.FaceRecognizerSF. ValueError names path and digest where the file is no such model."""

    def __init__(self, model: Path) -> None:
        if not model.is_file():
            raise ValueError(f"{model}: no such file; identity 'sface' needs the SFace ONNX model there")
        try:
            self._network: Any = cv2.FaceRecognizerSF.create(str(model), "")
            self._feature(np.zeros((112, 112, 3), np.uint8))
        except cv2.error as error:
            raise ValueError(
                f"{model}: OpenCV cannot use it as an SFace model ({error.err}); its SHA-256 is {digest(model)}, "
                f"that of {SFACE.name} is {SFACE.sha256}"
            ) from error

    def __call__(self, image: NDArray[np.uint8], face: Detection) -> Embedding:
        assert face.points is not None, "the detector tells no points"
        row = np.array([[face.x, face.y, face.w, face.h, *face.points, face.score]], np.float32)
        return self._feature(self._network.alignCrop(cv2.cvtColor(image, cv2.COLOR_RGB2BGR), row))

    def _feature(self, aligned: NDArray[np.uint8]) -> Embedding:
        return _unit(self._network.feature(aligned).reshape(-1))


class People:
    """The people of one video: id -> what they look like."""

    def __init__(self) -> None:
        self._looks: dict[int, Embedding] = {}

    def known(self, looks: Sequence[Embedding], taken: Collection[int]) -> int | None:
        """Who looks most like this, if enough so, of those not in `taken`."""
        if not looks:
            return None
        middle = _unit(np.mean(looks, axis=0))
        likeness = {who: float(middle @ look) for who, look in self._looks.items() if who not in taken}
        best = max(likeness, key=lambda who: likeness[who], default=None)
        return best if best is not None and likeness[best] >= SAME else None

    def seen(self, who: int, looks: Sequence[Embedding]) -> None:
        """Remember how somebody looks now."""
        if not looks:
            return
        known = [self._looks.pop(who)] if who in self._looks else []
        self._looks[who] = _unit(np.mean([*known, *looks], axis=0))
        while len(self._looks) > _MOST:
            del self._looks[next(iter(self._looks))]


def _unit(vector: NDArray[Any]) -> Embedding:
    return np.asarray(vector / max(float(np.linalg.norm(vector)), 1e-12), np.float32)
