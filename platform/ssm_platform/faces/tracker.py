"""Faces of a video over time: detected every n-th frame and followed between.

`FaceTracker` is a stream: it takes frames one by one and gives back, `lookahead` frames later, the faces of each frame.
Between detections boxes are smoothed and interpolated; a gap of up to `max_gap` frames is bridged, a longer one means
"no face" for its frames; a face found at the same place within `remember` frames is the same face. Where the faces of
two looks differ, the frames between them are searched one by one, so appearing and leaving are exact to the frame; only
a newcomer beside a known face may be noticed up to `every * search` frames late. A track counts only if it lasts
`min_frames`, which keeps most of a cascade's false finds out. A cut ends every track: who comes back after one is
somebody new, unless an embedder recognises them (`identity`). Knows no files, labels, Ray; coordinates are pixels of
the frames given.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import NamedTuple, Protocol, TypeVar

import cv2
import numpy as np
from numpy.typing import NDArray

from ssm_platform.faces.detectors import Detection, Detector, Points
from ssm_platform.faces.embedding import Embedder, Embedding, People
from ssm_platform.faces.settings import FaceSettings, make_detector, make_embedder


class TrackedFace(NamedTuple):
    """One face in one frame: who (an id from 0, in order of appearance), the box in pixels, the detector's score."""

    face_id: int
    x: float
    y: float
    w: float
    h: float
    score: float
    points: Points | None = None


@dataclass
class _Track:
    """Detections of one face: frame number -> box, old ones forgotten."""

    face_id: int = -1  # given when the track has lasted
    frames: int = 0  # in view, bridged gaps included
    knots: dict[int, Detection] = field(default_factory=dict)
    looks: list[Embedding] = field(default_factory=list)  # how the face looks, of its first detections

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


class _Small(NamedTuple):
    """A frame as detectors see it: shrunk by `scale`; `cut`: another picture than the frame before."""

    number: int
    image: NDArray[np.uint8]
    scale: float
    cut: bool


