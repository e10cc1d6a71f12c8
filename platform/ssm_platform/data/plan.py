"""The order of training: a pure function of (manifests, mixture weights, seed, epoch), as cheap columns of pointers.

One plan serves all tasks. Global batch `step` is `fe_batch` expression rows, `au_batch` AU rows and `va_batch` rows of
valence and arousal in a repeating unit of (fe_batch / g, au_batch / g, va_batch / g) rows, g = gcd; `shares` says which
of them each worker has. An epoch lasts as long as the longest task. Each corpus is an endless chain of passes, a pass
being a permutation of its clips; a new pass starts where the last one ends, across batches and epochs, so nothing is
dropped. Corpora of a task share its rows by weight, exactly apportioned per epoch (largest remainder) and spread evenly
over it.
Permutations and seeds are sorted or mixed integer hashes, not a library's generator: they outlive its versions.
Knows no pixels, no Ray and no worker count.

Legend: N clips of a corpus, C corpora of a task, D rows of a task in an epoch, G rows of a global batch.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, model_validator

from ssm.training import PADDING
from ssm_platform.base import mix, text_key
from ssm_platform.data.sampling import Windows, windows
from ssm_platform.data.shares import Shares
from ssm_platform.records import Manifest, Task

FE, AU, VA = 0, 1, 2
_PERMUTATIONS = 32  # kept by a process; 4 bytes a clip each
TASK_CODES: Mapping[Task, int] = {"fe": FE, "au": AU, "va": VA}


class PlanConfig(BaseModel):
    """What decides the order besides the manifests."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    fe_batch: int = Field(default=12, ge=0, description="expression clips in a global batch; 0: none")
    au_batch: int = Field(default=8, ge=0, description="AU clips in a global batch; 0: none")
    va_batch: int = Field(default=0, ge=0, description="clips of valence and arousal in a global batch; 0: none")
    frames: int = Field(default=16, ge=1, le=1024, description="frames T of a clip")
    seed: int = Field(default=1, ge=0, lt=2**31, description="seed of every permutation and of every row")
    weights: dict[str, float] | None = Field(
        default=None, description="share of its task's rows per corpus, relative; null: by number of clips"
    )

    @model_validator(mode="after")
    def _sensible(self) -> Self:
        if self.global_batch == 0:
            raise ValueError("fe_batch, au_batch and va_batch are all 0: a plan needs at least one task")
        for corpus, weight in (self.weights or {}).items():
            if not 0 < weight < math.inf:
                raise ValueError(f"weight of corpus {corpus!r} is {weight}: must be positive")
        return self

    @property
    def global_batch(self) -> int:
        """Rows G of one step."""
        return sum(self.batches)

    @property
    def batches(self) -> tuple[int, ...]:
        """Rows of each task in a step, in the order of `TASK_CODES`."""
        return tuple(self.batch(task) for task in TASK_CODES)

    def batch(self, task: Task) -> int:
        """Rows of one task in a step."""
        return int(getattr(self, f"{task}_batch"))

    def shares(self, world: int) -> Shares:
        """Each worker's places of a global batch. ValueError for more workers than it has clips."""
        return Shares.of(_pattern(self), world)


