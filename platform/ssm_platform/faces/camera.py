"""Faces before a camera: found in each frame and followed at once, where `tracker` waits for the frames to come.

Nothing is smoothed, bridged or named late, so a frame's faces are known when it is: what a picture alone would give.
An id stays while the face is found at about the same place within `remember` frames. A frame of another size starts
anew, with new ids. Knows no files, labels, Ray; coordinates are pixels of the frame given.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ssm_platform.faces.detectors import Detection, Detector
from ssm_platform.faces.settings import FaceSettings, make_detector
from ssm_platform.faces.tracker import TrackedFace, matched, shrunk


@dataclass
class _Seen:
    """A face: who, where it was last, and in which frame."""

    face_id: int
    box: Detection
    last: int


class CameraFaces:
    """A frame in, its faces out. One object per camera."""

    def __init__(self, settings: FaceSettings | None = None, detector: Detector | None = None) -> None:
        self._settings = settings or FaceSettings()
        self._detect = detector or make_detector(self._settings)
        self._seen: list[_Seen] = []
        self._shape: tuple[int, ...] = ()
        self._frames = self._named = 0

    def push(self, image: NDArray[np.uint8]) -> tuple[tuple[TrackedFace, ...], bool]:
        """The faces of the next frame (H, W, 3), and whether nothing connects it to the one before."""
        fresh = image.shape != self._shape
        if fresh:
            self._seen, self._shape = [], image.shape
        found = self._look(image, [one.box for one in self._seen if one.last == self._frames - 1])
        faces = self._follow(found)
        self._frames += 1
        return faces, fresh

    def _look(self, image: NDArray[np.uint8], known: list[Detection]) -> list[Detection]:
        """About the known faces only; over the whole frame every `search`-th time, and where one is not found."""
        scale = min(1.0, self._settings.side / max(image.shape[:2]))
        small = image if scale == 1 else shrunk(image, scale)
        if known and self._frames % self._settings.search:
            found = self._found(small, scale, known)
            if len(matched(known, found)) == len(known):
                return found
        return self._found(small, scale, [])

    def _found(self, small: NDArray[np.uint8], scale: float, near: list[Detection]) -> list[Detection]:
        faces = self._detect(small, [face.scaled(scale) for face in near])
        return [face.scaled(1 / scale) for face in faces]

    def _follow(self, found: list[Detection]) -> tuple[TrackedFace, ...]:
        alive = [one for one in self._seen if self._frames - one.last <= self._settings.remember]
        owner = {column: alive[row] for row, column in matched([one.box for one in alive], found).items()}
        faces = []
        for column, box in enumerate(found):
            seen = owner.get(column)
            if seen is None:
                seen, self._named = _Seen(self._named, box, self._frames), self._named + 1
                alive.append(seen)
            seen.box, seen.last = box, self._frames
            faces.append(TrackedFace(seen.face_id, *box))
        self._seen = alive
        return tuple(faces)