class FaceTracker:
    """Frames in, faces out `settings.lookahead` frames later. One object per video."""

    def __init__(
        self, settings: FaceSettings | None = None, detector: Detector | None = None, embedder: Embedder | None = None
    ) -> None:
        self._settings = settings or FaceSettings()
        self._detect = detector or make_detector(self._settings)
        self._embed = embedder or make_embedder(self._settings)
        self._people, self._before = People(), np.zeros(0, np.float32)
        self._tracks: list[_Track] = []
        self._waiting: list[_Small] = []  # frames since the last detection run
        self._pushed = self._released = self._named = self._looks = 0

    def push(self, image: NDArray[np.uint8]) -> list[tuple[TrackedFace, ...]]:
        """Take the next frame (H, W, 3); return the faces of those frames that became final, in order."""
        scale = min(1.0, self._settings.side / max(image.shape[:2]))
        small = image if scale == 1 else shrunk(image, scale)
        self._waiting.append(_Small(self._pushed, np.asarray(small, np.uint8), scale, self._is_cut(small)))
        if self._pushed % self._settings.every == 0:
            self._run()
        self._pushed += 1
        return self._release(self._pushed - self._settings.lookahead, self._settings.min_frames)

    def finish(self) -> list[tuple[TrackedFace, ...]]:
        """The faces of the remaining frames; the tracker is used up."""
        if self._waiting:
            self._run()
        return self._release(self._pushed, min(self._settings.min_frames, (self._pushed + 1) // 2))

    def _run(self) -> None:
        """Detect in the newest frame; where the faces differ from the run before, also in the frames between."""
        *between, newest = self._waiting
        known = [track.box for track in self._tracks if track.last >= newest.number - len(between) - 1]
        found = self._look(newest, known)
        same = len(matched(known, found)) == len(known) == len(found)
        if not same or any(frame.cut for frame in self._waiting):
            for frame in between:
                self._follow(frame, self._found(frame))
        self._follow(newest, found)
        self._waiting = []
        self._looks += 1

    def _look(self, newest: _Small, known: list[Detection]) -> list[Detection]:
        """About the known faces only; over the whole frame at every n-th look, and where one of them is not found."""
        if known and self._looks % self._settings.search:
            found = self._found(newest, known)
            if len(matched(known, found)) == len(known):
                return found
        return self._found(newest)

    def _found(self, frame: _Small, near: Sequence[Detection] = ()) -> list[Detection]:
        faces = self._detect(frame.image, [face.scaled(frame.scale) for face in near])
        return [face.scaled(1 / frame.scale) for face in faces]

    def _follow(self, frame: _Small, found: list[Detection]) -> None:
        number = frame.number
        alive = [track for track in self._tracks if number - track.last <= self._settings.remember and not frame.cut]
        pairs = matched([track.box for track in alive], found)
        fresh = [_Track() for _ in range(len(found) - len(pairs))]
        self._tracks.extend(fresh)
        rest = iter(fresh)
        owner = {column: alive[row] for row, column in pairs.items()}
        for column, box in enumerate(found):
            track = owner.get(column) or next(rest)
            track.add(number, box, self._settings.max_gap)
            if self._embed is not None and track.face_id < 0 and len(track.looks) < _LOOKS:
                track.looks.append(self._embed(frame.image, box.scaled(frame.scale)))

    def _release(self, end: int, needed: int) -> list[tuple[TrackedFace, ...]]:
        for track in self._tracks:
            if track.face_id < 0 and track.frames >= needed:
                track.face_id = self._name(track)
        out = []
        for number in range(self._released, end):
            boxes = [(track, _box_at(track.knots, number, self._settings.max_gap)) for track in self._tracks]
            faces = {track.face_id: TrackedFace(track.face_id, *box) for track, box in boxes if box}
            out.append(tuple(face for face in faces.values() if face.face_id >= 0))
        self._released = max(self._released, end)
        self._forget()
        return out

    def _is_cut(self, image: NDArray[np.uint8]) -> bool:
        """Whether the scene changes here; only asked where an embedder tells who comes back."""
        if self._embed is None:
            return False
        before, self._before = (
            self._before,
            cv2.resize(image, (16, 16), interpolation=cv2.INTER_AREA).astype(np.float32),
        )
        return before.size > 0 and float(np.abs(before - self._before).mean()) > _CUT

    def _name(self, track: _Track) -> int:
        """The id of somebody known who is not in view beside this face, or a new one."""
        taken = {other.face_id for other in self._tracks if other.last >= next(iter(track.knots))}
        known = self._people.known(track.looks, taken)
        if known is None:
            known, self._named = self._named, self._named + 1
        self._people.seen(known, track.looks)
        return known

    def _forget(self) -> None:
        """Drop tracks and detections that no frame to come can need: memory stays flat."""
        oldest = self._released - 2 * self._settings.max_gap
        self._tracks = [track for track in self._tracks if track.last >= self._pushed - self._settings.remember]
        for track in self._tracks:
            while next(iter(track.knots)) < oldest and len(track.knots) > 1:
                del track.knots[next(iter(track.knots))]


def shrunk(image: NDArray[np.uint8], scale: float) -> NDArray[np.uint8]:
    """The image at a smaller size; a side never falls below one pixel, which OpenCV's factors do not see to."""
    height, width = image.shape[:2]
    if min(height, width) * scale < 1:
        size = (max(1, round(width * scale)), max(1, round(height * scale)))
        return np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), np.uint8)
    return np.asarray(cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA), np.uint8)


class HasImage(Protocol):
    """A frame with pixels, such as `media.video.TimedFrame`."""

    @property
    def image(self) -> NDArray[np.uint8]: ...


FrameT = TypeVar("FrameT", bound=HasImage)


def track(
    frames: Iterable[FrameT], settings: FaceSettings | None = None, detector: Detector | None = None
) -> Iterator[tuple[FrameT, tuple[TrackedFace, ...]]]:
    """Each frame with its faces (none: an empty tuple); holds `lookahead` frames at a time."""
    tracker, held = FaceTracker(settings, detector), deque[FrameT]()
    for frame in frames:
        held.append(frame)
        for faces in tracker.push(frame.image):
            yield held.popleft(), faces
    for faces in tracker.finish():
        yield held.popleft(), faces


_MIN_OVERLAP = 0.3
_CUT = 30.0  # mean difference of two frames' 16 x 16 pixels from which they show two scenes
_LOOKS = 3  # detections of a new face whose looks are compared with those of people known


def matched(known: list[Detection], found: list[Detection]) -> dict[int, int]:
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
            return Detection.mean([(1 - part, left), (part, right)])
    return None


def _smoothed(knots: Mapping[int, Detection], number: int, max_gap: int) -> Detection:
    """Weights 1 2 1 over neighbouring detections: a cascade's boxes jitter by a few percent."""
    numbers = list(knots)
    at = numbers.index(number)
    if not 0 < at < len(numbers) - 1 or max(numbers[at + 1] - number, number - numbers[at - 1]) > max_gap:
        return knots[number]
    before, here, after = (knots[numbers[i]] for i in (at - 1, at, at + 1))
    return Detection.mean([(1, before), (2, here), (1, after)])
