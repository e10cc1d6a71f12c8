"""Gatherer of frame-level valence and arousal beside their labels, mergeable as those of `ssm.metrics.predictions`.

Letters: N frames in the table, T frames of one update.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from ssm.labels import AFFECT
from ssm.metrics.predictions import Floats, Stretch, joined


@dataclass(frozen=True)
class AffectTable:
    """All frames of a corpus with valence and arousal, sequence after sequence in order of frames, each once."""

    predictions: Floats  # N 2, in [-1, 1]
    labels: Floats  # N 2; nan: unknown
    lengths: tuple[int, ...]  # of stretches without a gap, in order: they sum to N
    sequences: tuple[str, ...]  # the sequence that each stretch is from
    subjects: tuple[str, ...]  # S names
    subject: NDArray[np.intp]  # N, place in `subjects`

    def __len__(self) -> int:
        return len(self.predictions)


class AffectPredictions:
    """Gathers predictions of any split over batches and workers."""

    def __init__(self) -> None:
        self._stretches: list[Stretch] = []

    def update(
        self, sequence: str, subject: str | None, frames: Sequence[int] | NDArray[Any], predictions: Any, labels: Any
    ) -> None:
        """Add frames of one sequence: their numbers (T), predictions (T 2) and labels (T 2; nan: unknown).

        Without a known subject the sequence stands for one. ValueError for shapes or values that cannot be.
        """
        numbers = np.asarray(frames, np.int64)
        found, truth = np.asarray(predictions, np.float32), np.asarray(labels, np.float32)
        want = (len(numbers), len(AFFECT))
        if found.shape != want or truth.shape != want:
            raise ValueError(f"{sequence}: predictions {found.shape} and labels {truth.shape} must both be {want}")
        for what, values in (("a prediction", found), ("a label", truth[~np.isnan(truth)])):
            if not (np.abs(values) <= 1).all():
                raise ValueError(f"{sequence}: {what} must lie in [-1, 1]; got {values.min()} .. {values.max()}")
        self._stretches.append(Stretch(sequence, subject or sequence, numbers, found.copy(), truth.copy()))

    def merge(self, other: Self) -> None:
        """Take in what another worker gathered."""
        self._stretches.extend(other._stretches)

    def table(self) -> AffectTable:
        """Everything so far; ValueError where there is nothing or a frame has contradicting labels or subjects."""
        if not self._stretches:
            raise ValueError("no predictions of affect were gathered: the split is empty")
        found = joined(self._stretches)
        return AffectTable(found.values, found.labels, found.lengths, found.sequences, found.subjects, found.subject)