@dataclass(frozen=True, eq=False)
class Rows:
    """Pointers to clips, one array per column, all of one length."""

    row: NDArray[np.int64]  # global number: step * G + place in the global batch; `PADDING`: no clip
    task: NDArray[np.int8]  # FE or AU
    corpus: NDArray[np.int16]  # index of the manifest
    record: NDArray[np.int32]  # index in that manifest
    start: NDArray[np.int32]  # AU, VA: first frame of the window in its record; FE: 0
    seed: NDArray[np.int64]  # >= 0, of everything random about this clip

    def __len__(self) -> int:
        return len(self.row)

    def __getitem__(self, index: slice | NDArray[np.int64] | NDArray[np.bool_]) -> Rows:
        return Rows(**{name: column[index] for name, column in self.columns().items()})

    def filled(self, places: NDArray[np.int64], tasks: NDArray[np.int8]) -> Rows:
        """The rows at `places`; where that is `PADDING`, a row of that task without a clip."""
        rows, empty = self[places.clip(0)], places == PADDING
        return replace(rows, row=np.where(empty, PADDING, rows.row), task=np.where(empty, tasks, rows.task))

    def columns(self) -> dict[str, NDArray[Any]]:
        """The columns by name."""
        return dict(vars(self))

    @classmethod
    def concatenate(cls, parts: Sequence[Rows]) -> Rows:
        """One after the other; at least one part."""
        return cls(**{name: np.concatenate([getattr(part, name) for part in parts]) for name in vars(parts[0])})


@dataclass(frozen=True, eq=False)
class Clips:
    """Every clip that one corpus offers to training, in the order of its manifest."""

    corpus: str
    task: Task
    record: NDArray[np.int32]  # N
    start: NDArray[np.int32]  # N
    unlabelled: int = 0  # AU and VA windows left out because no frame of theirs has a known label

    def __len__(self) -> int:
        return len(self.record)

    @classmethod
    def of(cls, manifest: Manifest, frames: int) -> Clips:
        """FE: one clip per record. AU, VA: its windows, without those in which no label is known."""
        cut = _every_clip(manifest, frames)
        if manifest.task == "fe":
            return cls(manifest.corpus, "fe", cut.record, cut.start)
        known = _has_known_label(manifest, cut.record, cut.start, frames)
        return cls(manifest.corpus, manifest.task, cut.record[known], cut.start[known], int((~known).sum()))


