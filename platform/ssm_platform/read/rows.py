"""A video or pictures to rows: decode, find and follow faces, cut them out, read them, in bounded memory.

    for result in analyse([Path("clip.mp4")], ModelReader("runs/a/model")):   # Row and Window, as they are ready
        ...
    read_opened(open_input(...), reader, options)                             # where the caller asks the input as well

`face_stream` is the part without a model (the video replica of the service runs it), `Assembler` the part that makes
clips and rows; `analyse` puts them together in one process. All three front doors use these, so their numbers agree.
"""

from __future__ import annotations

import queue
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeVar

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from ssm.interface import Preprocessing, center, served_crop
from ssm_platform.faces import FaceSettings, MainFace, TrackedFace, crop, crop_square, look_at, resolved, track
from ssm_platform.media import ArrayFrames, Decoder, InputLimits, Pictures, Video, open_input
from ssm_platform.models import Expressions, ModelDescription
from ssm_platform.read.windows import Assembler, Clip, ClipAnswer, Face, Row, Window

if TYPE_CHECKING:
    from ssm_platform.read.model_reader import ModelReader

Item = TypeVar("Item")
Source = Video | Pictures | ArrayFrames
Seen = Callable[[Clip, ClipAnswer], None]
Faces = Literal["all", "main"]
"""Which faces of a video are answered: every one, or the main person's."""
_AHEAD = 64  # frames of faces that may wait for the model


class AnalysisOptions(BaseModel):
    """How a video is read; part of a result's identity."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    faces: Faces = Field(default="all", description="every face, or the main person only")
    expressions: Expressions = Field(default="on", description="off: action units only, no expression is named")
    uncertainty: bool = Field(
        default=False, description="also AU01_u of each AU, how little is known; plots shade it (evidential models)"
    )
    most_faces: int = Field(default=8, ge=1, description="faces followed at once; the largest are kept")
    decoder: Decoder = Field(default="av", description="video decoder")
    least_quality: float = Field(
        default=0.3, ge=0, le=1, description="quality of a face below which its row is marked as not usable"
    )
    detection: FaceSettings = Field(default=FaceSettings(), description="how faces are found and followed")
    limits: InputLimits = Field(default=InputLimits(), description="what is accepted")


@dataclass(frozen=True)
class FaceFrame:
    """A frame reduced to its faces. `fresh`: nothing connects it to the frame before (pictures)."""

    number: int
    timestamp: float | None
    faces: list[Face]
    fresh: bool


def analyse(
    paths: Sequence[Path], reader: ModelReader, options: AnalysisOptions | None = None, batch: int = 8
) -> Iterator[Row | Window]:
    """Rows and windows of one video (or of pictures), in order of frames. ValueError for an input that is refused.

    Decoding and face detection run in a thread beside the model, so neither waits for the other.
    """
    options = options or AnalysisOptions()
    yield from read_opened(open_input(paths, options.decoder, options.limits), reader, options, batch)


def read_opened(
    source: Source, reader: ModelReader, options: AnalysisOptions, batch: int = 8, seen: Seen | None = None
) -> Iterator[Row | Window]:
    """`analyse` of an input that is open already; `seen` is told of every clip and its answer."""
    assembler = assembler_for(reader.description.shown(options.expressions))
    waiting: deque[Clip] = deque()
    for frame in _ahead(face_stream(source, reader.description.preprocessing, options)):
        waiting += feed(assembler, frame)
        while len(waiting) >= batch:
            _read(assembler, reader, [waiting.popleft() for _ in range(batch)], seen)
        yield from assembler.results()
    waiting += assembler.finish()
    while waiting:
        _read(assembler, reader, [waiting.popleft() for _ in range(min(batch, len(waiting)))], seen)
        yield from assembler.results()
    yield from assembler.results()


def assembler_for(model: ModelDescription) -> Assembler:
    """The state machine for a model's clips, rule and smoothing, and for what is shown (`ModelDescription.shown`)."""
    shows = bool(model.vocabulary.expressions)
    return Assembler(
        model.frames, model.rule.apply, model.rule.reach, model.smoothing,
        expressions=shows, abstention=model.abstention,
    )  # fmt: skip


def feed(assembler: Assembler, frame: FaceFrame) -> list[Clip]:
    """Give a frame to the assembler; returns the clips it completes."""
    clips = assembler.finish() if frame.fresh else []
    return clips + assembler.frame(frame.number, frame.timestamp, frame.faces)


