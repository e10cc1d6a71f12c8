"""A camera's frames to rows at once: each is read as the last of its face's clip, without waiting for frames to come.

`rows` reads a film whose future is known: clips lie end to end and votes look both ways. Here a frame is answered when
it comes: its clip is the face's last T frames, or the newest repeated where there are fewer, so that a first frame is
read as a picture is; the vote repeats the newest frame on its far side. A face that is away for more than `max_gap`
frames begins a new clip. Knows no file, no model, no thread.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ssm.interface import Preprocessing
from ssm_platform.faces import CameraFaces, resolved
from ssm_platform.models import ModelDescription
from ssm_platform.read.rows import AnalysisOptions, Chooser, FaceFrame, check_crop, crops_of
from ssm_platform.read.windows import DECIMALS, Clip, ClipAnswer, ClipAnswers, Face, Row, Window, smoothed, withheld


class CameraStream:
    """Frames reduced to their faces' crops, one by one: `rows.face_stream` for a camera. One object per camera."""

    def __init__(self, preprocessing: Preprocessing, options: AnalysisOptions) -> None:
        options = options.model_copy(update={"detection": resolved(options.detection)})
        check_crop(preprocessing, options)
        self._preprocessing, self._options = preprocessing, options
        self._faces, self._choose = CameraFaces(options.detection), Chooser(options)

    def __call__(self, number: int, timestamp: float, image: NDArray[np.uint8]) -> FaceFrame:
        """The next frame (H, W, 3)."""
        found, fresh = self._faces.push(image)
        if fresh:
            self._choose = Chooser(self._options)
        faces = crops_of(image, self._choose(image, found), self._preprocessing, self._options.least_quality)
        return FaceFrame(number, timestamp, faces, fresh)


@dataclass
class _Recent:
    """The last crops of a face, the frames they are of, and how many frames it has been away."""

    crops: deque[NDArray[np.uint8]]
    numbers: deque[int]
    away: int = 0


class CameraClips:
    """The clips that end with a frame, and the rows that their answers make. One object per camera.

    `model` is what of it is shown (`ModelDescription.shown`): without expressions there are no windows.
    """

    def __init__(self, model: ModelDescription, max_gap: int) -> None:
        self._model, self._max_gap = model, max_gap
        self._recent: dict[int, _Recent] = {}

    def clips(self, frame: FaceFrame) -> list[Clip]:
        """A clip for each face of the frame."""
        if frame.fresh:
            self._recent.clear()
        for face_id, recent in list(self._recent.items()):
            recent.away += 1
            if recent.away > self._max_gap + 1:
                del self._recent[face_id]
        return [self._clip(face.face_id, face.crop, frame.number) for face in frame.faces]

    def results(self, frame: FaceFrame, clips: Sequence[Clip], answers: ClipAnswers | None) -> list[Row | Window]:
        """The windows and rows of a frame, from the answers to its clips; None where it has none."""
        if answers is None:
            return [Row(frame.number, frame.timestamp)]
        told = [
            (face, clip, answers.clip(place)) for place, (face, clip) in enumerate(zip(frame.faces, clips, strict=True))
        ]
        windows = [self._window(clip, answer) for _, clip, answer in told] if self._model.vocabulary.expressions else []
        rows = [self._row(frame, face, clip, answer) for face, clip, answer in told]
        return [*windows, *sorted(rows, key=lambda row: row.face_id or 0)]

    def _window(self, clip: Clip, answer: ClipAnswer) -> Window:
        why = None if answer.why is None else np.round(answer.why, DECIMALS)
        affect_why = None if answer.affect_why is None else np.round(answer.affect_why, DECIMALS)
        return Window(clip.face_id, clip.start, clip.count, np.round(answer.expression, DECIMALS), why, affect_why)

    def _row(self, frame: FaceFrame, face: Face, clip: Clip, answer: ClipAnswer) -> Row:
        """Smoothed and voted over the frames so far: a camera has none that come later."""
        model = self._model
        probability = smoothed(answer.au_probability[: clip.count], model.smoothing.aus)
        affect = None
        doubts = None if answer.au_uncertainty is None else answer.au_uncertainty[clip.count - 1]
        if answer.affect is not None and model.vocabulary.affect:
            affect = np.round(smoothed(answer.affect[: clip.count], model.smoothing.affect)[-1], DECIMALS)
        return Row(
            frame.number,
            frame.timestamp,
            face.face_id,
            face.score,
            face.box,
            model.rule.apply(probability)[-1],
            np.round(probability[-1], DECIMALS),
            np.round(answer.expression[: len(model.vocabulary.expressions)], DECIMALS),
            affect,
            face.look,
            doubts,
            withheld(doubts, model.abstention),
        )

    def _clip(self, face_id: int, crop: NDArray[np.uint8], number: int) -> Clip:
        length = self._model.frames
        recent = self._recent.setdefault(face_id, _Recent(deque(maxlen=length), deque(maxlen=length)))
        recent.away = 0
        recent.crops.append(crop)
        recent.numbers.append(number)
        count = len(recent.crops)
        crops = [*recent.crops, *[crop] * (length - count)]
        return Clip(number, face_id, recent.numbers[0], count, np.stack(crops))
