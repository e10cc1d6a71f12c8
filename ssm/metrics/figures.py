"""Figures of a merged table: F1, ROC-AUC, average precision and calibration of AUs; UAR, WAR, confusion of expressions.

Unknown labels count nowhere. A figure that is not defined (an AU without positive labels, a class without clips) is
nan and left out of means. Letters: N frames or clips, S subjects, A AUs, E expressions; `...` any leading dimensions.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ssm.interface import DecisionRule
from ssm.metrics.intervals import Estimate, Values, bootstrap
from ssm.metrics.predictions import AUTable, ExpressionTable

CALIBRATION_BINS = 15


@dataclass(frozen=True)
class Reliability:
    """Mean prediction against observed frequency in equal bins of the prediction; nan in an empty bin."""

    confidence: Values
    observed: Values
    counts: NDArray[np.int64]


@dataclass(frozen=True)
class AUFigures:
    """Everything reported of one AU corpus; arrays run over `aus`."""

    aus: tuple[int, ...]
    frames: int
    subjects: int
    prevalence: Values
    f1: Estimate  # A, under the fitted rule
    f1_half: Estimate  # A, at probability 0.5 without vote
    macro_f1: Estimate  # scalar
    macro_f1_half: Estimate  # scalar
    roc_auc: Values
    average_precision: Values
    calibration_error: Values
    reliability: Reliability  # pooled over AUs


@dataclass(frozen=True)
class ExpressionFigures:
    """Everything reported of one expression corpus."""

    expressions: tuple[str, ...]
    clips: int
    subjects: int
    uar: Estimate  # scalar: mean recall of the classes that occur
    war: Estimate  # scalar: share of clips that are right
    recall: Values  # E
    confusion: NDArray[np.int64]  # E E, row: true class, column: predicted
    calibration_error: float  # of the winning class


def au_figures(table: AUTable, rule: DecisionRule, *, replicates: int = 2000, seed: int = 0) -> AUFigures:
    """All figures of an AU corpus, F1 under `rule` (fitted elsewhere) and at 0.5."""
    ruled = hits_by_subject(table, rule.select(table.aus).apply(table.probabilities, table.lengths))
    plain = hits_by_subject(table, DecisionRule.default(table.aus).apply(table.probabilities, table.lengths))
    known = table.labels >= 0
    options: dict[str, Any] = {"replicates": replicates, "seed": seed}
    return AUFigures(
        aus=table.aus,
        frames=len(table),
        subjects=len(table.subjects),
        prevalence=_share((table.labels == 1).sum(0), known.sum(0)),
        f1=bootstrap(ruled, f1_score, **options),
        f1_half=bootstrap(plain, f1_score, **options),
        macro_f1=bootstrap(ruled, lambda hits: macro(f1_score(hits)), **options),
        macro_f1_half=bootstrap(plain, lambda hits: macro(f1_score(hits)), **options),
        roc_auc=roc_auc(table),
        average_precision=average_precision(table),
        calibration_error=calibration_error(table),
        reliability=reliability(table.probabilities[known], table.labels[known]),
    )


def expression_figures(table: ExpressionTable, *, replicates: int = 2000, seed: int = 0) -> ExpressionFigures:
    """All figures of an expression corpus."""
    counts = confusion_by_subject(table)
    confusion = counts.sum(0)
    return ExpressionFigures(
        expressions=table.expressions,
        clips=len(table),
        subjects=len(table.subjects),
        uar=bootstrap(counts, unweighted_recall, replicates=replicates, seed=seed),
        war=bootstrap(counts, weighted_recall, replicates=replicates, seed=seed),
        recall=recall(confusion),
        confusion=confusion,
        calibration_error=_winner_calibration(table),
    )


def hits_by_subject(table: AUTable, present: NDArray[np.bool_]) -> NDArray[np.int64]:
    """True positives, false positives and misses of each subject and AU: (S A 3)."""
    true, known = table.labels == 1, table.labels >= 0
    outcomes = np.stack([present & true, present & known & ~true, ~present & true], axis=2)
    counts = np.zeros((len(table.subjects), *outcomes.shape[1:]), np.int64)
    order = np.argsort(table.subject, kind="stable")
    starts = np.flatnonzero(np.diff(table.subject[order], prepend=-1))
    counts[table.subject[order][starts]] = np.add.reduceat(outcomes[order].astype(np.int64), starts)
    return counts


def f1_score(hits: NDArray[Any]) -> Values:
    """(... A 3) -> F1 (... A); nan for an AU without a positive label."""
    true, false, missed = np.moveaxis(np.asarray(hits, np.float64), -1, 0)
    return np.where(true + missed > 0, _share(2 * true, 2 * true + false + missed), np.nan)


def macro(values: Values) -> Values:
    """Mean over the last dimension of what is defined; nan where nothing is."""
    defined = ~np.isnan(values)
    return _share(np.where(defined, values, 0.0).sum(-1), defined.sum(-1))


def roc_auc(table: AUTable) -> Values:
    """A; nan for an AU with one class only."""
    from sklearn.metrics import roc_auc_score

    return _per_au(table, lambda labels, scores: float(roc_auc_score(labels, scores)))


def average_precision(table: AUTable) -> Values:
    """A; nan for an AU with one class only."""
    from sklearn.metrics import average_precision_score

    return _per_au(table, lambda labels, scores: float(average_precision_score(labels, scores)))


def calibration_error(table: AUTable) -> Values:
    """A: expected calibration error of the probability of presence; nan for an AU with one class only."""
    return _per_au(table, lambda labels, scores: _expected_error(reliability(scores, labels)))


def reliability(probabilities: NDArray[Any], labels: NDArray[Any], bins: int = CALIBRATION_BINS) -> Reliability:
    """Probabilities (N) of events that happened (1) or did not (0), in equal bins; 1.0 belongs to the last one."""
    place = np.minimum((probabilities.astype(np.float64) * bins).astype(np.intp), bins - 1)
    counts = np.bincount(place, minlength=bins)
    sums = [np.bincount(place, values.astype(np.float64), minlength=bins) for values in (probabilities, labels)]
    return Reliability(_share(sums[0], counts), _share(sums[1], counts), counts)


def confusion_by_subject(table: ExpressionTable) -> NDArray[np.int64]:
    """Counts (S E E), row: true class, column: the likeliest class."""
    classes = len(table.expressions)
    predicted = table.probabilities.argmax(1)
    cell = (table.subject * classes + table.labels) * classes + predicted
    counts = np.bincount(cell, minlength=len(table.subjects) * classes**2)
    return counts.reshape(len(table.subjects), classes, classes)


def recall(confusion: NDArray[Any]) -> Values:
    """(... E E) -> recall of each class (... E); nan for a class without clips."""
    return _share(np.diagonal(confusion, axis1=-2, axis2=-1), confusion.sum(-1))


def unweighted_recall(confusion: NDArray[Any]) -> Values:
    """UAR: (... E E) -> (...)."""
    return macro(recall(confusion))


def weighted_recall(confusion: NDArray[Any]) -> Values:
    """WAR: (... E E) -> (...)."""
    return _share(np.diagonal(confusion, axis1=-2, axis2=-1).sum(-1), confusion.sum((-2, -1)))


def _share(part: NDArray[Any], whole: NDArray[Any]) -> Values:
    """part / whole, nan where there is nothing."""
    out = np.full(np.broadcast_shapes(np.shape(part), np.shape(whole)), np.nan)
    np.divide(part, whole, out=out, where=np.asarray(whole) > 0)
    return out


def _per_au(table: AUTable, figure: Any) -> Values:
    values = np.full(len(table.aus), np.nan)
    for column in range(len(table.aus)):
        known = table.labels[:, column] >= 0
        labels = table.labels[known, column]
        if labels.min(initial=1) != labels.max(initial=0):
            values[column] = figure(labels, table.probabilities[known, column])
    return values


def _expected_error(bins: Reliability) -> float:
    return float(np.nansum(bins.counts * np.abs(bins.confidence - bins.observed)) / bins.counts.sum())


def _winner_calibration(table: ExpressionTable) -> float:
    right = table.probabilities.argmax(1) == table.labels
    return _expected_error(reliability(table.probabilities.max(1), right))
