"""From AU probabilities to presence: a threshold and a vote over time per AU (method, section 9), fitted on one split.

A frame is positive when at least m of the 2K+1 frames around it reach the threshold; edges are repeated and a window
never crosses from one sequence into another. `fit_rule` is exact over the whole grid: thresholds 0.01 .. 0.99,
K 0 .. 7, m 1 .. 2K+1. Letters: N frames of all sequences one after another, A AUs, K half-window, m votes.

How it is fast: at least m of a window reach t exactly when its m-th largest does, and only the number of thresholds a
probability reaches (0 .. 99) matters, which fits a byte. So each (K, m) is one array of order statistics, built by
inserting two shifted arrays into the sorted ones of K - 1, and one histogram gives F1 at all thresholds.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Self

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, model_validator

THRESHOLDS = np.arange(1, 100) / 100
"""The grid of thresholds."""

MOST_HALF_WINDOW = 7
"""The largest K of the grid."""

_BINS = len(THRESHOLDS) + 1  # a probability reaches 0 .. 99 of the thresholds
_LEFT_OUT = 2 * _BINS  # histogram cell of frames without a label and of repeated edges

Floats = NDArray[np.floating]
Bytes = NDArray[np.uint8]
Grid = list[NDArray[np.float64]]
"""F1 of every rule: for each K an array (2K+1 votes, 99 thresholds)."""


class AURule(BaseModel):
    """The rule of one AU; the defaults are the plain threshold at one half."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    threshold: float = Field(default=0.5, gt=0, lt=1, description="a frame votes yes at this probability or above")
    half_window: int = Field(default=0, ge=0, le=125, description="K: frames looked at on either side")
    votes: int = Field(default=1, ge=1, description="m: how many of the 2K+1 frames must vote yes")

    @model_validator(mode="after")
    def _votes_fit_window(self) -> Self:
        if self.votes > 2 * self.half_window + 1:
            raise ValueError(f"votes is {self.votes}: a window of half_window {self.half_window} has fewer frames")
        return self


class DecisionRule(BaseModel):
    """One `AURule` per AU number; saved with a model and applied wherever it predicts."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    rules: dict[int, AURule] = Field(description="the rule of each AU, by AU number, in the order of the columns")

    @classmethod
    def default(cls, aus: Sequence[int]) -> Self:
        """The plain threshold at one half for each of `aus`."""
        return cls(rules={au: AURule() for au in aus})

    @property
    def aus(self) -> tuple[int, ...]:
        """The AUs, in the order of the columns."""
        return tuple(self.rules)

    @property
    def reach(self) -> int:
        """How many frames on either side any decision depends on."""
        return max((rule.half_window for rule in self.rules.values()), default=0)

    def select(self, aus: Sequence[int]) -> DecisionRule:
        """The rules of `aus` in that order; ValueError names an AU without one."""
        for au in aus:
            if au not in self.rules:
                raise ValueError(
                    f"the decision rule has no entry for AU {au}; it has {', '.join(map(str, self.rules))}"
                )
        return DecisionRule(rules={au: self.rules[au] for au in aus})

    def apply(self, probabilities_NA: Floats, lengths: Sequence[int] | None = None) -> NDArray[np.bool_]:
        """Presence, bool N A. `lengths` are those of the sequences that make up N (None: one sequence)."""
        lengths = _check_lengths(probabilities_NA, len(self.rules), lengths)
        source, inside = _with_edges(lengths, self.reach)
        present = np.empty(probabilities_NA.shape, np.bool_)
        for column, rule in enumerate(self.rules.values()):
            yes = probabilities_NA[:, column].astype(np.float64) >= rule.threshold
            total = np.concatenate([[0], np.cumsum(yes[source])])
            width = 2 * rule.half_window + 1
            first = inside - rule.half_window
            present[:, column] = total[first + width] - total[first] >= rule.votes
        return present


def fit_rule(
    aus: Sequence[int], probabilities_NA: Floats, labels_NA: NDArray[np.integer], lengths: Sequence[int] | None = None
) -> DecisionRule:
    """The rule of the grid with the greatest F1 for each AU, exactly.

    Labels are 0, 1 or negative for unknown: such frames vote but do not count. Among equal F1 the simplest rule wins:
    smallest K, then m nearest the majority K + 1, then the threshold nearest 0.5, then the lower one. An AU without
    a positive label therefore keeps the plain threshold at 0.5.
    """
    grids = _grids(aus, probabilities_NA, labels_NA, lengths)
    return DecisionRule(rules={au: _best(grid) for au, grid in zip(aus, grids, strict=True)})


def fit_common_rule(
    aus: Sequence[int], probabilities_NA: Floats, labels_NA: NDArray[np.integer], lengths: Sequence[int] | None = None
) -> DecisionRule:
    """One threshold and vote for all AUs: that of the grid with the greatest mean F1, as the released code searches.

    Labels and ties as in `fit_rule`; an AU without a positive label has no say.
    """
    total: Grid | None = None
    for grid in _grids(aus, probabilities_NA, labels_NA, lengths):
        total = grid if total is None else [one + other for one, other in zip(total, grid, strict=True)]
    common = AURule() if total is None else _best(total)
    return DecisionRule(rules=dict.fromkeys(aus, common))


def _grids(
    aus: Sequence[int], probabilities_NA: Floats, labels_NA: NDArray[np.integer], lengths: Sequence[int] | None
) -> Iterator[Grid]:
    """F1 of every rule, AU by AU."""
    lengths = _check_lengths(probabilities_NA, len(aus), lengths)
    if labels_NA.shape != probabilities_NA.shape:
        raise ValueError(f"labels are {labels_NA.shape}, probabilities {probabilities_NA.shape}: must be the same")
    source, inside = _with_edges(lengths, MOST_HALF_WINDOW)
    for column in range(len(aus)):
        # 0 .. 99: float64, as `apply` compares
        reached = np.searchsorted(THRESHOLDS, probabilities_NA[:, column].astype(np.float64), side="right")
        cells = np.full(len(source), _LEFT_OUT, np.uint8)
        labels = labels_NA[:, column]
        cells[inside] = np.where(labels < 0, _LEFT_OUT, _BINS * (labels > 0))
        yield [
            np.stack([_f1_at_thresholds(statistic, cells) for statistic in ordered])
            for ordered in _order_statistics(reached.astype(np.uint8)[source])
        ]


def _best(grid: Grid) -> AURule:
    """The rule with the greatest entry; the simplest of several."""
    best = -1.0
    rule = AURule()
    for half_window, f1_by_votes in enumerate(grid):
        majority = half_window + 1
        for votes in sorted(range(1, 2 * half_window + 2), key=lambda m: (abs(m - majority), m)):
            f1 = f1_by_votes[votes - 1]
            index = _nearest_half(np.flatnonzero(f1 == f1.max()))
            if f1[index] > best:
                best = float(f1[index])
                rule = AURule(threshold=float(THRESHOLDS[index]), half_window=half_window, votes=votes)
    return rule


def _order_statistics(values: Bytes) -> list[list[Bytes]]:
    """For each K, the m-th largest of every window, m = 1 .. 2K+1 (windows that leave the array are left short)."""
    ordered = [values]
    result = [ordered]
    for shift in range(1, MOST_HALF_WINDOW + 1):
        for other in (np.roll(values, shift), np.roll(values, -shift)):
            ordered = _insert(ordered, other)
        result.append(ordered)
    return result


def _insert(ordered: list[Bytes], value: Bytes) -> list[Bytes]:
    """`value` into arrays that descend element by element."""
    grown = []
    for larger in ordered:
        grown.append(np.maximum(larger, value))
        value = np.minimum(larger, value)
    return [*grown, value]


def _f1_at_thresholds(statistic: Bytes, cells: Bytes) -> NDArray[np.float64]:
    """F1 at each threshold, from how many thresholds the m-th largest of each frame's window reaches."""
    # Unlabelled cells start at 200, so 200 + 99 would overflow a byte: saturate them.
    joint = np.where(cells == _LEFT_OUT, np.uint8(255), statistic + cells)
    counts = _histogram(joint)
    reaching = np.stack([counts[:_BINS], counts[_BINS:_LEFT_OUT]])[:, ::-1].cumsum(1)[:, ::-1]
    false_positive, true_positive = reaching[:, 1:]
    missed = reaching[1, 0] - true_positive
    f1: NDArray[np.float64] = 2 * true_positive / np.maximum(2 * true_positive + false_positive + missed, 1)
    return f1


