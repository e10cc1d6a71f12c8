"""From frames to answers: per-frame AUs, expressions over time and of the clip, and why. One path for every caller.

Frames go through `center` and `normalise` and then, as in evaluation, in windows of T consecutive frames; the last one
repeats its last frame. Presence is the fitted rule over the whole sequence. The expression of a clip is read from the
centres of T equal segments, as the model learned it; that of a window from its T frames.
`stream` holds a few windows whatever the length of the video. Knows no file and no face detector.
Letters: N frames, W windows, B windows in one pass, T frames of a window, S side, A AUs, E expressions, D width.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ssm.inference.explain import Explainer
from ssm.interface import DecisionRule, Frames, Preprocessing, Smoothing, box, center, normalise, segment_centres
from ssm.labels import Vocabulary
from ssm.model import Evidence, FrameFeatures, LabelAffect, Precision, autocast, resolve
from ssm.saved import SSM

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Answers:
    """What the model says of B windows."""

    au_probability: Floats  # B T A
    expression: Floats  # B E, probabilities
    why: Floats | None  # B E A: what each AU adds to each semantic logit; None without mapped prototypes
    affect: Floats | None = None  # B T 2: valence and arousal; None where the model has none
    affect_why: Floats | None = None  # B 2 A: what each AU adds before tanh, mean over the frames; None: no label head
    au_uncertainty: Floats | None = None  # B T A in (0, 1], doubt of Beta evidence; None of other readers


@dataclass(frozen=True)
class WindowAnswer:
    """Consecutive frames, final: the rule has seen all that it looks at. `start` counts from the first frame."""

    start: int
    au_probability: Floats  # n A, n <= T
    au_present: NDArray[np.bool_]  # n A
    expression: Floats  # E
    why: Floats | None  # E A
    affect: Floats | None = None  # n 2, smoothed
    affect_why: Floats | None = None  # 2 A
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
    affect: Floats | None = None  # N 2, smoothed as the model's facts say
    window_affect_why: Floats | None = None  # W 2 A
    au_uncertainty: Floats | None = None  # N A
    au_withheld: NDArray[np.bool_] | None = None  # N A: whose presence had better not be answered; None: not fitted


@dataclass(frozen=True)
class _Pass:
    """What one pass over B windows gives."""

    aus: Tensor  # B T A, probabilities
    expression: Tensor  # B E, probabilities
    why: Tensor | None  # B E A
    features: Tensor  # B T D
    affect: Tensor | None  # B T 2
    affect_why: Tensor | None  # B 2 A
    uncertainty: Tensor | None  # B T A


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
        self.smoothing = model.facts.smoothing or Smoothing()
        self.abstention = model.facts.abstention
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
        return Answers(
            _array(found.aus), _array(found.expression), _optional(found.why), _optional(found.affect),
            _optional(found.affect_why), _optional(found.uncertainty),
        )  # fmt: skip

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
        doubts = _joined([window.au_uncertainty for window in windows], np.concatenate)
        return Prediction(
            vocabulary=self.model.vocabulary,
            au_probability=np.concatenate([window.au_probability for window in windows]),
            au_present=np.concatenate([window.au_present for window in windows]),
            expression=_array(expression)[0],
            why=None if why is None else _array(why)[0],
            window_starts=np.array([window.start for window in windows], np.int64),
            window_expression=np.stack([window.expression for window in windows]),
            window_why=None if why is None else np.stack([w.why for w in windows if w.why is not None]),
            affect=_joined([window.affect for window in windows], np.concatenate),
            window_affect_why=_joined([window.affect_why for window in windows], np.stack),
            au_uncertainty=doubts,
            au_withheld=None if self.abstention is None or doubts is None else self.abstention.withheld(doubts),
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
        vote = _Vote(self.rule, self.smoothing)
        start = 0
        for clips, sizes in self._batches(chunks):
            found = self._read(clips)
            real = sum(sizes)
            for frame in wanted[(wanted >= start) & (wanted < start + real)]:
                kept.append(found.features.flatten(0, 1)[int(frame) - start])
            for place, size in enumerate(sizes):
                vote.add(_window(found, place, start, size))
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

    def _read(self, clips: NDArray[np.uint8]) -> _Pass:
        """One pass; ValueError for windows of another shape."""
        with autocast(self.device, self.precision):
            features = self._features(normalise(self._pixels(clips), self.preprocessing), clips)
            aus = self.model.read_aus(features, self.model.prototypes())
            expression, why = self._expression(features.pooled)
            affect, affect_why = self._affect(features)
        warmth = self.model.facts.au_temperature
        logits = aus.logits if warmth is None else aus.logits / warmth
        focus = self.model.config.au_reader.focus
        doubt = None if aus.evidence is None else Evidence.of(aus.evidence).doubt(focus)
        return _Pass(logits.sigmoid(), expression, why, features.pooled, affect, affect_why, doubt)

    def _affect(self, features: FrameFeatures) -> tuple[Tensor | None, Tensor | None]:
        """Valence and arousal (B T 2), and what each AU adds to them (B 2 A); None for what the model lacks."""
        head, prototypes = self.model.affect_head, self.model.prototypes()
        if head is None:
            return None, None
        affect = self.model.read_affect(features, prototypes)
        if not isinstance(head, LabelAffect):
            return affect, None
        return affect, head.terms(*self.model.affect_inputs(features, prototypes)).by_au.mean(1)

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
        warmth = self.model.facts.expression_temperature
        return (logits if warmth is None else logits / warmth).softmax(-1), why


def _distinct(clips: NDArray[np.uint8], device: torch.device) -> Tensor | None:
    """How many frames lead each window before its last one repeats (B), so that a picture is encoded once, not T times;
    None where no window ends in a repeat.
    """
    if not len(clips) or (clips[:, -1] != clips[:, -2 % clips.shape[1]]).any((1, 2, 3)).all():
        return None
    changes = (clips[:, 1:] != clips[:, :-1]).any((2, 3, 4))
    counts = [int(np.flatnonzero(row).max(initial=-1)) + 2 for row in changes]
    return torch.tensor(counts, device=device)


class _Vote:
    """Holds windows back until rule and box have seen every frame that their answers depend on."""

    def __init__(self, rule: DecisionRule, smoothing: Smoothing) -> None:
        self._rule, self._smoothing = rule, smoothing
        self._reach = max(rule.reach + smoothing.aus, smoothing.affect)
        self._before: WindowAnswer | None = None  # frames already answered that later ones look at
        self._held: list[WindowAnswer] = []

    def add(self, window: WindowAnswer) -> None:
        """The next window, as the model read it."""
        self._held.append(window)

    def final(self, ended: bool = False) -> Iterator[WindowAnswer]:
        """Windows whose answers cannot change any more; all of them once the sequence has ended."""
        ahead = 0
        ready = len(self._held)
        while not ended and ready > 0 and ahead < self._reach:
            ready -= 1
            ahead += len(self._held[ready].au_probability)
        if ready == 0 or (not ended and ahead < self._reach):
            return
        known = [*([self._before] if self._before else []), *self._held]
        together = np.concatenate([window.au_probability for window in known])
        affect = _joined([window.affect for window in known], np.concatenate)
        aus = box(together, self._smoothing.aus).astype(np.float32) if self._smoothing.aus else together
        present = self._rule.apply(aus)
        smooth = None if affect is None else box(affect, self._smoothing.affect).astype(np.float32)
        offset = 0 if self._before is None else len(self._before.au_probability)
        for window in self._held[:ready]:
            part = slice(offset, offset + len(window.au_probability))
            affect_here = None if smooth is None else smooth[part]
            yield replace(window, au_probability=aus[part], au_present=present[part], affect=affect_here)
            offset = part.stop
        context = slice(max(0, offset - self._reach), offset)
        self._before = replace(
            self._held[0], au_probability=together[context], affect=None if affect is None else affect[context]
        )
        self._held = self._held[ready:]


def _window(found: _Pass, place: int, start: int, size: int) -> WindowAnswer:
    """One window as it was read: nothing voted or smoothed yet, and frames that fill it up left out."""
    probabilities = _array(found.aus[place, :size])
    return WindowAnswer(
        start=start,
        au_probability=probabilities,
        au_present=np.zeros(probabilities.shape, np.bool_),
        expression=_array(found.expression[place]),
        why=None if found.why is None else _array(found.why[place]),
        affect=None if found.affect is None else _array(found.affect[place, :size]),
        affect_why=None if found.affect_why is None else _array(found.affect_why[place]),
        au_uncertainty=None if found.uncertainty is None else _array(found.uncertainty[place, :size]),
    )


def _joined(arrays: Sequence[Floats | None], how: Callable[[list[Floats]], Floats]) -> Floats | None:
    """Arrays of all windows as one; None where the model gives none."""
    there = [array for array in arrays if array is not None]
    return how(there) if there else None


def _optional(tensor: Tensor | None) -> Floats | None:
    return None if tensor is None else _array(tensor)


def _array(tensor: Tensor) -> Floats:
    return np.asarray(tensor.float().cpu().numpy(), np.float32)
