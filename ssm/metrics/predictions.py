"""Mergeable gatherers of predictions: any split over batches and workers, in any order, gives the same table.

Rows are known by (sequence, frame) or by clip, so what was predicted twice (overlapping windows, clips repeated to
fill a last batch) is averaged and counted once. Exact scores are kept: float32 probabilities and int8 labels, 5 bytes
per AU and frame. Letters: N frames or clips in the table, T frames of one update, A AUs, E expressions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Labels = NDArray[np.int8]


@dataclass(frozen=True)
class AUTable:
    """All frames of an AU corpus, sequence after sequence in order of frames, each once."""

    aus: tuple[int, ...]
    probabilities: Floats  # N A
    labels: Labels  # N A: 0, 1, or -1 for unknown
    lengths: tuple[int, ...]  # of stretches without a gap, in order: they sum to N
    sequences: tuple[str, ...]  # the sequence that each stretch is from
    subjects: tuple[str, ...]  # S names
    subject: NDArray[np.intp]  # N, place in `subjects`
    doubts: Floats | None = None  # N A in (0, 1], the doubt of a model that gives evidence
    tilted: Floats | None = None  # N A, such a model's probabilities before its loss's asymmetry was undone

    def __len__(self) -> int:
        return len(self.probabilities)


@dataclass(frozen=True)
class ExpressionTable:
    """All clips of an expression corpus, in order of their names, each once."""

    expressions: tuple[str, ...]
    probabilities: Floats  # N E
    labels: NDArray[np.intp]  # N
    clips: tuple[str, ...]  # N
    subjects: tuple[str, ...]  # S names
    subject: NDArray[np.intp]  # N, place in `subjects`
    shares: Floats | None = None  # N E, what people said of each clip; None where every label is hard

    def __len__(self) -> int:
        return len(self.probabilities)


@dataclass(frozen=True)
class Stretch:
    """Frames of one sequence: their numbers (T), values (T K) and labels (T K)."""

    sequence: str
    subject: str
    frames: NDArray[np.int64]
    values: Floats
    labels: NDArray[Any]


@dataclass(frozen=True)
class Joined:
    """Stretches as one table of N frames, each once: what `AUTable` says, for any values and labels."""

    values: Floats  # N K
    labels: NDArray[Any]  # N K
    lengths: tuple[int, ...]
    sequences: tuple[str, ...]
    subjects: tuple[str, ...]
    subject: NDArray[np.intp]  # N


class AUPredictions:
    """Gathers frame-level AU probabilities beside their labels."""

    def __init__(self, aus: Sequence[int]) -> None:
        self.aus = tuple(aus)
        self._stretches: list[Stretch] = []

    def update(
        self,
        sequence: str,
        subject: str | None,
        frames: Sequence[int] | NDArray[Any],
        probabilities: Any,
        labels: Any,
        evidence: tuple[Any, Any] | None = None,
    ) -> None:
        """Add frames of one sequence: their numbers (T), probabilities (T A) and labels (T A; negative: unknown).

        `evidence`: doubts and tilted probabilities (each T A), of all frames or of none. Without a known subject the
        sequence stands for one. ValueError for shapes or values that cannot be.
        """
        numbers = np.asarray(frames, np.int64)
        found, truth = np.asarray(probabilities, np.float32), np.asarray(labels)
        if found.shape != (len(numbers), len(self.aus)) or truth.shape != found.shape:
            want = (len(numbers), len(self.aus))
            raise ValueError(f"{sequence}: probabilities {found.shape} and labels {truth.shape} must both be {want}")
        if not (np.isin(truth, (0, 1)) | (truth < 0)).all():
            wrong = truth[~(np.isin(truth, (0, 1)) | (truth < 0))][0]
            raise ValueError(f"{sequence}: an AU label is {wrong}; it must be 0, 1, or negative where it is unknown")
        kept = np.where(truth < 0, -1, truth > 0).astype(np.int8)
        values = np.concatenate([found, *(np.asarray(one, np.float32) for one in evidence or ())], axis=1)
        _check_probabilities(sequence, values)
        self._stretches.append(Stretch(sequence, subject or sequence, numbers, values, kept))

    def merge(self, other: Self) -> None:
        """Take in what another worker gathered."""
        if other.aus != self.aus:
            raise ValueError(f"cannot merge predictions of AUs {other.aus} into those of {self.aus}")
        self._stretches.extend(other._stretches)

    def table(self) -> AUTable:
        """Everything so far; ValueError where there is nothing or a frame has contradicting labels or subjects."""
        if not self._stretches:
            raise ValueError("no AU predictions were gathered: the split is empty")
        found, width = joined(self._stretches), len(self.aus)
        probabilities, *evidence = np.split(found.values, range(width, found.values.shape[1], width), axis=1)
        return AUTable(
            aus=self.aus,
            probabilities=probabilities,
            labels=found.labels,
            lengths=found.lengths,
            sequences=found.sequences,
            subjects=found.subjects,
            subject=found.subject,
            **dict(zip(("doubts", "tilted"), evidence, strict=False)),
        )


class ExpressionPredictions:
    """Gathers clip-level expression probabilities over a corpus's own classes beside their labels."""

    def __init__(self, expressions: Sequence[str]) -> None:
        self.expressions = tuple(expressions)
        self._clips: list[tuple[str, str, int]] = []
        self._probabilities: list[Floats] = []
        self._shares: list[Floats | None] = []

    def update(
        self, clip: str, subject: str | None, probabilities: Any, label: int, shares: Floats | None = None
    ) -> None:
        """Add one clip: probabilities (E) and its class's place in `expressions`. Without a subject it is its own.

        `shares` (E) is what people said of it, where that is known.
        """
        found = np.asarray(probabilities, np.float32)
        if found.shape != (len(self.expressions),):
            raise ValueError(f"{clip}: probabilities {found.shape} must be ({len(self.expressions)},)")
        if not 0 <= label < len(self.expressions):
            raise ValueError(f"{clip}: label {label} must be in 0 .. {len(self.expressions) - 1}")
        _check_probabilities(clip, found)
        self._clips.append((clip, subject or clip, int(label)))
        self._probabilities.append(found.copy())
        self._shares.append(shares)

    def merge(self, other: Self) -> None:
        """Take in what another worker gathered."""
        if other.expressions != self.expressions:
            raise ValueError(f"cannot merge predictions of {other.expressions} into those of {self.expressions}")
        self._clips.extend(other._clips)
        self._probabilities.extend(other._probabilities)
        self._shares.extend(other._shares)

    def table(self) -> ExpressionTable:
        """Everything so far; ValueError where there is nothing or a clip has contradicting labels or subjects."""
        if not self._clips:
            raise ValueError("no expression predictions were gathered: the split is empty")
        clips, clip = _codes([name for name, _, _ in self._clips])
        subjects, subject = _codes([name for _, name, _ in self._clips])
        labels = np.array([label for _, _, label in self._clips], np.intp)
        first, group = _groups(clip, np.zeros(len(clip), np.int64))
        for what, values in (("labels", labels), ("subjects", subject)):
            _check_same(what, values, first, group, lambda row: clips[clip[row]])
        return ExpressionTable(
            expressions=self.expressions,
            probabilities=_mean(np.stack(self._probabilities), group, len(first)),
            labels=labels[first],
            clips=clips,
            subjects=subjects,
            subject=subject[first],
            shares=None if all(row is None for row in self._shares) else self._full_shares()[first],
        )

    def _full_shares(self) -> Floats:
        """N E: what people said, all on its class where a clip has a label alone."""
        hard = np.eye(len(self.expressions), dtype=np.float32)
        pairs = zip(self._shares, self._clips, strict=True)
        return np.stack([hard[label] if row is None else row for row, (_, _, label) in pairs])