def face_stream(source: Source, preprocessing: Preprocessing, options: AnalysisOptions) -> Iterator[FaceFrame]:
    """Frames reduced to their faces' crops, a few frames in memory at a time. ValueError where decoding fails.

    The crop is the one that the model learned from (`Preprocessing.crop`), so far as serving can make it.
    """
    options = options.model_copy(update={"detection": resolved(options.detection)})
    check_crop(preprocessing, options)
    least = options.least_quality
    if source.facts.kind == "video":
        untimed = source.facts.rate is None  # a clip handed in as an array
        choose = Chooser(options)
        for (number, timestamp, image), found in track(source.frames(), options.detection):
            faces = crops_of(image, choose(image, found), preprocessing, least)
            yield FaceFrame(number, None if untimed else timestamp, faces, False)
        return
    for frame in source.frames():
        number, _, image = frame
        for _, found in track([frame], options.detection):
            chosen = Chooser(options)(image, found)
            yield FaceFrame(number, None, crops_of(image, chosen, preprocessing, least), True)


def check_crop(preprocessing: Preprocessing, options: AnalysisOptions) -> None:
    """ValueError where the detector of `options` cannot make the crops that the model reads."""
    if served_crop(preprocessing.crop).alignment == "eyes" and options.detection.detector == "haar":
        raise ValueError("the model reads crops with level eyes, which need the points of YuNet: detection.detector")


class Chooser:
    """Which of a frame's faces are answered: the largest few, or the main person as far as known by this frame."""

    def __init__(self, options: AnalysisOptions) -> None:
        self._most = options.most_faces
        self._main = MainFace() if options.faces == "main" else None
        self._present: frozenset[int] = frozenset()
        self._ids: set[int] = set()

    def __call__(self, image: NDArray[np.uint8], found: Sequence[TrackedFace]) -> list[TrackedFace]:
        kept = sorted(found, key=lambda face: (-face.w * face.h, face.face_id))[: self._most]
        if self._main is None:
            return kept
        self._main.add(kept, image.shape[0], image.shape[1])
        present = frozenset(face.face_id for face in kept)
        if present != self._present:  # the order of weights is looked at when someone comes or goes
            self._present, self._ids = present, set(self._main.ids())
        return [face for face in kept if face.face_id in self._ids]


def crops_of(
    image: NDArray[np.uint8], found: Sequence[TrackedFace], preprocessing: Preprocessing, least: float
) -> list[Face]:
    kind, faces = served_crop(preprocessing.crop), []
    margin, centre = kind.margin or 0.0, preprocessing.image_size / (preprocessing.resize or preprocessing.image_size)
    for face in found:
        square = crop_square(face, margin, kind.alignment)
        pixels = center(crop(image, face, margin, alignment=kind.alignment)[None], preprocessing)[0]
        shown = square._replace(side=square.side * centre)
        faces.append(Face(face.face_id, face[1:5], face.score, pixels, shown, look_at(image, face, least)))
    return faces


def _read(assembler: Assembler, reader: ModelReader, clips: list[Clip], seen: Seen | None) -> None:
    answers = reader.read(np.stack([clip.crops for clip in clips]))
    for number, clip in enumerate(clips):
        assembler.answer(clip, answers.clip(number))
        if seen is not None:
            seen(clip, answers.clip(number))


def _ahead(items: Iterator[Item]) -> Iterator[Item]:
    """`items`, made by a thread that runs a bounded number of items ahead; its error is raised here."""
    ready: queue.Queue[Item | _End] = queue.Queue(_AHEAD)
    stop = threading.Event()

    def produce() -> None:
        error: BaseException | None = None
        try:
            for item in items:
                if not _put(ready, item, stop):
                    return
        except BaseException as raised:  # noqa: BLE001 handed to the consumer, which raises it
            error = raised
        _put(ready, _End(error), stop)

    thread = threading.Thread(target=produce, name="faces", daemon=True)
    thread.start()
    try:
        while True:
            item = ready.get()
            if isinstance(item, _End):
                if item.error is not None:
                    raise item.error
                return
            yield item
    finally:
        stop.set()
        thread.join()


@dataclass(frozen=True)
class _End:
    error: BaseException | None


def _put(ready: queue.Queue[Item | _End], item: Item | _End, stop: threading.Event) -> bool:
    """Wait for room; False when nobody wants more."""
    while not stop.is_set():
        try:
            ready.put(item, timeout=0.2)
        except queue.Full:
            continue
        return True
    return False
