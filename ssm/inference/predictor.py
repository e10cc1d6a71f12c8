"""From frames to answers: per-frame AUs, expressions over time and of the clip, and why. One path for every caller.

Frames go through `center` and `normalise` and then, as in evaluation, in windows of T consecutive frames; the last one
repeats its last frame. Presence is the fitted rule over the whole sequence. The expression of a clip is read from the
centres of T equal segments, as the model learned it; that of a window from its T frames.
`stream` holds a few windows whatever the length of the video. Knows no file and no face detector.
Letters: N frames, W windows, B windows in one pass, T frames of a window, S side, A AUs, E expressions, D width.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ssm.inference.explain import Explainer
from ssm.interface import DecisionRule, Frames, Preprocessing, center, normalise, segment_centres
from ssm.labels import Vocabulary
from ssm.model import Evidence, FrameFeatures, Precision, autocast, resolve
from ssm.saved import SSM

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Answers:
    """What the model says of B windows."""

    au_probability: Floats  # B T A
    expression: Floats  # B E, probabilities
    why: Floats | None  # B E A: what each AU adds to each semantic logit; None without mapped prototypes
    au_uncertainty: Floats | None = None  # B T A in (0, 1], the vacuity of Beta evidence; None of other readers


@dataclass(frozen=True)
class WindowAnswer:
    """Consecutive frames, final: the rule has seen all that it looks at. `start` counts from the first frame."""

    start: int
    au_probability: Floats  # n A, n <= T
    au_present: NDArray[np.bool_]  # n A
    expression: Floats  # E
    why: Floats | None  # E A
    au_uncertainty: Floats | None = None  # n A


@dataclass(frozen=True)
class Prediction:
    """What a sequence of N frames shows. Columns are in the order of `vocabulary`."""

    vocabulary: Vocabulary
    au_probability: Floats  # N A
    au_present: NDArray[np.bool_]  # N A, by the fitted rule
    expression: Floats  # E, of the whole clip
    why: Floats | None  # E A, of the whole clip
    window_starts: NDArray[np.int64]  # W
    window_expression: Floats  # W E
    window_why: Floats | None  # W E A
    au_uncertainty: Floats | None = None  # N A


class Predictor:
    """A model made ready to answer. Not for use by several threads at once."""

    def __init__(
        self,
        model: SSM,
        preprocessing: Preprocessing,
        rule: DecisionRule | None = None,
        *,
        device: torch.device | str = "cpu",
        batch: int = 8,
        precision: Precision | Literal["auto"] = "auto",
        compiled: bool = False,
    ) -> None:
        """`rule` None: probability 0.5, no vote; `batch`: windows read at once. ValueError where parts do not fit.

        `compiled`: the backbone goes through torch.compile, a graph for each power of two up to `batch`.
        """
        if preprocessing.image_size != model.config.backbone.image_size:
            sizes = f"makes {preprocessing.image_size} pixels, the model takes {model.config.backbone.image_size}"
            raise ValueError(f"the preprocessing does not fit the model: it {sizes}")
        if batch < 1:
            raise ValueError(f"batch is {batch}: must be at least 1")
        aus = model.vocabulary.aus
        self.preprocessing, self.batch, self.device = preprocessing, batch, torch.device(device)
        self.precision = resolve(precision, self.device)
        self.rule = DecisionRule.default(aus) if rule is None else rule.select(aus)
        self.model = model.fold().to(self.device)
        self._explainer = Explainer.of(self.model)
        self._compiled = torch.compile(self.model.encode_frames, dynamic=False) if compiled else None

    @classmethod
    def from_pretrained(
        cls,
        folder: str | Path,
        *,
        device: torch.device | str = "cpu",
        batch: int = 8,
        precision: Precision | Literal["auto"] | None = None,
        compiled: bool = False,
        local_files_only: bool = False,
    ) -> Predictor:
        """A saved model with the preprocessing, the rule and the precision that were saved with it.

        ValueError without the first of them; `precision` stands for the saved one.
        """
        model = SSM.from_pretrained(folder, local_files_only=local_files_only)
        if model.facts.preprocessing is None:
            raise ValueError(f"{folder}: the model does not say how its input was prepared")
        return cls(
            model, model.facts.preprocessing, model.facts.rule, device=device, batch=batch,
            precision=precision or model.facts.precision,
            compiled=compiled,
        )  # fmt: skip

    @property
    def frames(self) -> int:
        """T."""
        return self.model.config.frames

    @torch.inference_mode()
    def read(self, clips: NDArray[np.uint8]) -> Answers:
        """Windows uint8 (B, T, S, S, 3), as `center` cut them, in one pass."""
        found = self._read(clips)
        return Answers(_array(found.aus), _array(found.expression), _optional(found.why), _optional(found.uncertainty))

    @torch.inference_mode()
    def where(self, clips: NDArray[np.uint8]) -> Floats:
        """Where each AU is looked for in windows as `read` takes them: shares (B, T, A, h, w) of the grid's places.

        ValueError of a model whose reader does not look at places.
        """
        grid = self.model.backbone.grid
        with autocast(self.device, self.precision):
            features = self._features(normalise(self._pixels(clips), self.preprocessing), clips)
            found = self.model.read_aus(features, self.model.prototypes(), where=True).where
        if found is None or grid is None:
            kind = self.model.config.au_reader.kind
            raise ValueError(f"au_reader.kind is {kind!r}, which looks at no places: train with 'hiva' for heat maps")
        return _array(found).reshape(*found.shape[:3], *grid)

    @torch.inference_mode()
    def predict(self, frames: Frames) -> Prediction:
        """All of a sequence of RGB frames uint8 (N, H, W, 3) without a gap. ValueError for others, and for none."""
        if len(frames) == 0:
            raise ValueError("there are no frames to predict from")
        features: list[Tensor] = []
        windows = list(self._stream([frames], features, segment_centres(len(frames), self.frames)))
        with autocast(self.device, self.precision):
            expression, why = self._expression(torch.stack(features)[None])
        return Prediction(
            vocabulary=self.model.vocabulary,
            au_probability=np.concatenate([window.au_probability for window in windows]),
            au_present=np.concatenate([window.au_present for window in windows]),
            expression=_array(expression)[0],
            why=None if why is None else _array(why)[0],
            window_starts=np.array([window.start for window in windows], np.int64),
            window_expression=np.stack([window.expression for window in windows]),
            window_why=None if why is None else np.stack([w.why for w in windows if w.why is not None]),
            au_uncertainty=_joined([window.au_uncertainty for window in windows]),
        )

    def stream(self, chunks: Iterable[Frames]) -> Iterator[WindowAnswer]:
        """Windows of one sequence that comes in pieces of any size, each as soon as it is final.

        Equal to `predict` up to the rounding of other batch sizes; memory does not grow with the length.
        """
        pending = self._stream(chunks, [], np.zeros(0, np.int64))
        while True:
            with torch.inference_mode():
                window = next(pending, None)
            if window is None:
                return
            yield window

    def _stream(
        self, chunks: Iterable[Frames], kept: list[Tensor], wanted: NDArray[np.int64]
    ) -> Iterator[WindowAnswer]:
        """Final windows; the features (D) of the frames numbered `wanted`, ascending, are put into `kept`."""
        vote = _Vote(self.rule)
        start = 0
        for clips, sizes in self._batches(chunks):
            found = self._read(clips)
            real = sum(sizes)
            for frame in wanted[(wanted >= start) & (wanted < start + real)]:
                kept.append(found.features.flatten(0, 1)[int(frame) - start])
            probabilities, expressions = _array(found.aus), _array(found.expression)
            reasons, doubts = _optional(found.why), _optional(found.uncertainty)
            for place, size in enumerate(sizes):
                reason = None if reasons is None else reasons[place]
                doubt = None if doubts is None else doubts[place, :size]
                vote.add(_Held(start, probabilities[place, :size], expressions[place], reason, doubt))
                start += size
            yield from vote.final()
        yield from vote.final(ended=True)

    def _batches(self, chunks: Iterable[Frames]) -> Iterator[tuple[Frames, list[int]]]:
        """Windows (B, T, S, S, 3) in order, and how many frames of each are real: T but for the last."""
        size, full = self.preprocessing.image_size, self.batch * self.frames
        waiting = np.empty((0, size, size, 3), np.uint8)
        for chunk in chunks:
            for first in range(0, len(chunk), full):
                waiting = np.concatenate([waiting, center(chunk[first : first + full], self.preprocessing)])
                while len(waiting) >= full:
                    yield waiting[:full].reshape(self.batch, self.frames, size, size, 3), [self.frames] * self.batch
                    waiting = waiting[full:]
        if len(waiting):
            windows = -(-len(waiting) // self.frames)
            missing = windows * self.frames - len(waiting)
            padded = np.concatenate([waiting, np.repeat(waiting[-1:], missing, axis=0)])
            sizes = [self.frames] * (windows - 1) + [self.frames - missing]
            yield padded.reshape(windows, self.frames, size, size, 3), sizes

    def _read(self, clips: NDArray[np.uint8]) -> _Found:
        with autocast(self.device, self.precision):
            features = self._features(normalise(self._pixels(clips), self.preprocessing), clips)
            aus = self.model.read_aus(features, self.model.prototypes())
            expression, why = self._expression(features.pooled)
        doubt = None if aus.evidence is None else Evidence.of(aus.evidence).vacuity
        return _Found(aus.logits.sigmoid(), doubt, expression, why, features.pooled)

    def _pixels(self, clips: NDArray[np.uint8]) -> Tensor:
        """The windows on the device. ValueError for anything else."""
        size = self.preprocessing.image_size
        if clips.dtype != np.uint8 or clips.ndim != 5 or clips.shape[1:] != (self.frames, size, size, 3):
            raise ValueError(
                f"clips are {clips.dtype} {list(clips.shape)}: must be uint8 [B, {self.frames}, {size}, {size}, 3]"
            )
        return torch.from_numpy(np.ascontiguousarray(clips)).to(self.device, non_blocking=True)

    def _features(self, inputs: Tensor, clips: Frames) -> FrameFeatures:
        """Features (B, T ...). Compiled, the batch is filled up to the next power of two: a graph for each of those."""
        count, frames = inputs.shape[:2]
        if self._compiled is None:
            return self.model.encode_clips(inputs, _distinct(clips, self.device))
        whole = 1 << (count - 1).bit_length()
        filled = torch.cat([inputs, inputs.new_zeros(whole - count, *inputs.shape[1:])])
        return self._compiled(filled.flatten(0, 1)).shaped(whole, frames).rows(slice(count))

    def _expression(self, features_BTD: Tensor) -> tuple[Tensor, Tensor | None]:
        """Probabilities (B E) and reasons (B E A) of clips given by their frames' features."""
        clip_BD = self.model.expression_time(features_BTD)
        prototypes = self.model.prototypes()
        logits, _ = self.model.fe_head(clip_BD, None if prototypes is None else prototypes.expressions)
        why = None if self._explainer is None else self._explainer(clip_BD).by_au
        return logits.softmax(-1), why


