"""95 % intervals over whole subjects that cover, from per-subject sufficient statistics (counts): a jackknife with t.

Frames of one person are not independent, so what is left out in turn is the subject with all its counts. A percentile
bootstrap of few subjects is too narrow: at 5 of them it covers macro F1 in 78 % of cases (`bench/coverage.py`). Here

    se^2 = (S-1)/S sum_s (figure without s - figure)^2,   figure -+ t(n-1) se,

on the logit scale for figures in [0, 1] (se / (p (1-p)), so bounds stay inside), where n counts the subjects that say
something about the figure at all. At exactly 0 or 1, where the spread is 0, the exact binomial bound of n trials stands
instead. Nothing is drawn: an interval is a function of the counts. Letters: S subjects, K seeds, R distinct rows.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Values = NDArray[np.float64]
Measure = Callable[[NDArray[Any]], Any]
"""Figures of summed counts: (R, ...counts) -> (R, ...figures); nan where the counts say nothing about a figure."""

LEVEL = 0.95
"""The coverage that intervals are made for."""

_CHUNK = 250  # rows at a time: bounds memory


@dataclass(frozen=True)
class Estimate:
    """A figure (any shape) on all subjects and the bounds of its interval; nan where they are not defined.

    `subjects` is how many of them the figure rests on: below two there is no interval.
    """

    value: Values
    low: Values
    high: Values
    subjects: NDArray[np.int64]


@dataclass(frozen=True)
class _Spread:
    """A figure, its variance, the degrees of freedom of that, and the subjects behind it (all ...figures)."""

    value: Values
    variance: Values
    freedom: Values
    subjects: NDArray[np.int64]


def share_interval(counts: NDArray[Any], measure: Measure) -> Estimate:
    """Interval of a figure in [0, 1]; `counts` is (S, ...counts)."""
    from scipy.special import expit, logit

    found = _jackknife(counts, measure)
    share = np.where((found.value > 0) & (found.value < 1), found.value, 0.5)
    reach = _reach(found) / (share * (1 - share))
    low, high = expit(logit(share) - reach), expit(logit(share) + reach)
    most = 1 - (1 - LEVEL) ** (1 / np.maximum(found.subjects, 1))  # exact, for none among n trials ("rule of three")
    ends = (found.value == 0, found.value == 1)
    return _estimate(found, np.select(ends, (0.0, 1 - most), low), np.select(ends, (most, 1.0), high))


def plain_interval(counts: NDArray[Any], measure: Measure, least: float = -np.inf) -> Estimate:
    """Interval of a figure of any size, bounds no lower than `least`; `counts` is (S, ...counts)."""
    found = _jackknife(counts, measure)
    reach = _reach(found)
    return _estimate(found, np.maximum(found.value - reach, least), found.value + reach)


def difference_interval(counts: NDArray[Any], others: NDArray[Any], measure: Measure) -> Estimate:
    """Interval of measure(counts) - measure(others): two systems on the same subjects (paired); both (S, ...counts)."""
    return seeds_difference(counts[:, None], others[:, None], measure)


def seeds_difference(counts: NDArray[Any], others: NDArray[Any], measure: Measure) -> Estimate:
    """Interval of the mean over K seeds of measure(counts) - measure(others), for other people *and* other seeds.

    Both are (S, K, ...counts), paired by subject and seed. The variances of leaving out subjects and of the seeds add
    up, with Satterthwaite's degrees of freedom. One seed says nothing of others: the interval is over people alone.
    """
    if counts.shape != others.shape:
        raise ValueError(f"a paired difference needs the same subjects: counts are {counts.shape} and {others.shape}")
    both = np.stack([counts, others], axis=2)  # S K 2 ...counts

    def by_seed(total: NDArray[Any]) -> NDArray[Any]:
        return np.asarray(measure(total[:, :, 0]) - measure(total[:, :, 1]))

    people = _jackknife(both, lambda total: by_seed(total).mean(1))
    seeds = both.shape[1]
    if seeds > 1:
        variance = np.asarray(by_seed(both.sum(0, keepdims=True))[0].var(0, ddof=1) / seeds, np.float64)
        people = _added(people, variance, seeds - 1)
    reach = _reach(people)
    return _estimate(people, people.value - reach, people.value + reach)


def _jackknife(counts: NDArray[Any], measure: Measure) -> _Spread:
    """Subjects with equal counts are left out once for all: corpora whose only unit is the clip are as cheap."""
    subjects = len(counts)
    if subjects == 0:
        raise ValueError("an interval needs at least one subject, got none")
    rows, times = np.unique(counts.reshape(subjects, -1), axis=0, return_counts=True)
    rows, total = rows.reshape(-1, *counts.shape[1:]), counts.sum(0, keepdims=True)
    value = np.asarray(measure(total)[0], np.float64)
    squares, known = np.zeros(value.shape, np.float64), np.zeros(value.shape, np.int64)
    for start in range(0, len(rows), _CHUNK):
        some, weight = rows[start : start + _CHUNK], times[start : start + _CHUNK]
        moved = np.nan_to_num(np.asarray(measure(total - some), np.float64) - value)
        squares = squares + np.tensordot(weight, moved**2, 1)
        known = known + np.tensordot(weight, ~np.isnan(np.asarray(measure(some), np.float64)), 1)
    return _Spread(
        value, np.asarray(squares * (subjects - 1) / subjects, np.float64), known.astype(np.float64) - 1, known
    )


def _added(people: _Spread, variance: Values, freedom: int) -> _Spread:
    """Two variances as one (Satterthwaite)."""
    parts = people.variance**2 / np.maximum(people.freedom, 1) + variance**2 / freedom
    total = people.variance + variance
    joint = np.divide(total**2, parts, out=np.array(people.freedom), where=parts > 0)
    return _Spread(people.value, total, joint, people.subjects)


def _reach(found: _Spread) -> Values:
    """Half the width of the interval."""
    from scipy.stats import t

    quantile = t.ppf((1 + LEVEL) / 2, np.maximum(found.freedom, 1))
    return np.asarray(quantile * np.sqrt(found.variance), np.float64)


def _estimate(found: _Spread, low: Values, high: Values) -> Estimate:
    defined = (found.subjects >= 2) & ~np.isnan(found.value)
    return Estimate(found.value, np.where(defined, low, np.nan), np.where(defined, high, np.nan), found.subjects)
