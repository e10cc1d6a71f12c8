"""FACS consistency and soft labels: against scikit-learn, scipy and cases computed by hand."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import entropy
from sklearn.metrics import log_loss, roc_auc_score

from ssm.metrics.consistency import area, facs_consistency
from ssm.metrics.predictions import ExpressionPredictions, ExpressionTable
from ssm.metrics.soft import soft_figures

CLASSES = ("happiness", "sadness", "anger")


def test_area_is_that_of_scikit_learn_with_ties() -> None:
    generator = np.random.default_rng(0)
    positive, negative = (generator.integers(0, 8, count) / 8 for count in (50, 80))
    labels = np.repeat([1, 0], [50, 80])
    assert area(positive, negative) == pytest.approx(roc_auc_score(labels, np.concatenate([positive, negative])))


def test_linked_expressions_together_and_alone() -> None:
    """AU4 is linked to sadness and anger; it is high on anger only. AU12 of happiness, always right. AU2 of none."""
    labels = np.array([0] * 10 + [1] * 10 + [2] * 10)
    au4 = np.where(labels == 2, 0.9, 0.1)
    au12 = np.where(labels == 0, 0.8, 0.2)
    scores = np.stack([au4, au12, au4], 1)
    table = {"happiness": (12,), "sadness": (4,), "anger": (4,)}
    rows = facs_consistency(scores, labels, (4, 12, 2), CLASSES, table, replicates=200)
    assert [(row.au, row.linked, row.auc, row.images, row.others) for row in rows] == [
        (4, ("sadness", "anger"), 0.75, 20, 10),
        (4, ("sadness",), 0.5, 10, 10),
        (4, ("anger",), 1.0, 10, 10),
        (12, ("happiness",), 1.0, 10, 20),
    ]
    assert rows[0].low < rows[0].auc < rows[0].high
    assert rows[3].low == rows[3].high == 1.0


def test_an_au_without_faces_of_its_expressions_has_no_figure() -> None:
    (row,) = facs_consistency(np.zeros((4, 1)), np.array([1, 1, 2, 2]), (12,), CLASSES, {"happiness": (12,)})
    assert np.isnan(row.auc)


def table(shares: list[list[float]] | None, probabilities: list[list[float]]) -> ExpressionTable:
    gathered = ExpressionPredictions(CLASSES)
    for number, found in enumerate(probabilities):
        votes = None if shares is None else np.array(shares[number], np.float32)
        label = int(np.argmax(found if votes is None else votes))
        gathered.update(f"clip {number}", None, found, label, votes)
    return gathered.table()


def test_soft_figures_against_scipy() -> None:
    shares, found = [[0.5, 0.5, 0.0], [0.2, 0.8, 0.0]], [[0.6, 0.3, 0.1], [0.7, 0.2, 0.1]]
    figures = soft_figures(table(shares, found))
    assert figures.divergence == pytest.approx(np.mean([entropy(p, q) for p, q in zip(shares, found, strict=True)]))
    assert figures.agreement == pytest.approx((0.5 + 0.2) / 2)
    assert figures.ceiling == pytest.approx((0.5 + 0.8) / 2)


def test_hard_labels_are_unanimous_votes() -> None:
    found = [[0.6, 0.3, 0.1], [0.1, 0.2, 0.7]]
    hard = table(None, found)
    assert hard.shares is None
    figures = soft_figures(hard)
    assert figures.divergence == pytest.approx(log_loss([0, 2], found, labels=[0, 1, 2]))
    assert (figures.agreement, figures.ceiling) == (1.0, 1.0)


def test_clips_with_and_without_votes_share_a_table() -> None:
    gathered = ExpressionPredictions(CLASSES)
    other = ExpressionPredictions(CLASSES)
    gathered.update("b", None, [1, 0, 0], 0, np.array([0.5, 0.25, 0.25], np.float32))
    other.update("a", None, [1, 0, 0], 2)
    gathered.merge(other)
    shares = gathered.table().shares
    assert shares is not None
    assert shares.tolist() == [[0, 0, 1], [0.5, 0.25, 0.25]]
