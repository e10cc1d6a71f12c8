"""CCC, PCC, RMSE and SAGR against direct formulas and scipy, joined over chunks to the bit, with their intervals."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import pearsonr

from ssm.metrics.affect import affect_figures, affect_sums, ccc, mean_ccc, pcc, rmse, sagr, sums_by_subject
from ssm.metrics.affect_predictions import AffectPredictions, AffectTable

RNG = np.random.default_rng(5)


def sides(frames: int = 400) -> tuple[np.ndarray, np.ndarray]:
    truth = np.clip(RNG.normal(0.1, 0.4, (frames, 2)), -1, 1)
    found = np.clip(0.7 * truth + RNG.normal(0.1, 0.2, truth.shape), -1, 1)
    return found.astype(np.float32), truth.astype(np.float32)


def direct(x: np.ndarray, y: np.ndarray) -> float:
    x, y = x.astype(np.float64), y.astype(np.float64)
    covariance = ((x - x.mean()) * (y - y.mean())).mean()
    return float(2 * covariance / (x.var() + y.var() + (x.mean() - y.mean()) ** 2))


def test_figures_are_those_of_the_direct_formulas_over_labelled_frames() -> None:
    found, truth = sides()
    truth[::7, 0] = np.nan
    sums = affect_sums(found, truth)
    for column in range(2):
        known = ~np.isnan(truth[:, column])
        x, y = found[known, column].astype(float), truth[known, column].astype(float)
        assert sums[column, 0] == known.sum()
        assert ccc(sums)[column] == pytest.approx(direct(x, y), abs=2e-6)
        identity = 1 - ((x - y) ** 2).mean() / ((x**2).mean() + (y**2).mean() - 2 * x.mean() * y.mean())
        assert ccc(sums)[column] == pytest.approx(identity, abs=2e-6)
        assert pcc(sums)[column] == pytest.approx(pearsonr(x, y).statistic, abs=2e-6)
        assert rmse(sums)[column] == pytest.approx(np.sqrt(((x - y) ** 2).mean()), abs=1e-5)
        assert sagr(sums)[column] == pytest.approx((np.sign(x) == np.sign(y)).mean())
    assert mean_ccc(sums) == pytest.approx(ccc(sums).mean())


def test_chunks_and_workers_in_any_order_give_the_same_bits() -> None:
    found, truth = sides(301)
    whole = affect_sums(found, truth)
    for order in (range(7), reversed(range(7))):
        pieces = [affect_sums(found[part::7], truth[part::7]) for part in order]
        assert np.array_equal(np.sum(pieces, axis=0), whole)


def test_a_constant_prediction_has_no_concordance_and_a_shifted_or_scaled_one_less_than_full() -> None:
    _, truth = sides()
    inside = truth * 0.5
    assert ccc(affect_sums(np.full_like(truth, 0.2), truth)) == pytest.approx([0, 0], abs=1e-9)
    assert ccc(affect_sums(inside, inside)) == pytest.approx([1, 1], abs=1e-9)
    for changed in (inside + 0.2, inside * 0.5):
        assert (ccc(affect_sums(changed, inside)) < 0.95).all()
        assert pcc(affect_sums(changed, inside)) == pytest.approx([1, 1], abs=1e-6)


@pytest.mark.parametrize("labels", [np.full((5, 2), 0.3), np.full((5, 2), np.nan)])
def test_concordance_with_constant_or_unknown_labels_is_not_defined(labels: np.ndarray) -> None:
    sums = affect_sums(RNG.normal(0, 0.2, (5, 2)), labels)
    assert np.isnan(ccc(sums)).all()
    assert np.isnan(mean_ccc(sums))


def test_a_table_gives_figures_with_intervals_over_subjects() -> None:
    gathered = AffectPredictions()
    for person in range(12):
        found, truth = sides(40)
        gathered.update(f"v{person}", f"p{person}", np.arange(40), found, truth)
    table = gathered.table()
    figures, sums = affect_figures(table), sums_by_subject(table)
    assert np.array_equal(sums.sum(0), affect_sums(table.predictions, table.labels))
    assert figures.frames.tolist() == [480, 480]
    assert figures.subjects == 12
    for one in (figures.ccc, figures.pcc, figures.rmse, figures.sagr, figures.mean_ccc):
        assert (one.low < one.value).all()
        assert (one.value < one.high).all()
    assert (figures.ccc.high <= 1).all()


def test_overlapping_windows_are_averaged_and_splits_over_workers_merge() -> None:
    found, truth = sides(20)
    truth[4] = np.nan
    whole, one, other = AffectPredictions(), AffectPredictions(), AffectPredictions()
    whole.update("v", None, np.arange(20), found, truth)
    one.update("v", None, np.arange(12), found[:12], truth[:12])
    other.update("v", None, np.arange(4, 20), found[4:], truth[4:])
    other.merge(one)
    tables: list[AffectTable] = [whole.table(), other.table()]
    assert tables[0].subjects == ("v",)
    assert np.array_equal(tables[0].labels, tables[1].labels, equal_nan=True)
    assert np.allclose(tables[0].predictions, tables[1].predictions)
    assert np.isnan(tables[0].labels[4]).all()


def test_values_that_cannot_be_are_refused() -> None:
    gathered = AffectPredictions()
    with pytest.raises(ValueError, match=r"v: a label must lie in \[-1, 1\]; got -5.0 .. 0.0"):
        gathered.update("v", None, [0], [[0, 0]], [[-5, 0]])
    with pytest.raises(ValueError, match=r"v: predictions \(1, 1\) and labels \(1, 2\) must both be \(1, 2\)"):
        gathered.update("v", None, [0], [[0]], [[0, 0]])
    with pytest.raises(ValueError, match="the split is empty"):
        gathered.table()
