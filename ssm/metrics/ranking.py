"""ROC-AUC from counts that add up over subjects, so that it can be resampled like every other figure.

Scores are ranked into bins of equal counts; two scores in one bin are a tie. With as many bins as distinct scores this
is the area that scikit-learn computes. Letters: S subjects, A action units, K bins; `...` any leading dimensions.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ssm.metrics.intervals import Values
from ssm.metrics.predictions import AUTable


def scores_by_subject(table: AUTable, bins: int = 128) -> NDArray[np.int64]:
    """How many frames of each subject and AU lie in each bin, negatives and positives: (S A 2 K)."""
    counts = np.zeros((len(table.subjects), len(table.aus), 2, bins), np.int64)
    for column in range(len(table.aus)):
        known = table.labels[:, column] >= 0
        scores, labels = table.probabilities[known, column], table.labels[known, column]
        if len(scores):
            edges = np.unique(np.quantile(scores, np.linspace(0, 1, bins + 1)[1:-1]))
            place = np.searchsorted(edges, scores, side="right")
            where: Any = (table.subject[known], column, labels, place)
            np.add.at(counts, where, 1)
    return counts


def ranked_area(counts: NDArray[Any]) -> Values:
    """(... A 2 K) -> ROC-AUC (... A); nan for an AU with one class only."""
    negatives, positives = np.moveaxis(np.asarray(counts, np.float64), -2, 0)
    below = negatives.cumsum(-1) - negatives / 2
    pairs = negatives.sum(-1) * positives.sum(-1)
    area: Values = np.divide((positives * below).sum(-1), pairs, out=np.full(pairs.shape, np.nan), where=pairs > 0)
    return area
