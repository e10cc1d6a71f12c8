"""Metrics equal scikit-learn and torchmetrics on random data; merged == all at once; intervals hold the truth."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from drawn_tables import AUS, EXPRESSIONS, au_table, expression_table, stretches
from hypothesis import given, settings
from hypothesis import strategies as st

from ssm.interface.rules import AURule, DecisionRule
from ssm.metrics import (
    AUPredictions,
    ExpressionPredictions,
    au_figures,
    expression_figures,
    f1_score,
    macro,
    ranked_area,
    roc_auc,
    scores_by_subject,
    unweighted_recall,
)


def _same(one: object, other: object) -> bool:
    return all(np.array_equal(a, b) for a, b in zip(vars(one).values(), vars(other).values(), strict=True))


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 4))
def test_au_predictions_merged_in_any_order_and_window_equal_all_at_once(seed: int, workers: int) -> None:
    generator = np.random.default_rng(seed)
    whole, parts = AUPredictions(AUS), [AUPredictions(AUS) for _ in range(workers)]
    windows = []
    for sequence, subject, frames, probabilities, labels in stretches(seed):
        whole.update(sequence, subject, frames, probabilities, labels)
        for start in range(0, len(frames), 4):  # the last window overlaps, as a padded batch would
            cut = slice(max(0, min(start, len(frames) - 4)), start + 4)
            windows.append((sequence, subject, frames[cut], probabilities[cut], labels[cut]))
    for index in generator.permutation(len(windows)):
        parts[int(generator.integers(workers))].update(*windows[index])
    merged = AUPredictions(AUS)
    for part in parts:
        merged.merge(part)
    assert _same(merged.table(), whole.table())


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10**6))
def test_expression_predictions_merge(seed: int) -> None:
    generator = np.random.default_rng(seed)
    whole, parts = ExpressionPredictions(EXPRESSIONS), [ExpressionPredictions(EXPRESSIONS) for _ in range(3)]
    for number in range(20):
        label, scores = int(generator.integers(4)), generator.dirichlet(np.ones(4))
        whole.update(f"c{number}", None, scores, label)
        for worker in {int(generator.integers(3)), int(generator.integers(3))}:  # some clips twice
            parts[worker].update(f"c{number}", None, scores, label)
    parts[0].merge(parts[1])
    parts[2].merge(parts[0])
    assert _same(parts[2].table(), whole.table())


def test_duplicates_average_and_gaps_split_sequences() -> None:
    gathered = AUPredictions((1,))
    gathered.update("q", "s", [5, 6], [[0.2], [0.4]], [[1], [0]])
    gathered.update("q", "s", [6, 8], [[0.6], [0.9]], [[0], [-1]])
    gathered.update("p", None, [9], [[0.1]], [[1]])
    table = gathered.table()
    assert table.lengths == (1, 2, 1)
    assert table.sequences == ("p", "q", "q")
    assert table.probabilities[:, 0] == pytest.approx([0.1, 0.2, 0.5, 0.9])
    assert table.labels[:, 0].tolist() == [1, 1, 0, -1]
    assert [table.subjects[i] for i in table.subject] == ["p", "s", "s", "s"]


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10**6))
def test_au_figures_equal_scikit_learn_and_torchmetrics(seed: int) -> None:
    from sklearn.metrics import average_precision_score, f1_score, roc_auc_score
    from torchmetrics.functional.classification import binary_calibration_error

    table = au_table(seed)
    rule = DecisionRule(rules={au: AURule(threshold=0.6, half_window=1, votes=2) for au in AUS})
    figures = au_figures(table, rule)
    present = rule.apply(table.probabilities, table.lengths)
    expected = []
    for column in range(len(AUS)):
        known = table.labels[:, column] >= 0
        labels, scores = table.labels[known, column], table.probabilities[known, column]
        assert figures.prevalence[column] == pytest.approx(labels.mean())
        if len(set(labels.tolist())) < 2:
            assert np.isnan(figures.roc_auc.value[column])
            continue
        expected.append(f1_score(labels, present[known, column]))
        assert figures.f1.value[column] == pytest.approx(expected[-1])
        assert figures.f1_half.value[column] == pytest.approx(f1_score(labels, scores >= 0.5))
        assert figures.roc_auc.value[column] == pytest.approx(roc_auc_score(labels, scores))
        assert figures.average_precision[column] == pytest.approx(average_precision_score(labels, scores))
        error = binary_calibration_error(torch.from_numpy(scores), torch.from_numpy(labels).long(), n_bins=15)
        assert figures.calibration_error[column] == pytest.approx(float(error), abs=1e-5)
    if len(expected) == len(AUS):
        assert figures.macro_f1.value == pytest.approx(np.mean(expected))


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10**6))
def test_expression_figures_equal_scikit_learn(seed: int) -> None:
    from sklearn.metrics import accuracy_score, confusion_matrix, recall_score

    table = expression_table(seed)
    figures = expression_figures(table)
    predicted = table.probabilities.argmax(1)
    assert (figures.confusion == confusion_matrix(table.labels, predicted, labels=range(4))).all()
    assert figures.war.value == pytest.approx(accuracy_score(table.labels, predicted))
    assert figures.uar.value == pytest.approx(recall_score(table.labels, predicted, average="macro"))
    assert 0 <= figures.calibration_error <= 1


@given(st.integers(0, 2**31))
@settings(max_examples=30, deadline=None)
def test_the_area_from_counts_equals_scikit_learn_and_adds_up_over_subjects(seed: int) -> None:
    table = au_table(seed, 9)
    counts = scores_by_subject(table, bins=4 * len(table))
    np.testing.assert_allclose(ranked_area(counts.sum(0)), roc_auc(table), atol=1e-9)
    coarse = ranked_area(scores_by_subject(table, bins=32).sum(0))
    np.testing.assert_allclose(coarse, roc_auc(table), atol=0.05)
    for place in range(len(table.subjects)):
        mine = table.subject == place
        assert counts[place].sum() == (table.labels[mine] >= 0).sum()


def test_an_au_without_positive_labels_is_left_out_of_the_mean() -> None:
    hits = np.array([[3, 1, 1], [0, 4, 0], [0, 0, 0]])
    assert f1_score(hits) == pytest.approx([0.75, np.nan, np.nan], nan_ok=True)
    assert macro(f1_score(hits)) == pytest.approx(0.75)
    assert np.isnan(macro(np.array([np.nan])))


def test_a_class_without_clips_is_left_out_of_the_uar() -> None:
    assert unweighted_recall(np.array([[2, 2, 0], [0, 0, 0], [0, 0, 1]])) == pytest.approx(0.75)


def test_labels_that_are_not_labels_are_refused() -> None:
    gathered = AUPredictions((1,))
    for label in (np.nan, 0.5, 2):
        with pytest.raises(ValueError, match=f"q: an AU label is {label}; it must be 0, 1, or negative"):
            gathered.update("q", "s", [0, 1], [[0.5], [0.5]], [[1], [label]])


def test_an_au_without_labels_or_with_one_class_only_is_nan_not_an_error() -> None:
    gathered = AUPredictions(AUS)
    labels = np.stack([np.full(20, -1), np.zeros(20), np.ones(20)], 1)
    gathered.update("q", "s", np.arange(20), np.full((20, 3), 0.4), labels)
    figures = au_figures(gathered.table(), DecisionRule.default(AUS))
    assert np.isnan(figures.roc_auc.value).all()
    assert np.isnan(figures.average_precision).all()
    assert np.isnan(figures.calibration_error).all()
    assert np.isnan(figures.f1.value[:2]).all()
    assert figures.macro_f1.value == figures.f1.value[2] == 0
    assert np.isnan(figures.macro_f1.low)


def test_bad_predictions_are_refused_by_name() -> None:
    gathered = AUPredictions((1, 2))
    with pytest.raises(ValueError, match="the split is empty"):
        gathered.table()
    with pytest.raises(ValueError, match=r"q: probabilities \(1, 1\) and labels \(1, 2\) must both be \(1, 2\)"):
        gathered.update("q", None, [0], [[0.5]], [[1, 0]])
    with pytest.raises(ValueError, match=r"q: probabilities must lie in \[0, 1\]"):
        gathered.update("q", None, [0], [[0.5, np.nan]], [[1, 0]])
    gathered.update("q", "a", [0], [[0.5, 0.5]], [[1, 0]])
    gathered.update("q", "a", [0], [[0.5, 0.5]], [[1, 1]])
    with pytest.raises(ValueError, match="q frame 0: was given twice with different labels"):
        gathered.table()
    with pytest.raises(ValueError, match="cannot merge"):
        gathered.merge(AUPredictions((1,)))
    clips = ExpressionPredictions(EXPRESSIONS)
    with pytest.raises(ValueError, match=r"label 4 must be in 0 .. 3"):
        clips.update("c", None, np.full(4, 0.25), 4)
