"""From faces in frames to clips for the model, and from answered clips to rows in order: no file, no model, no thread.

One state machine serves the command line, notebooks and HTTP, so that they give the same numbers. A face that stays is
a run; a run is cut into clips of T consecutive frames, the last of which repeats its last frame, as
`ssm.inference.predictor.Predictor` does and evaluation did. A frame without the face ends the run: nothing is smoothed
or voted across the gap. Rows leave in order of frames as soon as every face of the frame is answered and its vote can
no longer change; what is held is bounded by T, the vote's reach and the number of faces.

Letters: T frames of a clip, A action units, E expressions, S side of the model's input.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from ssm.interface import Abstention, Smoothing, box
from ssm_platform.faces import Look, Square

Floats = NDArray[np.float32]
Flags = NDArray[np.bool_]
Box = tuple[float, float, float, float]

DECIMALS = 5
"""Probabilities are given to this many decimals everywhere: batches of other sizes differ in the seventh."""


@dataclass(frozen=True)
class Face:
    """One face in one frame: who, where (x, y, width, height in pixels), how sure, crop (S, S, 3) uint8, what of the
    frame the crop shows, pose.
    """

    face_id: int
    box: Box
    score: float
    crop: NDArray[np.uint8]
    square: Square
    look: Look | None = None


@dataclass(frozen=True)
class Sighting:
    """When and where a crop of a clip was seen: the face's box, and what of the frame the crop shows."""

    timestamp: float | None
    box: Box
    square: Square


@dataclass(frozen=True)
class Clip:
    """T consecutive crops of one face, of which the first `count` are real."""

    number: int
    face_id: int
    start: int  # number of the first frame
    count: int
    crops: NDArray[np.uint8]  # T S S 3
    sightings: tuple[Sighting, ...] = ()  # of the real ones; none of a camera's


@dataclass(frozen=True)
class ClipAnswer:
    """What the model says of one clip."""

    au_probability: Floats  # T A
    expression: Floats  # E
    why: Floats | None  # E A, what each AU adds to each expression through the learned map, where there is one
    affect: Floats | None = None  # T 2, valence and arousal, where the model has them
    affect_why: Floats | None = None  # 2 A, what each AU adds to them
    au_uncertainty: Floats | None = None  # T A, of models that give evidence


@dataclass(frozen=True)
class ClipAnswers:
    """What the model says of B clips."""

    au_probability: Floats  # B T A
    expression: Floats  # B E
    why: Floats | None  # B E A
    affect: Floats | None = None  # B T 2
    affect_why: Floats | None = None  # B 2 A
    au_uncertainty: Floats | None = None  # B T A

    @property
    def _optional(self) -> tuple[Floats | None, ...]:
        return (self.why, self.affect, self.affect_why, self.au_uncertainty)

    def clip(self, number: int) -> ClipAnswer:
        """The answer to one of them."""
        optional = (None if value is None else value[number] for value in self._optional)
        return ClipAnswer(self.au_probability[number], self.expression[number], *optional)

    def part(self, start: int, stop: int) -> ClipAnswers:
        """The answers to clips start .. stop-1."""
        optional = (None if value is None else value[start:stop] for value in self._optional)
        return ClipAnswers(self.au_probability[start:stop], self.expression[start:stop], *optional)

    @classmethod
    def joined(cls, pieces: Sequence[ClipAnswers]) -> ClipAnswers:
        """Several batches, one after another, of one model."""
        return cls(
            np.concatenate([piece.au_probability for piece in pieces]),
            np.concatenate([piece.expression for piece in pieces]),
            *(_together(values) for values in zip(*(piece._optional for piece in pieces), strict=True)),
        )


def _together(arrays: Sequence[Floats | None]) -> Floats | None:
    there = [array for array in arrays if array is not None]
    return np.concatenate(there) if there else None


@dataclass(frozen=True)
class Row:
    """A line of the table: one face in one frame, or a frame without a face (then `success` is False)."""

    frame: int
    timestamp: float | None
    face_id: int | None = None
    score: float = 0.0
    box: Box | None = None
    au_present: Flags | None = None  # A
    au_probability: Floats | None = None  # A
    expression: Floats | None = None  # E
    affect: Floats | None = None  # 2, smoothed
    look: Look | None = None
    au_uncertainty: Floats | None = None  # A, of models that give evidence
    au_withheld: Flags | None = None  # A, whose presence is not answered; None: all are

    @property
    def success(self) -> bool:
        """Whether there is a face."""
        return self.box is not None