class Plan:
    """The rows of any range of steps. Raises ValueError for a task without clips, or a weight without its corpus."""

    def __init__(self, corpora: Sequence[Clips], config: PlanConfig) -> None:
        self.corpora = tuple(corpora)
        self.config = config
        _check(self.corpora, config)
        tasks = [task for task in TASK_CODES if config.batch(task)]
        self.steps_per_epoch = max(-(-_size(self.corpora, task) // config.batch(task)) for task in tasks)
        self._sides = [_Side(task, self.corpora, config, self.steps_per_epoch) for task in tasks]

    @classmethod
    def of(cls, manifests: Sequence[Manifest], config: PlanConfig) -> Plan:
        """The plan over the clips of these manifests; `Rows.corpus` counts them in this order."""
        return cls([Clips.of(manifest, config.frames) for manifest in manifests], config)

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 (hex) of the config and every pointer: equal plans, and no others, have equal fingerprints."""
        settings = self.config.model_dump(mode="json", exclude=None if self.config.va_batch else {"va_batch"})
        digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode())  # without VA as before there was any
        for clips in self.corpora:
            digest.update(json.dumps([clips.corpus, clips.task, len(clips)]).encode())
            digest.update(clips.record.tobytes())
            digest.update(clips.start.tobytes())
        return digest.hexdigest()

    def epoch(self, epoch: int) -> Rows:
        """All rows of one epoch."""
        return self.rows(epoch * self.steps_per_epoch, (epoch + 1) * self.steps_per_epoch)

    def rows(self, first: int, last: int) -> Rows:
        """The rows of steps first..last-1, in order; a range may span epochs."""
        if not 0 <= first <= last:
            raise ValueError(f"steps {first}..{last}: must be 0 <= first <= last")
        parts = [self._within(*span) for span in _spans(first, last, self.steps_per_epoch)]
        return Rows.concatenate(parts) if parts else self._within(0, 0, 0)

    def _within(self, epoch: int, first: int, last: int) -> Rows:
        """Steps first..last-1 of one epoch."""
        config, steps = self.config, last - first
        pattern = np.tile(_pattern(config), steps)
        begin = (epoch * self.steps_per_epoch + first) * config.global_batch
        row = np.arange(begin, begin + len(pattern), dtype=np.int64)
        corpus = np.zeros(len(row), np.int16)
        record, start = np.zeros(len(row), np.int32), np.zeros(len(row), np.int32)
        for side in self._sides:
            mine = pattern == side.task
            corpus[mine], record[mine], start[mine] = side.draw(epoch, first, last)
        return Rows(row, pattern, corpus, record, start, _row_seeds(row, config.seed))


def evaluation_rows(manifests: Sequence[Manifest], frames: int) -> Rows:
    """Every expression clip once and every AU and VA window once, in the order of the manifests; seeds are 0."""
    if not manifests:
        raise ValueError("no manifest: there is nothing to evaluate")
    cuts = [_every_clip(manifest, frames) for manifest in manifests]
    sizes = [len(cut.record) for cut in cuts]
    return Rows(
        row=np.arange(sum(sizes), dtype=np.int64),
        task=np.repeat(np.array([TASK_CODES[manifest.task] for manifest in manifests], np.int8), sizes),
        corpus=np.repeat(np.arange(len(manifests), dtype=np.int16), sizes),
        record=np.concatenate([cut.record for cut in cuts]),
        start=np.concatenate([cut.start for cut in cuts]),
        seed=np.zeros(sum(sizes), np.int64),
    )


class _Side:
    """The corpora of one task, and how they share its `batch * steps` rows of an epoch."""

    def __init__(self, task: Task, corpora: Sequence[Clips], config: PlanConfig, steps: int) -> None:
        self.task = TASK_CODES[task]
        self._batch = config.batch(task)
        self._places = np.array([place for place, clips in enumerate(corpora) if clips.task == task], np.int16)
        self._corpora = [clips for clips in corpora if clips.task == task]
        self._keys = [text_key(f"{config.seed}/{task}/{clips.corpus}") for clips in self._corpora]
        named = config.weights
        weights = [len(clips) if named is None else named[clips.corpus] for clips in self._corpora]
        self._shares = apportion(weights, steps * self._batch)
        for clips, share in zip(self._corpora, self._shares, strict=True):
            if not share:
                raise ValueError(f"weight of corpus {clips.corpus!r} gives it none of the rows of an epoch")

    def draw(self, epoch: int, first: int, last: int) -> tuple[NDArray[np.int16], NDArray[np.int32], NDArray[np.int32]]:
        """Corpus, record and start of this task's rows in steps first..last-1 of `epoch`."""
        owners, turns = (column[first * self._batch : last * self._batch] for column in self._order)
        record, start = np.zeros(len(owners), np.int32), np.zeros(len(owners), np.int32)
        for index, clips in enumerate(self._corpora):
            mine = np.flatnonzero(owners == index)
            if len(mine):
                begin = epoch * self._shares[index] + int(turns[mine[0]])
                chosen = endless_passes(len(clips), self._keys[index], begin, len(mine))
                record[mine], start[mine] = clips.record[chosen], clips.start[chosen]
        return self._places[owners], record, start

    @cached_property
    def _order(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Whose turn each row is, and its how-manieth (both D): turn j of n lies at (j + 1/2) / n of the epoch."""
        owners = np.repeat(np.arange(len(self._shares)), self._shares)
        turns = np.concatenate([np.arange(share) for share in self._shares])
        order = np.lexsort((owners, (turns + 0.5) / np.repeat(self._shares, self._shares)))
        return owners[order], turns[order]


def apportion(weights: Sequence[float], total: int) -> list[int]:
    """`total` rows shared by weight, each share within 1 of its exact quota (largest remainder, ties to the first)."""
    quotas = [weight * total / sum(weights) for weight in weights]
    shares = [math.floor(quota) for quota in quotas]
    by_remainder = sorted(range(len(quotas)), key=lambda index: (shares[index] - quotas[index], index))
    for index in by_remainder[: total - sum(shares)]:
        shares[index] += 1
    return shares


def endless_passes(count: int, key: int, first: int, length: int) -> NDArray[np.int64]:
    """Items first..first+length-1 of an endless chain of permutations of `count` items, each drawn from (key, pass)."""
    if length == 0:
        return np.zeros(0, np.int64)
    start, stop = first // count, (first + length - 1) // count + 1
    chain = np.concatenate([_permutation(count, key, number) for number in range(start, stop)])
    begin = first - start * count
    return chain[begin : begin + length].astype(np.int64)


@lru_cache(maxsize=_PERMUTATIONS)
def _permutation(count: int, key: int, number: int) -> NDArray[np.int32]:
    """Pass `number` of the chain; kept, since a decode process asks for the same one block after block."""
    place = mix(np.array([number], np.uint64) + np.uint64(key))
    order = np.argsort(mix(place ^ mix(np.arange(count, dtype=np.uint64))), kind="stable").astype(np.int32)
    order.flags.writeable = False
    return order


def _pattern(config: PlanConfig) -> NDArray[np.int8]:
    """Tasks of the G rows of a global batch: the smallest unit of the exact ratio, repeated."""
    units = math.gcd(*config.batches)
    unit = np.repeat(list(TASK_CODES.values()), [batch // units for batch in config.batches])
    return np.tile(unit.astype(np.int8), units)


def _spans(first: int, last: int, steps: int) -> Iterator[tuple[int, int, int]]:
    """(epoch, first, last) with steps counted inside the epoch."""
    while first < last:
        epoch, begin = divmod(first, steps)
        end = min(steps, begin + last - first)
        yield epoch, begin, end
        first += end - begin


def _row_seeds(row: NDArray[np.int64], seed: int) -> NDArray[np.int64]:
    key = mix(np.array([seed], np.uint64))
    return (mix(row.astype(np.uint64) ^ key) >> np.uint64(1)).astype(np.int64)


def _every_clip(manifest: Manifest, frames: int) -> Windows:
    if manifest.task != "fe":
        return windows(manifest.lengths, frames)
    return Windows(np.arange(len(manifest), dtype=np.int32), np.zeros(len(manifest), np.int32))


def _size(corpora: Sequence[Clips], task: Task) -> int:
    return sum(len(clips) for clips in corpora if clips.task == task)


def _has_known_label(
    manifest: Manifest, record: NDArray[np.int32], start: NDArray[np.int32], frames: int
) -> NDArray[np.bool_]:
    """Whether any label of each window is known, from running counts over the frames of all records."""
    count = np.concatenate([[0], np.cumsum(manifest.frames_labelled, dtype=np.int32)])
    ends = np.cumsum(manifest.lengths, dtype=np.int64)
    begin = (ends - manifest.lengths)[record] + start
    end = np.minimum(begin + frames, ends[record])
    some: NDArray[np.bool_] = count[end] > count[begin]
    return some


def _check(corpora: Sequence[Clips], config: PlanConfig) -> None:
    names = [clips.corpus for clips in corpora]
    for name in names:
        if names.count(name) > 1:
            raise ValueError(f"corpus {name!r} is in the plan twice; names are unique")
    if config.weights is not None and set(config.weights) != set(names):
        raise ValueError(
            f"weights are for {sorted(config.weights)}, the corpora are {sorted(names)}: give one for each"
        )
    for clips in corpora:
        if not len(clips):
            raise ValueError(f"corpus {clips.corpus!r} has no clip to train on ({clips.unlabelled} without any label)")
        if not config.batch(clips.task):
            raise ValueError(f"corpus {clips.corpus!r} is of task {clips.task!r}, whose batch size is 0")
    for task in TASK_CODES:
        if config.batch(task) and task not in {clips.task for clips in corpora}:
            raise ValueError(f"{task}_batch is {config.batch(task)}, but no corpus is of task {task!r}")