def _histogram(values: Bytes) -> NDArray[np.int64]:
    """Counts of the 256 byte values; two bytes at a time, which halves the work of `bincount`."""
    even = len(values) // 2 * 2
    pairs = np.bincount(values[:even].view(np.uint16), minlength=65536).reshape(256, 256)
    counts = pairs.sum(0) + pairs.sum(1)
    if even < len(values):
        counts[values[-1]] += 1
    return np.asarray(counts, np.int64)


def _nearest_half(indices: NDArray[np.intp]) -> int:
    """The index whose threshold is nearest 0.5; the lower of two."""
    middle = int(np.searchsorted(THRESHOLDS, 0.5))
    return int(min(indices, key=lambda index: (abs(int(index) - middle), index)))


def _with_edges(lengths: Sequence[int], reach: int) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Frame numbers with `reach` repeats of the first and last frame of each sequence; where each frame stands there.

    Windows of up to `reach` around a frame then never leave its sequence.
    """
    sizes = np.asarray(lengths, np.intp)
    firsts = np.cumsum(sizes) - sizes
    padded = sizes + 2 * reach
    starts = np.cumsum(padded) - padded
    sequence = np.repeat(np.arange(len(sizes)), padded)
    offset = np.arange(len(sequence)) - starts[sequence] - reach
    source = firsts[sequence] + np.clip(offset, 0, sizes[sequence] - 1)
    inside = np.flatnonzero((offset >= 0) & (offset < sizes[sequence]))
    return source, inside


def _check_lengths(probabilities_NA: Floats, columns: int, lengths: Sequence[int] | None) -> Sequence[int]:
    if probabilities_NA.ndim != 2 or probabilities_NA.shape[1] != columns:
        raise ValueError(f"probabilities must be N x {columns}, one column per AU; got {probabilities_NA.shape}")
    if not np.isfinite(probabilities_NA).all():
        raise ValueError("probabilities hold nan or infinite values")
    frames = len(probabilities_NA)
    lengths = [frames] * (frames > 0) if lengths is None else lengths
    if any(length < 1 for length in lengths) or sum(lengths) != frames:
        raise ValueError(f"sequence lengths sum to {sum(lengths)} (least {min(lengths, default=0)}); frames: {frames}")
    return lengths
