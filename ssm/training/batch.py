"""Batches: what a step receives, one class per task, and the slices of it that go through the model.

A step's gradient is a sum over slices of a sum over clips, so cutting changes nothing but rounding. Clips travel as
uint8 and are normalised on the device (`ssm.interface.preprocessing.normalise`); labels are dense arrays beside a mask,
never ragged. Letters: B clips, T frames, H W pixels, A action units, E expressions,
K targets of a frame.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from itertools import zip_longest
from typing import Any, Self, TypeVar

import torch
from torch import Tensor

from ssm.interface import Preprocessing, normalise
from ssm.training.collective import Collective, send
from ssm.training.mixup import VA_STREAM, Mix, draw_mix, known, mix_clips, mix_targets
from ssm.training.shares import PADDING, exchanged, parts, slots


@dataclass(frozen=True)
class FEBatch:
    """Clips with one expression each. `class_mask` marks the classes of the clip's own corpus; none: no label."""

    clips: Tensor  # uint8 B T H W 3
    labels: Tensor  # int64 B, column of the vocabulary
    class_mask: Tensor  # bool B E, the softmax runs over these
    row_ids: Tensor  # int64 B, the row of the plan; seeds whatever is random about the clip in the model
    shares: Tensor | None = None  # float32 B E, a distribution over the classes; None: all on the label
    distinct: Tensor | None = None  # int64 B, frames that lead each clip before its last one repeats; None: all T
    whole: int | None = None  # clips of the global batch, where some workers have fewer (`shares`); None: B from each

    def to(self, device: torch.device) -> FEBatch:
        """The same batch on `device` (the host does not wait for a GPU)."""
        return _sent(self, device)


@dataclass(frozen=True)
class FrameBatch:
    """Clips with frame-level targets. Where `mask` is False the target is unknown and means nothing."""

    clips: Tensor  # uint8 B T H W 3
    targets: Tensor  # float32 B T K
    mask: Tensor  # bool B T K
    row_ids: Tensor  # int64 B
    whole: int | None = None  # as an `FEBatch` has it

    def to(self, device: torch.device) -> Self:
        """The same batch on `device` (the host does not wait for a GPU)."""
        return _sent(self, device)


@dataclass(frozen=True)
class AUBatch(FrameBatch):
    """Clips with AU targets B T A in [0, 1]."""


@dataclass(frozen=True)
class VABatch(FrameBatch):
    """Clips with valence and arousal B T 2 in [-1, 1]."""


_Batch = TypeVar("_Batch", bound=FEBatch | FrameBatch)


@dataclass(frozen=True)
class _Part:
    def split(self, slices: int) -> Iterator[Self]:
        """Cut every tensor along its rows into `slices` of nearly equal size."""
        cut = {f.name: _cut(getattr(self, f.name), slices) for f in fields(self)}
        for index in range(slices):
            yield type(self)(**{name: pieces[index] for name, pieces in cut.items()})


@dataclass(frozen=True)
class FEPart(_Part):
    """Expression clips with a weight each (None: all 1)."""

    clips: Tensor  # uint8 B T H W 3
    labels: Tensor  # int64 B
    class_mask: Tensor  # bool B E, all False where the clip's pixels could not be read
    row_ids: Tensor  # int64 B
    weights: Tensor | None = None  # float32 B
    shares: Tensor | None = None  # float32 B E, a distribution over the classes; None: all on the label
    distinct: Tensor | None = None  # int64 B, leading frames that differ; None: all T
    au_targets: Tensor | None = None  # float32 B A, what the map teaches of each clip's AUs; None: nothing
    au_weights: Tensor | None = None  # float32 B A

    @property
    def count(self) -> Tensor:
        """What the sum of losses is to be divided by, before summing over workers: clips without a class count 0."""
        known_B = self.class_mask.any(1)
        return known_B.sum().float() if self.weights is None else (self.weights * known_B).sum()

    @property
    def taught(self) -> Tensor:
        """What these clips add to what the sum of AU losses is to be divided by."""
        return self.row_ids.new_zeros((), dtype=torch.float32) if self.au_weights is None else self.au_weights.sum()

    def inputs(self, preprocessing: Preprocessing) -> Tensor:
        """float32 B T 3 H W."""
        return normalise(self.clips, preprocessing)


@dataclass(frozen=True)
class FramePart(_Part):
    """Clips of a frame-level task with the clips they are mixed with; `weights` is 0 where a target is unknown."""

    clips: Tensor  # uint8 B T H W 3
    targets: Tensor  # float32 B T K
    weights: Tensor  # float32 B T K
    row_ids: Tensor  # int64 B
    partners: Tensor | None = None  # uint8 B T H W 3
    share: float = 1.0

    @property
    def count(self) -> Tensor:
        """What the sum of losses is to be divided by, before summing over workers."""
        return self.weights.sum()

    def inputs(self, preprocessing: Preprocessing) -> Tensor:
        """float32 B T 3 H W, mixed."""
        clips = normalise(self.clips, preprocessing)
        if self.partners is None:
            return clips
        return mix_clips(clips, normalise(self.partners, preprocessing), self.share)