@dataclass(frozen=True)
class Window:
    """The expression over the frames of one clip, and why."""

    face_id: int
    start: int
    frames: int
    expression: Floats  # E
    why: Floats | None  # E A
    affect_why: Floats | None = None  # 2 A


@dataclass(frozen=True)
class Final:
    """A frame whose answers can no longer change."""

    present: Flags  # A
    probability: Floats  # A
    expression: Floats  # E
    affect: Floats | None  # 2


Vote = Callable[[Floats], Flags]
"""A model's fitted rule over a stretch without a break: probabilities (n, A) -> present (n, A)."""


class Votes:
    """The answers of one run, smoothed and voted, handed out frame by frame as soon as they can no longer change."""

    def __init__(self, vote: Vote, reach: int, smoothing: Smoothing = Smoothing()) -> None:  # noqa: B008 frozen
        """`reach`: frames on either side that the vote looks at; `smoothing`: what is done to frame scores before."""
        self._vote, self._smoothing = vote, smoothing
        self._reach = max(reach + smoothing.aus, smoothing.affect, smoothing.expressions)
        self._held: ClipAnswer | None = None  # frames not handed out yet, after the context that they need
        self._base = 0  # offset in the run of the first frame held
        self.pushed = 0
        self.ready_to = 0  # offsets below this were handed out

    @property
    def held(self) -> int:
        """Frames in memory."""
        return 0 if self._held is None else len(self._held.au_probability)

    def push(self, probabilities: Floats, expression: Floats, affect: Floats | None = None) -> None:
        """The next frames of the run: AUs (n, A), the expression (E) of all of them, affect (n, 2)."""
        count = len(probabilities)
        came = ClipAnswer(probabilities, np.repeat(expression[None], count, axis=0), None, affect)
        held = self._held
        if held is not None:
            came = ClipAnswer(
                np.concatenate([held.au_probability, came.au_probability]),
                np.concatenate([held.expression, came.expression]),
                None,
                _together([held.affect, affect]),
            )
        self._held = came
        self.pushed += count

    def ready(self, whole: bool) -> list[Final]:
        """The frames that became certain; `whole`: nothing more will be pushed."""
        certain = self.pushed if whole else max(self.ready_to, self.pushed - self._reach)
        held = self._held
        if held is None or certain == self.ready_to:
            return []
        probability = smoothed(held.au_probability, self._smoothing.aus)
        present = self._vote(probability)
        expression = smoothed(held.expression, self._smoothing.expressions)
        affect = None if held.affect is None else smoothed(held.affect, self._smoothing.affect)
        rows = [
            Final(
                present[row],
                np.round(probability[row], DECIMALS),
                np.round(expression[row], DECIMALS),
                None if affect is None else np.round(affect[row], DECIMALS),
            )
            for row in range(self.ready_to - self._base, certain - self._base)
        ]
        keep = max(0, certain - self._reach)
        cut = slice(keep - self._base, None)
        rest = None if held.affect is None else held.affect[cut]
        self._held = ClipAnswer(held.au_probability[cut], held.expression[cut], None, rest)
        self._base, self.ready_to = keep, certain
        return rows


def withheld(doubts: Floats | None, abstention: Abstention | None) -> Flags | None:
    """Of which AUs (A) presence is not answered, by a frame's doubts; None where nothing was fitted."""
    return None if doubts is None or abstention is None else abstention.withheld(doubts)


def smoothed(values: Floats, half_window: int) -> Floats:
    """The moving mean of scores (n, K) of consecutive frames."""
    return box(values, half_window).astype(np.float32) if half_window else values


@dataclass
class _Run:
    """One face over frames without a gap."""

    start: int
    votes: Votes
    crops: list[NDArray[np.uint8]] = field(default_factory=list)  # those no clip has yet
    sightings: list[Sighting] = field(default_factory=list)  # theirs
    length: int = 0
    ended: bool = False
    values: deque[Final] = field(default_factory=deque)
    doubts: deque[Floats] = field(default_factory=deque)  # A of each answered frame that has no row yet


@dataclass
class _Frame:
    number: int
    timestamp: float | None
    faces: list[tuple[Face, _Run, int]]  # with the offset in the run


