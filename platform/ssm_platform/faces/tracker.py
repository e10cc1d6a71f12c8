"""Faces of a video over time: detected every n-th frame, tracked, and cut out as squares.

`FaceTracker` is a stream: it takes frames one by one and gives back, `lookahead` frames later, the faces of each frame.
Between detections boxes are smoothed and interpolated; a gap of up to `max_gap` frames is bridged, a longer one means
"no face" for its frames; a face found at the same place within `remember` frames is the same face. Where the faces of
two looks differ, the frames between them are searched one by one, so appearing and leaving are exact to the frame; only
a newcomer beside a known face may be noticed up to `every * search` frames late. A track counts only if it lasts
`min_frames`, which keeps most of a cascade's false finds out. Knows no files, labels, Ray; coordinates are pixels of
the frames given.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Literal, NamedTuple, Protocol, TypeVar

import cv2
import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, model_validator

from ssm_platform.faces.detectors import Detection, Detector, HaarDetector, YuNetDetector


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


class Face(NamedTuple):
    """One face in one frame: who (an id from 0, in order of appearance), the box in pixels, the detector's score."""

    face_id: int
    x: float
    y: float
    w: float
    h: float
    score: float


def make_detector(settings: FaceSettings) -> Detector:
    """The detector of the settings; ValueError names a model file that is missing."""
    if settings.model is not None:
        return YuNetDetector(settings.model, settings.smallest)
    return HaarDetector(settings.smallest)


@dataclass
class _Track:
    """Detections of one face: frame number -> box, old ones forgotten."""

    face_id: int = -1  # given when the track has lasted
    frames: int = 0  # in view, bridged gaps included
    knots: dict[int, Detection] = field(default_factory=dict)

    def add(self, number: int, box: Detection, max_gap: int) -> None:
        """The next detection of this face."""
        away = number - self.last if self.knots else 1
        self.frames += away if away <= max_gap else 1
        self.knots[number] = box

    @property
    def last(self) -> int:
        return next(reversed(self.knots))

    @property
    def box(self) -> Detection:
        return self.knots[self.last]