@dataclass(frozen=True)
class AUPart(FramePart):
    """The AU side (K = A)."""


@dataclass(frozen=True)
class VAPart(FramePart):
    """The side of valence and arousal (K = 2)."""


@dataclass(frozen=True)
class MicroBatch:
    """One forward pass; a side may be absent."""

    fe: FEPart | None
    au: AUPart | None
    va: VAPart | None = None

    @property
    def sides(self) -> tuple[bool, ...]:
        """Which of the sides are there."""
        return tuple(getattr(self, one.name) is not None for one in fields(self))

    def inputs(self, preprocessing: Preprocessing) -> dict[str, Tensor]:
        """The keyword arguments of the model's forward pass."""
        inputs: dict[str, Tensor] = {}
        for name, part in (("fe", self.fe), ("au", self.au), ("va", self.va)):
            if part is not None:
                inputs |= {f"{name}_clips": part.inputs(preprocessing), f"{name}_row_ids": part.row_ids}
        if self.fe is not None and self.fe.distinct is not None:
            inputs["fe_distinct"] = self.fe.distinct
        return inputs

    def first_frames(self, preprocessing: Preprocessing) -> Tensor:
        """float32 F 3 H W: of every clip but those that only fill up, not mixed."""
        parts = (part for part in (self.fe, self.au, self.va) if part is not None)
        clips = (part.clips[part.row_ids != PADDING, :1] for part in parts)
        return torch.cat([normalise(first, preprocessing).flatten(0, 1) for first in clips])

    def split(self, slices: int) -> list[MicroBatch]:
        """`slices` micro-batches of nearly equal size."""
        fe = self.fe.split(slices) if self.fe else ()
        au = self.au.split(slices) if self.au else ()
        va = self.va.split(slices) if self.va else ()
        return [MicroBatch(*sides) for sides in zip_longest(fe, au, va)]


def fe_part(batch: FEBatch, weights: Tensor | None = None) -> FEPart:
    """The expression side of a step."""
    return FEPart(batch.clips, batch.labels, batch.class_mask, batch.row_ids, weights, batch.shares, batch.distinct)


def au_part(
    batch: AUBatch, alpha: float, seed: int, step: int, collective: Collective, faces: FEBatch | None = None
) -> AUPart:
    """The AU side of a step; with `alpha` > 0 mixed with partners drawn from the global batch, or from `faces`.

    Nothing is known of the AUs of `faces`: there the clip's own labels count by its share, which is at least half.
    """
    if alpha == 0:
        return AUPart(batch.clips, known(batch.targets, batch.mask), batch.mask.float(), batch.row_ids)
    size = _whole(batch, collective)
    if faces is not None:
        mix = draw_mix(size, alpha, seed, step, among=_whole(faces, collective))
        return _among_faces(batch, faces, collective, mix)
    return AUPart(*_mixed(batch, draw_mix(size, alpha, seed, step), collective))


def va_part(batch: VABatch, alpha: float, seed: int, step: int, collective: Collective) -> VAPart:
    """The side of valence and arousal; mixed as AU clips are, by draws of its own."""
    if alpha == 0:
        return VAPart(batch.clips, known(batch.targets, batch.mask), batch.mask.float(), batch.row_ids)
    mix = draw_mix(_whole(batch, collective), alpha, seed, step, stream=VA_STREAM)
    return VAPart(*_mixed(batch, mix, collective))


def _mixed(batch: FrameBatch, mix: Mix, collective: Collective) -> tuple[Any, ...]:
    """The fields of a part whose clips are mixed with others of the global batch."""
    rows = torch.from_numpy(exchanged(mix.partners.numpy(), collective.world))
    clips, targets, mask = (collective.take(tensor, rows) for tensor in (batch.clips, batch.targets, batch.mask))
    mixed, weights = mix_targets(batch.targets, batch.mask, targets, mask, mix.share)
    return batch.clips, mixed, weights, batch.row_ids, clips, mix.share


def _among_faces(batch: AUBatch, faces: FEBatch, collective: Collective, mix: Mix) -> AUPart:
    """AU clips with faces of the other task mixed into their pictures."""
    share, world = max(mix.share, 1 - mix.share), collective.world
    mine = parts(len(mix.partners), world)[collective.rank].clip(0)  # what fills up gets any face
    rows = torch.from_numpy(slots(_whole(faces, collective), world))[mix.partners[mine]]
    partners = collective.gather(faces.clips)[send(rows, faces.clips.device)]
    weights = share * batch.mask.float()
    return AUPart(batch.clips, known(batch.targets, batch.mask), weights, batch.row_ids, partners, share)


def _whole(batch: FEBatch | FrameBatch, collective: Collective) -> int:
    """Clips of the global batch."""
    return batch.whole or len(batch.clips) * collective.world


def _cut(value: Tensor | float | None, slices: int) -> list[Tensor | float | None]:
    return list(value.tensor_split(slices)) if isinstance(value, Tensor) else [value] * slices


def _sent(batch: _Batch, device: torch.device) -> _Batch:
    moved: dict[str, Any] = {name: send(value, device) for name, value in vars(batch).items() if torch.is_tensor(value)}
    return replace(batch, **moved)