class Assembler:
    """Feed frames, send the clips that come back to a model, hand in its answers, collect rows.

    `vote(probabilities (n, A)) -> present (n, A)` is the model's fitted rule over a stretch without a break, `reach`
    the frames on either side that it looks at; `smoothing` is what the model's facts say of frame scores, `abstention`
    whose presence is withheld. Without `expressions` rows have neither those nor affect, and there are no windows.
    """

    def __init__(
        self,
        frames: int,
        vote: Vote,
        reach: int,
        smoothing: Smoothing = Smoothing(),  # noqa: B008
        *,
        expressions: bool = True,
        abstention: Abstention | None = None,
    ) -> None:
        self._clip_frames, self._expressions = frames, expressions
        self._vote = vote
        self._reach = reach
        self._smoothing = smoothing
        self._abstention = abstention
        self._runs: dict[int, _Run] = {}
        self._waiting: deque[_Frame] = deque()
        self._asked: dict[int, _Run] = {}
        self._windows: deque[Window] = deque()
        self._number = 0

    def frame(self, number: int, timestamp: float | None, faces: Sequence[Face]) -> list[Clip]:
        """Take in the next frame; returns the clips it completes."""
        clips = self._end_runs(keep={face.face_id for face in faces})
        entry = _Frame(number, timestamp, [])
        for face in faces:
            run = self._runs.setdefault(face.face_id, _Run(number, Votes(self._vote, self._reach, self._smoothing)))
            entry.faces.append((_without_crop(face), run, run.length))
            run.crops.append(face.crop)
            run.sightings.append(Sighting(timestamp, face.box, face.square))
            run.length += 1
            if len(run.crops) == self._clip_frames:
                clips.append(self._cut(face.face_id, run))
        self._waiting.append(entry)
        return clips

    def finish(self) -> list[Clip]:
        """No more frames, or a cut between pictures: returns the clips that were still open."""
        return self._end_runs(keep=set())

    def answer(self, clip: Clip, answer: ClipAnswer) -> None:
        """Take in the model's answer to a clip; the clips of one face must be answered in order."""
        run = self._asked.pop(clip.number)
        shown = self._expressions
        expression = np.round(answer.expression if shown else answer.expression[:0], DECIMALS)
        if shown:
            why = None if answer.why is None else np.round(answer.why, DECIMALS)
            affect_why = None if answer.affect_why is None else np.round(answer.affect_why, DECIMALS)
            self._windows.append(Window(clip.face_id, clip.start, clip.count, expression, why, affect_why))
        affect = answer.affect[: clip.count] if shown and answer.affect is not None else None
        run.votes.push(answer.au_probability[: clip.count], expression, affect)
        run.doubts.extend([] if answer.au_uncertainty is None else answer.au_uncertainty[: clip.count])
        _settle(run)

    def results(self) -> Iterator[Row | Window]:
        """Windows answered since the last call, then the rows that are complete, in order of frames."""
        while self._windows:
            yield self._windows.popleft()
        while self._waiting and all(run.votes.ready_to > offset for _, run, offset in self._waiting[0].faces):
            entry = self._waiting.popleft()
            if not entry.faces:
                yield Row(entry.number, entry.timestamp)
            for face, run, _ in sorted(entry.faces, key=lambda item: item[0].face_id):
                final, doubts = run.values.popleft(), run.doubts.popleft() if run.doubts else None
                yield Row(
                    entry.number,
                    entry.timestamp,
                    face.face_id,
                    face.score,
                    face.box,
                    final.present,
                    final.probability,
                    final.expression,
                    final.affect,
                    face.look,
                    au_uncertainty=doubts,
                    au_withheld=withheld(doubts, self._abstention),
                )

    def _end_runs(self, keep: set[int]) -> list[Clip]:
        clips = []
        for face_id in [face_id for face_id in self._runs if face_id not in keep]:
            run = self._runs.pop(face_id)
            run.ended = True
            if run.crops:
                clips.append(self._cut(face_id, run))
            else:
                _settle(run)  # the last clip is full and may be answered already
        return clips

    def _cut(self, face_id: int, run: _Run) -> Clip:
        count = len(run.crops)
        crops = run.crops + run.crops[-1:] * (self._clip_frames - count)
        start = run.start + run.length - count
        clip = Clip(self._number, face_id, start, count, np.stack(crops), tuple(run.sightings))
        self._asked[clip.number] = run
        self._number += 1
        run.crops, run.sightings = [], []
        return clip


def _settle(run: _Run) -> None:
    """Move frames whose vote is certain to `values`."""
    run.values.extend(run.votes.ready(run.ended and run.votes.pushed == run.length))


def _without_crop(face: Face) -> Face:
    return replace(face, crop=np.empty((0, 0, 3), np.uint8))
