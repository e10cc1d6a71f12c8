"""Risk against coverage: how often answers are wrong when only the surest share of them is given.

Confidence is the probability of the answer itself. Answers of equal confidence share their errors, so constant scores
give a flat line and not an order that nobody meant. Letters: N answers.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ssm.metrics.intervals import Values
from ssm.metrics.predictions import AUTable, ExpressionTable

COVERAGES = np.arange(1, 21) / 20
"""The shares of answers at which the risk is given."""


@dataclass(frozen=True)
class RiskCoverage:
    """Risk (share of wrong answers) at each of `COVERAGES`, and its mean over all coverages; nan without answers."""

    coverage: Values
    risk: Values
    area: float


def au_risk(table: AUTable) -> RiskCoverage:
    """Over all labelled frames and AUs; the answer is presence at probability 0.5."""
    known = table.labels >= 0
    scores, labels = table.probabilities[known], table.labels[known]
    return risk_coverage(np.maximum(scores, 1 - scores), (scores >= 0.5) != (labels > 0))


def expression_risk(table: ExpressionTable) -> RiskCoverage:
    """Over all clips; the answer is the likeliest class."""
    return risk_coverage(table.probabilities.max(1), table.probabilities.argmax(1) != table.labels)


def risk_coverage(confidence: NDArray[Any], wrong: NDArray[np.bool_]) -> RiskCoverage:
    """Of answers (N) with their confidence."""
    if not len(confidence):
        return RiskCoverage(COVERAGES, np.full(len(COVERAGES), np.nan), float("nan"))
    _, level, size = np.unique(-confidence, return_inverse=True, return_counts=True)
    share = np.bincount(level, wrong) / size
    risk = np.repeat(share, size).cumsum() / np.arange(1, len(wrong) + 1)
    places = np.maximum(np.ceil(COVERAGES * len(wrong) - 1e-9).astype(np.intp), 1) - 1
    return RiskCoverage(COVERAGES, risk[places], float(risk.mean()))
