"""Votes in an evaluation: kept on disk, cut to judged classes, scored beside accuracy."""

from __future__ import annotations

import numpy as np
import pytest

from ssm.metrics.predictions import ExpressionPredictions, ExpressionTable
from ssm_platform.evaluate.judged import trained_labels
from ssm_platform.evaluate.prediction_files import from_parquet, to_parquet
from ssm_platform.evaluate.scores import Provenance
from ssm_platform.evaluate.scoring import About, evaluate

CLASSES = ("happiness", "sadness", "contempt")
FOUND = np.array([[0.7, 0.2, 0.1], [0.1, 0.6, 0.3], [0.3, 0.3, 0.4]], np.float32)
VOTES = np.array([[0.8, 0.0, 0.2], [0.5, 0.5, 0.0], [0.1, 0.1, 0.8]], np.float32)


def table(votes: bool, classes: tuple[str, ...] = CLASSES) -> ExpressionTable:
    gathered = ExpressionPredictions(classes)
    for row in range(3 if len(classes) == 3 else 2):
        found, said = FOUND[row, : len(classes)], VOTES[row, : len(classes)]
        shares = said / said.sum() if votes else None
        gathered.update(f"clip {row}", f"actor {row}", found / found.sum(), int(said.argmax()), shares)
    return gathered.table()


def test_votes_come_back_from_disk() -> None:
    back = from_parquet(to_parquet(table(votes=True)))
    assert isinstance(back, ExpressionTable)
    assert back.shares is not None
    assert (back.shares == VOTES).all()
    hard = from_parquet(to_parquet(table(votes=False)))
    assert isinstance(hard, ExpressionTable)
    assert hard.shares is None


def test_votes_are_cut_to_the_classes_that_are_judged() -> None:
    trained = {"other": table(votes=False, classes=CLASSES[:2])}
    kept, _ = trained_labels({"ferplus": table(votes=True)}, trained)
    judged = kept["ferplus"]
    assert isinstance(judged, ExpressionTable)
    assert judged.shares is not None
    np.testing.assert_allclose(judged.shares, [[1, 0], [0.5, 0.5]])


@pytest.mark.parametrize("votes", [True, False])
def test_an_evaluation_says_how_a_model_agrees_with_the_voters(votes: bool) -> None:
    provenance = Provenance(run="r", command="c", seed=1, config_fingerprint="f", data={}, versions={}, machine="m")
    tables = {"ferplus": table(votes)}
    evaluation, _ = evaluate(tables, tables, "clean", (), About(provenance))
    (scores,) = evaluation.fe
    if not votes:
        assert scores.soft is None
        assert "votes" not in evaluation.summary()
        return
    assert scores.soft is not None
    assert scores.soft.agreement == pytest.approx((0.8 + 0.5 + 0.8) / 3)
    assert scores.soft.ceiling == pytest.approx((0.8 + 0.5 + 0.8) / 3)
    assert "agrees with 0.700 of the votes (at best 0.700)" in evaluation.summary()
