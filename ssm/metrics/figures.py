"""Figures of a merged table: F1, ROC-AUC, average precision and calibration of AUs; UAR, WAR, confusion of expressions.

Unknown labels count nowhere. A figure that is not defined (an AU without positive labels, a class without clips) is
nan and left out of means. Letters: N frames or clips, S subjects, A AUs, E expressions; `...` any leading dimensions.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ssm.interface import DecisionRule
from ssm.metrics.calibration import Reliability, expected_error, reliability, winner_error
from ssm.metrics.intervals import Estimate, Values, share_interval
from ssm.metrics.predictions import AUTable, ExpressionTable
from ssm.metrics.ranking import ranked_area, scores_by_subject


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
    roc_auc: Estimate  # A
    mean_auc: Estimate  # scalar
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
    recall: Estimate  # E
    confusion: NDArray[np.int64]  # E E, row: true class, column: predicted
    calibration_error: float  # of the winning class


def au_figures(table: AUTable, rule: DecisionRule) -> AUFigures:
    """All figures of an AU corpus, F1 under `rule` (fitted elsewhere) and at 0.5."""
    ruled = hits_by_subject(table, rule.select(table.aus).apply(table.probabilities, table.lengths))
    plain = hits_by_subject(table, DecisionRule.default(table.aus).apply(table.probabilities, table.lengths))
    ranked, areas = scores_by_subject(table), roc_auc(table)  # bins suffice for an interval; the value is exact
    known = table.labels >= 0
    return AUFigures(
        aus=table.aus,
        frames=len(table),
        subjects=len(table.subjects),
        prevalence=_share((table.labels == 1).sum(0), known.sum(0)),
        f1=share_interval(ruled, f1_score),
        f1_half=share_interval(plain, f1_score),
        macro_f1=share_interval(ruled, macro_f1),
        macro_f1_half=share_interval(plain, macro_f1),
        roc_auc=replace(share_interval(ranked, ranked_area), value=areas),
        mean_auc=replace(share_interval(ranked, mean_area), value=macro(areas)),
        average_precision=average_precision(table),
        calibration_error=calibration_error(table),
        reliability=reliability(table.probabilities[known], table.labels[known]),
    )


def expression_figures(table: ExpressionTable) -> ExpressionFigures:
    """All figures of an expression corpus."""
    counts = confusion_by_subject(table)
    return ExpressionFigures(
        expressions=table.expressions,
        clips=len(table),
        subjects=len(table.subjects),
        uar=share_interval(counts, unweighted_recall),
        war=share_interval(counts, weighted_recall),
        recall=share_interval(counts, recall),
        confusion=counts.sum(0),
        calibration_error=winner_error(table),
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


def macro_f1(hits: NDArray[Any]) -> Values:
    """(... A 3) -> mean F1 of the AUs that have a positive label (...)."""
    return macro(f1_score(hits))


def mean_area(counts: NDArray[Any]) -> Values:
    """(... A 2 K) -> mean ROC-AUC of the AUs that have both kinds of label (...)."""
    return macro(ranked_area(counts))


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
    return _per_au(table, lambda labels, scores: expected_error(reliability(scores, labels)))


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


def _per_au(table: AUTable, figure: Callable[[NDArray[Any], NDArray[Any]], float]) -> Values:
    values = np.full(len(table.aus), np.nan)
    for column in range(len(table.aus)):
        known = table.labels[:, column] >= 0
        labels = table.labels[known, column]
        if 0 < labels.sum() < len(labels):
            values[column] = figure(labels, table.probabilities[known, column])
    return values