def _distinct(clips: NDArray[np.uint8], device: torch.device) -> Tensor | None:
    """How many frames lead each window before its last one repeats (B), so that a picture is encoded once, not T times;
    None where no window ends in a repeat.
    """
    if not len(clips) or (clips[:, -1] != clips[:, -2 % clips.shape[1]]).any((1, 2, 3)).all():
        return None
    changes = (clips[:, 1:] != clips[:, :-1]).any((2, 3, 4))
    counts = [int(np.flatnonzero(row).max(initial=-1)) + 2 for row in changes]
    return torch.tensor(counts, device=device)


@dataclass(frozen=True)
class _Found:
    """What a pass over B windows finds, on the device."""

    aus: Tensor  # B T A, probabilities
    uncertainty: Tensor | None  # B T A
    expression: Tensor  # B E, probabilities
    why: Tensor | None  # B E A
    features: Tensor  # B T D


@dataclass(frozen=True)
class _Held:
    """A window that waits for its presence."""

    start: int
    au_probability: Floats
    expression: Floats
    why: Floats | None
    au_uncertainty: Floats | None


class _Vote:
    """Holds windows back until the rule has seen every frame that their presence depends on."""

    def __init__(self, rule: DecisionRule) -> None:
        self._rule = rule
        self._before: Floats | None = None  # frames already answered that later votes look at
        self._held: list[_Held] = []

    def add(self, window: _Held) -> None:
        """The next window."""
        self._held.append(window)

    def final(self, ended: bool = False) -> Iterator[WindowAnswer]:
        """Windows whose presence cannot change any more; all of them once the sequence has ended."""
        ahead = 0
        ready = len(self._held)
        while not ended and ready > 0 and ahead < self._rule.reach:
            ready -= 1
            ahead += len(self._held[ready].au_probability)
        if ready == 0 or (not ended and ahead < self._rule.reach):
            return
        known = [window.au_probability for window in self._held]
        if self._before is not None:
            known.insert(0, self._before)
        together = np.concatenate(known)
        present = self._rule.apply(together)
        offset = 0 if self._before is None else len(self._before)
        for window in self._held[:ready]:
            size = len(window.au_probability)
            yield WindowAnswer(
                window.start, window.au_probability, present[offset : offset + size], window.expression, window.why,
                window.au_uncertainty,
            )  # fmt: skip
            offset += size
        self._held = self._held[ready:]
        self._before = together[max(0, offset - self._rule.reach) : offset]


def _optional(tensor: Tensor | None) -> Floats | None:
    return None if tensor is None else _array(tensor)


def _joined(parts: list[Floats | None]) -> Floats | None:
    known = [part for part in parts if part is not None]
    return np.concatenate(known) if known else None


def _array(tensor: Tensor) -> Floats:
    return np.asarray(tensor.float().cpu().numpy(), np.float32)