class FaceTracker:
    """Frames in, faces out `settings.lookahead` frames later. One object per video."""

    def __init__(self, settings: FaceSettings | None = None, detector: Detector | None = None) -> None:
        self._settings = settings or FaceSettings()
        self._detect = detector or make_detector(self._settings)
        self._tracks: list[_Track] = []
        self._waiting: list[tuple[int, NDArray[np.uint8], float]] = []  # shrunk frames since the last detection run
        self._pushed = self._released = self._named = self._looks = 0

    def push(self, image: NDArray[np.uint8]) -> list[tuple[Face, ...]]:
        """Take the next frame (H, W, 3); return the faces of those frames that became final, in order."""
        scale = min(1.0, self._settings.side / max(image.shape[:2]))
        small = image if scale == 1 else cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
        self._waiting.append((self._pushed, np.asarray(small, np.uint8), scale))
        if self._pushed % self._settings.every == 0:
            self._run()
        self._pushed += 1
        return self._release(self._pushed - self._settings.lookahead, self._settings.min_frames)

    def finish(self) -> list[tuple[Face, ...]]:
        """The faces of the remaining frames; the tracker is used up."""
        if self._waiting:
            self._run()
        return self._release(self._pushed, min(self._settings.min_frames, (self._pushed + 1) // 2))

    def _run(self) -> None:
        """Detect in the newest frame; where the faces differ from the run before, also in the frames between."""
        *between, newest = self._waiting
        followed = [track for track in self._tracks if track.last >= newest[0] - len(between) - 1]
        whole = self._looks % self._settings.search == 0 or not followed
        found = self._found(newest, [] if whole else [track.box for track in followed])
        if not whole and len(_match([track.box for track in followed], found)) < len(followed):
            found = self._found(newest)
        pairs = _match([track.box for track in followed], found)
        if not len(pairs) == len(followed) == len(found):
            for frame in between:
                self._follow(frame[0], self._found(frame))
        self._follow(newest[0], found)
        self._waiting = []
        self._looks += 1

    def _found(self, frame: tuple[int, NDArray[np.uint8], float], near: Sequence[Detection] = ()) -> list[Detection]:
        _, image, scale = frame
        faces = self._detect(image, [face.scaled(scale) for face in near])
        return [face.scaled(1 / scale) for face in faces]

    def _follow(self, number: int, found: list[Detection]) -> None:
        alive = [track for track in self._tracks if number - track.last <= self._settings.remember]
        pairs = _match([track.box for track in alive], found)
        fresh = [_Track() for _ in range(len(found) - len(pairs))]
        self._tracks.extend(fresh)
        rest = iter(fresh)
        owner = {column: alive[row] for row, column in pairs.items()}
        for column, box in enumerate(found):
            track = owner.get(column) or next(rest)
            track.add(number, box, self._settings.max_gap)

    def _release(self, end: int, needed: int) -> list[tuple[Face, ...]]:
        for track in self._tracks:
            if track.face_id < 0 and track.frames >= needed:
                track.face_id, self._named = self._named, self._named + 1
        out = []
        for number in range(self._released, end):
            boxes = [(track, _box_at(track.knots, number, self._settings.max_gap)) for track in self._tracks]
            out.append(tuple(Face(track.face_id, *box) for track, box in boxes if box and track.face_id >= 0))
        self._released = max(self._released, end)
        self._forget()
        return out

    def _forget(self) -> None:
        """Drop tracks and detections that no frame to come can need: memory stays flat."""
        oldest = self._released - 2 * self._settings.max_gap
        self._tracks = [track for track in self._tracks if track.last >= self._pushed - self._settings.remember]
        for track in self._tracks:
            while next(iter(track.knots)) < oldest and len(track.knots) > 1:
                del track.knots[next(iter(track.knots))]


class HasImage(Protocol):
    """A frame with pixels, such as `frames.TimedFrame`."""

    @property
    def image(self) -> NDArray[np.uint8]: ...


FrameT = TypeVar("FrameT", bound=HasImage)


def track(
    frames: Iterable[FrameT], settings: FaceSettings | None = None, detector: Detector | None = None
) -> Iterator[tuple[FrameT, tuple[Face, ...]]]:
    """Each frame with its faces (none: an empty tuple); holds `lookahead` frames at a time."""
    tracker, held = FaceTracker(settings, detector), deque[FrameT]()
    for frame in frames:
        held.append(frame)
        for faces in tracker.push(frame.image):
            yield held.popleft(), faces
    for faces in tracker.finish():
        yield held.popleft(), faces


class MainFace:
    """Which faces are the main person: large, long in view, central; one at a time.

    A face weighs the sum over its frames of area times centrality (1 in the middle, 1/2 in a corner). The heaviest is
    the main one; others are the same person seen again if they never share a frame with those already taken.
    """

    def __init__(self) -> None:
        self._weights: dict[int, float] = {}
        self._together: set[tuple[int, int]] = set()

    def add(self, faces: Iterable[Face], height: int, width: int) -> None:
        """Count the faces of one frame of this size."""
        seen = sorted(faces)
        for face in seen:
            away = np.hypot((face.x + face.w / 2) / width - 0.5, (face.y + face.h / 2) / height - 0.5) / np.hypot(
                0.5, 0.5
            )
            weight = face.w * face.h / (height * width) * (1 - 0.5 * float(away))
            self._weights[face.face_id] = self._weights.get(face.face_id, 0.0) + weight
        self._together.update((a.face_id, b.face_id) for a in seen for b in seen if a.face_id < b.face_id)

    def ids(self) -> list[int]:
        """Ids of the main person's faces, heaviest first; empty where no face was seen."""
        taken: list[int] = []
        for face in sorted(self._weights, key=lambda face: (-self._weights[face], face)):
            if not any((min(face, other), max(face, other)) in self._together for other in taken):
                taken.append(face)
        return taken


def crop(
    image: NDArray[np.uint8], box: Face | Detection, margin: float = 0.25, size: int | None = None
) -> NDArray[np.uint8]:
    """The square around a face (side, side, 3), its longer side grown by `margin` on each end, resized to `size`.

    What lies outside the image repeats the edge, so the face keeps its place and shape.
    """
    side = max(2, round(max(box.w, box.h) * (1 + 2 * margin)))
    left, top = round(box.x + box.w / 2 - side / 2), round(box.y + box.h / 2 - side / 2)
    height, width = image.shape[:2]
    rows = np.clip(np.arange(top, top + side), 0, height - 1)
    columns = np.clip(np.arange(left, left + side), 0, width - 1)
    inside = 0 <= top <= height - side and 0 <= left <= width - side
    square = image[top : top + side, left : left + side] if inside else image[rows[:, None], columns]
    return resize(square, size or side, size or side)


def resize(image: NDArray[np.uint8], width: int, height: int) -> NDArray[np.uint8]:
    """An image at another size: area average down, bicubic up."""
    if image.shape[:2] == (height, width):
        return np.ascontiguousarray(image)
    how = cv2.INTER_AREA if width < image.shape[1] else cv2.INTER_CUBIC
    return np.asarray(cv2.resize(image, (width, height), interpolation=how), np.uint8)


_MIN_OVERLAP = 0.3


def _match(known: list[Detection], found: list[Detection]) -> dict[int, int]:
    """Pairs (row of `known` -> column of `found`) of boxes that overlap, the best first."""
    overlaps = sorted(((_overlap(a, b), i, j) for i, a in enumerate(known) for j, b in enumerate(found)), reverse=True)
    pairs: dict[int, int] = {}
    for overlap, row, column in overlaps:
        if overlap >= _MIN_OVERLAP and row not in pairs and column not in pairs.values():
            pairs[row] = column
    return pairs


def _overlap(a: Detection, b: Detection) -> float:
    """Intersection over union."""
    width = min(a.x + a.w, b.x + b.w) - max(a.x, b.x)
    height = min(a.y + a.h, b.y + b.h) - max(a.y, b.y)
    shared = max(width, 0.0) * max(height, 0.0)
    return shared / (a.w * a.h + b.w * b.h - shared)


def _box_at(knots: Mapping[int, Detection], number: int, max_gap: int) -> Detection | None:
    """The smoothed box at a frame: on a detection, or between two that are at most `max_gap` apart."""
    if number in knots:
        return _smoothed(knots, number, max_gap)
    for before, after in pairwise(knots):
        if before < number < after and after - before <= max_gap:
            part = (number - before) / (after - before)
            left, right = _smoothed(knots, before, max_gap), _smoothed(knots, after, max_gap)
            return Detection(*(a + part * (b - a) for a, b in zip(left, right, strict=True)))
    return None


def _smoothed(knots: Mapping[int, Detection], number: int, max_gap: int) -> Detection:
    """Weights 1 2 1 over neighbouring detections: a cascade's boxes jitter by a few percent."""
    numbers = list(knots)
    at = numbers.index(number)
    if not 0 < at < len(numbers) - 1 or max(numbers[at + 1] - number, number - numbers[at - 1]) > max_gap:
        return knots[number]
    before, here, after = (knots[numbers[i]] for i in (at - 1, at, at + 1))
    return Detection(*((a + 2 * b + c) / 4 for a, b, c in zip(before, here, after, strict=True)))
