"""Risk against coverage: how often answers are wrong when only the surest share of them is given.

Confidence is the probability of the answer itself, or how little a model that gives evidence doubts. Answers of equal
confidence share their errors, so constant scores give a flat line and not an order that nobody meant. A level of doubt
above which nothing is answered is fitted for a wanted risk (`fit_abstention`). Letters: N answers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ssm.interface import Abstention, DecisionRule
from ssm.metrics.intervals import Values
from ssm.metrics.predictions import AUTable, ExpressionTable

COVERAGES = np.arange(1, 21) / 20
"""The shares of answers at which the risk is given."""

_LEAST_ANSWERS = 50  # fewer say nothing of a share


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


def au_risk_by_doubt(table: AUTable) -> RiskCoverage | None:
    """As `au_risk`, least doubt first; None of a model that gives no evidence."""
    if table.doubts is None:
        return None
    known = table.labels >= 0
    return risk_coverage(1 - table.doubts[known], (table.probabilities[known] >= 0.5) != (table.labels[known] > 0))


def fit_abstention(tables: Sequence[AUTable], rule: DecisionRule, risk: float) -> Abstention:
    """The greatest doubt up to which at most a share `risk` of the rule's answers is wrong.

    ValueError, saying what could be asked for, where these tables do not support that level.
    """
    if not 0 < risk < 1:
        raise ValueError(f"the wanted risk is {risk}: must lie in (0, 1)")
    doubts, wrong = _answers(tables, rule)
    order = np.argsort(doubts, kind="stable")
    doubts, shares = doubts[order], wrong[order].cumsum() / np.arange(1, len(doubts) + 1)
    whole = np.flatnonzero(np.diff(doubts, append=np.inf) > 0)  # equal doubts are answered together
    whole = whole[whole + 1 >= _LEAST_ANSWERS]
    if not len(whole):
        raise ValueError(f"{len(doubts)} labelled answers with doubts are too few to fit an abstention on")
    kept = whole[shares[whole] <= risk]
    if not len(kept):
        best = whole[shares[whole].argmin()]
        raise ValueError(
            f"validation supports no abstention at a risk of {risk}: the least it reaches is {shares[best]:.4f}, with "
            f"{(best + 1) / len(doubts):.1%} of the answers given; ask for at least that"
        )
    last = kept[-1]
    return Abstention(risk=risk, doubt=float(doubts[last]), coverage=float((last + 1) / len(doubts)))


def abstained(table: AUTable, rule: DecisionRule, abstention: Abstention) -> tuple[float, float]:
    """The share of the rule's answers that is given, and the share of these that is wrong, nan where none is given."""
    doubts, wrong = _answers([table], rule)
    given = ~abstention.withheld(doubts)
    share, error = given.sum() / max(len(given), 1), wrong[given].sum() / max(given.sum(), 1)
    return float(share), float(error) if given.any() else float("nan")


def _answers(tables: Sequence[AUTable], rule: DecisionRule) -> tuple[Values, NDArray[np.bool_]]:
    """Doubt of each labelled answer, and whether the rule is wrong there."""
    found: list[tuple[Any, Any]] = [(np.zeros(0), np.zeros(0, np.bool_))]
    for table in tables:
        if table.doubts is None:
            raise ValueError("this model gives no evidence, so nothing says when to abstain: train with +evidential")
        present, known = rule.select(table.aus).apply(table.probabilities, table.lengths), table.labels >= 0
        found.append((table.doubts[known], (present != (table.labels > 0))[known]))
    doubts, wrong = (np.concatenate(parts) for parts in zip(*found, strict=True))
    return doubts, wrong


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