def joined(stretches: Sequence[Stretch]) -> Joined:
    """At least one stretch; ValueError where a frame has contradicting labels or subjects."""
    names, sequence = _codes([s.sequence for s in stretches])
    sizes = [len(s.frames) for s in stretches]
    sequence = np.repeat(sequence, sizes)
    frame = np.concatenate([s.frames for s in stretches])
    first, group = _groups(sequence, frame)
    labels = np.concatenate([s.labels for s in stretches])
    subjects, subject = _codes([s.subject for s in stretches])
    subject = np.repeat(subject, sizes)
    for what, values in (("labels", np.nan_to_num(labels, nan=np.inf)), ("subjects", subject)):
        _check_same(what, values, first, group, lambda row: f"{names[sequence[row]]} frame {frame[row]}")
    breaks = np.flatnonzero((np.diff(sequence[first]) != 0) | (np.diff(frame[first]) != 1)) + 1
    starts = np.concatenate([[0], breaks])
    return Joined(
        values=_mean(np.concatenate([s.values for s in stretches]), group, len(first)),
        labels=labels[first],
        lengths=tuple(np.diff([*starts, len(first)]).tolist()),
        sequences=tuple(names[code] for code in sequence[first][starts]),
        subjects=subjects,
        subject=subject[first],
    )


def _check_probabilities(name: str, values: Floats) -> None:
    if not ((values >= 0) & (values <= 1)).all():
        raise ValueError(f"{name}: probabilities must lie in [0, 1]; got {values.min()} .. {values.max()}")


def _codes(names: list[str]) -> tuple[tuple[str, ...], NDArray[np.intp]]:
    """The distinct names in order, and each name's place there."""
    distinct = sorted(set(names))
    place = {name: index for index, name in enumerate(distinct)}
    return tuple(distinct), np.array([place[name] for name in names], np.intp)


def _groups(major: NDArray[Any], minor: NDArray[Any]) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """One row for each distinct (major, minor) in that order, and each row's group."""
    order = np.lexsort((minor, major))
    fresh = np.ones(len(order), np.bool_)
    fresh[1:] = (np.diff(major[order]) != 0) | (np.diff(minor[order]) != 0)
    group = np.empty(len(order), np.intp)
    group[order] = np.cumsum(fresh) - 1
    return order[fresh], group


def _mean(values: Floats, group: NDArray[np.intp], groups: int) -> Floats:
    """Mean of the rows of each group; a group of one keeps its bits."""
    if groups == len(values):
        out = np.empty_like(values)
        out[group] = values
        return out
    total = np.zeros((groups, values.shape[1]), np.float64)
    # Sorted within a group by value, so that the sum does not depend on the order of merging.
    np.add.at(total, np.sort(group), np.stack([column[np.lexsort((column, group))] for column in values.T], axis=1))
    return (total / np.bincount(group, minlength=groups)[:, None]).astype(np.float32)


def _check_same(what: str, values: Any, first: NDArray[np.intp], group: NDArray[np.intp], name: Any) -> None:
    """ValueError where rows of one group differ."""
    differs = (values != values[first][group]).reshape(len(group), -1).any(1)
    if differs.any():
        raise ValueError(f"{name(int(np.argmax(differs)))}: was given twice with different {what}")
