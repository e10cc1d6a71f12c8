"""Does a probability mean what it says? Reliability diagram, expected calibration error, temperature scaling.

A temperature T divides the logits: sigmoid(logit(p) / T) for AUs, softmax(log(p) / T) for expressions. It is fitted
where rules are fitted, by the likelihood of the labels there, and never on what it is judged by. It changes no ranking
and no class, only confidence. Letters: N frames or clips, A AUs, E expressions.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ssm.metrics.intervals import Values
from ssm.metrics.predictions import AUTable, ExpressionTable

CALIBRATION_BINS = 15
TEMPERATURES = (0.05, 20.0)
"""The range that is searched."""

_SURE = 1e-6  # a probability is no nearer than this to 0 or 1: its logarithm must be finite


@dataclass(frozen=True)
class Reliability:
    """Mean prediction against observed frequency in equal bins of the prediction; nan in an empty bin."""

    confidence: Values
    observed: Values
    counts: NDArray[np.int64]


def reliability(probabilities: NDArray[Any], labels: NDArray[Any], bins: int = CALIBRATION_BINS) -> Reliability:
    """Probabilities (N) of events that happened (1) or did not (0), in equal bins; 1.0 belongs to the last one."""
    place = np.minimum((probabilities.astype(np.float64) * bins).astype(np.intp), bins - 1)
    counts = np.bincount(place, minlength=bins)
    sums = [np.bincount(place, values.astype(np.float64), minlength=bins) for values in (probabilities, labels)]
    means = [np.divide(total, counts, out=np.full(bins, np.nan), where=counts > 0) for total in sums]
    return Reliability(means[0], means[1], counts)


def expected_error(bins: Reliability) -> float:
    """Mean distance of confidence and frequency, weighted by counts; nan where there is nothing."""
    if not bins.counts.sum():
        return float("nan")
    return float(np.nansum(bins.counts * np.abs(bins.confidence - bins.observed)) / bins.counts.sum())


def winner_error(table: ExpressionTable) -> float:
    """Expected calibration error of the likeliest class."""
    right = table.probabilities.argmax(1) == table.labels
    return expected_error(reliability(table.probabilities.max(1), right))


def au_temperature(tables: list[AUTable]) -> float | None:
    """One temperature for all AUs of all tables; None without both an active and an inactive label."""
    known = [table.labels >= 0 for table in tables]
    scores = np.concatenate([np.zeros(0), *(table.probabilities[k] for table, k in zip(tables, known, strict=True))])
    labels = np.concatenate([np.zeros(0), *(table.labels[k] for table, k in zip(tables, known, strict=True))])
    if len(np.unique(labels)) < 2:
        return None
    logits, sign = _logit(scores), np.where(labels > 0, -1.0, 1.0)
    return _likeliest(lambda temperature: float(np.logaddexp(0, sign * logits / temperature).mean()))


def expression_temperature(tables: list[ExpressionTable]) -> float | None:
    """One temperature for all clips of all tables, each over its own classes; None without a clip."""
    if not tables:
        return None

    def loss(temperature: float) -> float:
        chosen = [_log_softmax(table, temperature)[np.arange(len(table)), table.labels] for table in tables]
        return -float(np.concatenate(chosen).mean())

    return _likeliest(loss)


def cooled_aus(table: AUTable, temperature: float) -> AUTable:
    """The table with its probabilities at that temperature."""
    logits = _logit(table.probabilities.astype(np.float64)) / temperature
    return replace(table, probabilities=(1 / (1 + np.exp(-logits))).astype(np.float32))


def cooled_expressions(table: ExpressionTable, temperature: float) -> ExpressionTable:
    """The table with its probabilities at that temperature."""
    return replace(table, probabilities=np.exp(_log_softmax(table, temperature)).astype(np.float32))


def _log_softmax(table: ExpressionTable, temperature: float) -> Values:
    logits = np.log(np.maximum(table.probabilities.astype(np.float64), _SURE)) / temperature
    return np.asarray(logits - np.logaddexp.reduce(logits, axis=1, keepdims=True), np.float64)


def _logit(scores: NDArray[Any]) -> Values:
    inside = np.clip(scores.astype(np.float64), _SURE, 1 - _SURE)
    return np.asarray(np.log(inside / (1 - inside)), np.float64)


def _likeliest(loss: Callable[[float], float]) -> float:
    from scipy.optimize import minimize_scalar

    found = minimize_scalar(lambda log: loss(float(np.exp(log))), bounds=np.log(TEMPERATURES), method="bounded")
    return float(np.exp(found.x))
