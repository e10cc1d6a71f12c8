"""Bootstrap intervals over whole subjects, from per-subject sufficient statistics (counts), vectorised.

Frames of one person are not independent: what is drawn with replacement is the subject, with all its counts. A figure
is a function of summed counts, so a replicate is a row of resampling numbers times the matrix of counts. Subjects with
equal counts are drawn together (a multinomial over the distinct rows has the same law), which makes corpora whose
only unit is the clip as cheap as others. Letters: S subjects, R replicates.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Values = NDArray[np.float64]
Measure = Callable[[NDArray[Any]], Any]
"""Figures of summed counts: (R, ...counts) -> (R, ...figures)."""

_CHUNK = 250  # replicates at a time: bounds memory


@dataclass(frozen=True)
class Estimate:
    """A figure (any shape) on all subjects and the bounds of its interval; nan where it is not defined."""

    value: Values
    low: Values
    high: Values


def bootstrap(
    counts: NDArray[Any], measure: Measure, *, replicates: int = 2000, level: float = 0.95, seed: int = 0
) -> Estimate:
    """Percentile interval of `measure` over subjects; `counts` is (S, ...counts). A function of its arguments."""
    subjects = len(counts)
    if subjects == 0:
        raise ValueError("a bootstrap needs at least one subject, got none")
    rows, times = np.unique(counts.reshape(subjects, -1), axis=0, return_counts=True)
    generator = np.random.default_rng(seed)
    figures = []
    for start in range(0, replicates, _CHUNK):
        drawn = generator.multinomial(subjects, times / subjects, size=min(_CHUNK, replicates - start))
        totals = drawn.astype(np.float64) @ rows.astype(np.float64)
        figures.append(np.asarray(measure(totals.reshape(-1, *counts.shape[1:])), np.float64))
    tail = (1 - level) / 2
    low, high = _quantiles(np.concatenate(figures), (tail, 1 - tail))
    return Estimate(np.asarray(measure(counts.sum(0, keepdims=True))[0], np.float64), low, high)


def bootstrap_difference(
    counts: NDArray[Any],
    others: NDArray[Any],
    measure: Measure,
    *,
    replicates: int = 2000,
    level: float = 0.95,
    seed: int = 0,
) -> Estimate:
    """Interval of measure(counts) - measure(others): two systems on the same subjects, drawn together (paired)."""
    if counts.shape != others.shape:
        raise ValueError(f"a paired difference needs the same subjects: counts are {counts.shape} and {others.shape}")
    both = np.stack([counts, others], axis=1)
    options: dict[str, Any] = {"replicates": replicates, "level": level, "seed": seed}
    return bootstrap(both, lambda total: measure(total[:, 0]) - measure(total[:, 1]), **options)


def _quantiles(figures: Values, levels: tuple[float, float]) -> tuple[Values, Values]:
    """Quantiles over replicates of the figures that are defined; nan where none is."""
    undefined = np.isnan(figures).all(0)
    low, high = np.nanquantile(np.where(undefined, 0.0, figures), levels, axis=0)
    return np.where(undefined, np.nan, low), np.where(undefined, np.nan, high)
