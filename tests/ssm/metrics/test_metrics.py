"""Metrics equal scikit-learn and torchmetrics on random data; merged == all at once; intervals hold the truth."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.special import logit
from scipy.stats import t

from ssm.interface.rules import AURule, DecisionRule
from ssm.metrics import (
    AUPredictions,
    AUTable,
    ExpressionPredictions,
    ExpressionTable,
    au_figures,
    au_temperature,
    calibration_error,
    confusion_by_subject,
    cooled_aus,
    cooled_expressions,
    difference_interval,
    expression_figures,
    expression_temperature,
    f1_score,
    hits_by_subject,
    macro,
    ranked_area,
    roc_auc,
    scores_by_subject,
    seeds_difference,
    share_interval,
    unweighted_recall,
    winner_error,
)
from ssm.metrics.figures import recall
from ssm.metrics.risk import abstained, au_risk_by_doubt, fit_abstention, risk_coverage

AUS, EXPRESSIONS = (1, 4, 12), ("happiness", "sadness", "neutral", "fear")


def _stretches(seed: int, sequences: int = 5) -> list[tuple[str, str, NDArray[np.int64], NDArray, NDArray]]:
    generator = np.random.default_rng(seed)
    found = []
    for number in range(sequences):
        length = int(generator.integers(3, 20))
        labels = generator.integers(-1, 2, (length, len(AUS)))
        probabilities = np.clip(0.3 + 0.3 * labels + 0.3 * generator.random(labels.shape), 0, 1).astype(np.float32)
        found.append((f"q{number}", f"s{number % 3}", np.arange(length) + 10, probabilities, labels))
    return found


def _au_table(seed: int, sequences: int = 5) -> AUTable:
    gathered = AUPredictions(AUS)
    for stretch in _stretches(seed, sequences):
        gathered.update(*stretch)
    return gathered.table()


def _expression_table(seed: int, clips: int = 60) -> ExpressionTable:
    generator = np.random.default_rng(seed)
    gathered = ExpressionPredictions(EXPRESSIONS)
    for number in range(clips):
        label = int(generator.integers(len(EXPRESSIONS)))
        scores = generator.random(len(EXPRESSIONS)) + 0.6 * (np.arange(len(EXPRESSIONS)) == label)
        gathered.update(f"c{number:03}", f"s{number % 7}", scores / scores.sum(), label)
    return gathered.table()


def _same(one: object, other: object) -> bool:
    return all(np.array_equal(a, b) for a, b in zip(vars(one).values(), vars(other).values(), strict=True))


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 4))
def test_au_predictions_merged_in_any_order_and_window_equal_all_at_once(seed: int, workers: int) -> None:
    generator = np.random.default_rng(seed)
    whole, parts = AUPredictions(AUS), [AUPredictions(AUS) for _ in range(workers)]
    windows = []
    for sequence, subject, frames, probabilities, labels in _stretches(seed):
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

    table = _au_table(seed)
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

    table = _expression_table(seed)
    figures = expression_figures(table)
    predicted = table.probabilities.argmax(1)
    assert (figures.confusion == confusion_matrix(table.labels, predicted, labels=range(4))).all()
    assert figures.war.value == pytest.approx(accuracy_score(table.labels, predicted))
    assert figures.uar.value == pytest.approx(recall_score(table.labels, predicted, average="macro"))
    assert 0 <= figures.calibration_error <= 1


@given(st.integers(0, 2**31))
@settings(max_examples=30, deadline=None)
def test_the_area_from_counts_equals_scikit_learn_and_adds_up_over_subjects(seed: int) -> None:
    table = _au_table(seed, 9)
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


def test_the_interval_equals_leaving_subjects_out_one_by_one() -> None:
    table = _au_table(1, sequences=9)
    counts = hits_by_subject(table, table.probabilities >= 0.5)[:, :1]
    found = share_interval(counts, f1_score)
    subjects, value = len(counts), float(f1_score(counts.sum(0))[0])
    without = [float(f1_score(np.delete(counts, place, 0).sum(0))[0]) for place in range(subjects)]
    spread = math.sqrt((subjects - 1) / subjects * sum((one - value) ** 2 for one in without))
    reach = float(t.ppf(0.975, subjects - 1)) * spread / (value * (1 - value))
    assert found.value == pytest.approx(value)
    assert float(logit(found.high[0])) == pytest.approx(float(logit(value)) + reach)
    assert float(logit(found.low[0])) == pytest.approx(float(logit(value)) - reach)
    assert found.subjects.tolist() == [subjects]


def test_of_a_mean_the_interval_is_students() -> None:
    """On the natural scale and equal subjects the jackknife is the textbook interval of a mean."""
    right = np.array([9, 14, 11, 17, 12, 8])
    counts = np.stack([right, 20 - right], 1)[:, None]
    against = np.full((6, 1, 2), 10)  # one half, always
    found = difference_interval(counts, against, lambda hits: hits[..., 0, 0] / hits.sum((-2, -1)))
    low, high = t.interval(0.95, 5, loc=right.mean() / 20, scale=right.std(ddof=1) / 20 / math.sqrt(6))
    assert float(found.low) == pytest.approx(low - 0.5)
    assert float(found.high) == pytest.approx(high - 0.5)


def test_subjects_with_equal_counts_count_as_often_as_they_are_there() -> None:
    generator = np.random.default_rng(0)
    right = generator.random(400) < 0.7  # clips whose subject nobody names: two distinct rows
    counts = np.stack([right, ~right], 1).astype(np.int64)[:, None]
    found = share_interval(counts, lambda hits: hits[..., 0, 0] / hits.sum((-2, -1)))
    wilson = proportion(int(right.sum()), 400)
    assert (float(found.low), float(found.high)) == pytest.approx(wilson, abs=0.004)


def proportion(successes: int, trials: int) -> tuple[float, float]:
    """Wilson's interval, written out."""
    z, p = 1.959964, successes / trials
    centre, reach = p + z**2 / (2 * trials), z * math.sqrt(p * (1 - p) / trials + z**2 / (4 * trials**2))
    return (centre - reach) / (1 + z**2 / trials), (centre + reach) / (1 + z**2 / trials)


def test_one_subject_gives_no_interval_and_a_figure_never_seen_none_at_all() -> None:
    hits = np.array([[[8, 2, 3], [0, 1, 0], [5, 0, 5]], [[6, 1, 1], [0, 2, 0], [0, 1, 0]]])
    found = share_interval(hits, f1_score)
    assert found.subjects.tolist() == [2, 0, 1]
    assert np.isfinite(found.low[0])
    assert np.isnan(found.low[1:]).all()
    assert np.isnan(found.value[1])
    alone = share_interval(hits[:1], f1_score)
    assert np.isnan(alone.low).all()
    assert alone.value[0] == pytest.approx(f1_score(hits[0])[0])


def test_a_recall_of_zero_or_one_is_not_certain() -> None:
    """None right of n people: the exact bound 1 - 0.05^(1/n)."""
    confusion = np.zeros((5, 2, 2), np.int64)
    confusion[:, 0, 0], confusion[:, 1, 0] = 4, 3  # the first class always right, the second never
    found = share_interval(confusion, recall)
    assert found.value.tolist() == [1, 0]
    assert found.low.tolist() == pytest.approx([0.05**0.2, 0])
    assert found.high.tolist() == pytest.approx([1, 1 - 0.05**0.2])


def test_paired_difference_is_sharper_than_unpaired_and_zero_against_itself() -> None:
    table = _expression_table(0, clips=400)
    counts = confusion_by_subject(table)
    same = difference_interval(counts, counts, unweighted_recall)
    assert (same.value, same.low, same.high) == (0, 0, 0)
    better = counts.copy()
    better[:, 0, 0] += 2  # two more right answers for every subject
    gain = difference_interval(better, counts, unweighted_recall)
    alone = share_interval(better, unweighted_recall)
    assert 0 < gain.low < gain.value < gain.high
    assert gain.high - gain.low < 0.5 * (alone.high - alone.low)
    with pytest.raises(ValueError, match="needs the same subjects"):
        difference_interval(counts, counts[1:], unweighted_recall)


def test_seeds_that_disagree_widen_a_difference() -> None:
    generator = np.random.default_rng(0)
    counts = generator.integers(5, 20, (8, 3, 2, 2))  # subjects, seeds, classes
    others = counts.copy()
    others[..., 0, 0] += 3
    agreeing = seeds_difference(others, counts, unweighted_recall)
    others[:, 0, 1, 1] += 30  # one seed is far better than the others, on everybody
    disagreeing = seeds_difference(others, counts, unweighted_recall)
    people = difference_interval(others[:, 0], counts[:, 0], unweighted_recall)
    assert agreeing.low > 0
    assert disagreeing.high - disagreeing.low > 3 * (agreeing.high - agreeing.low)
    assert people.low > 0, "of that seed alone people leave no doubt"
    assert disagreeing.low < 0, "of another seed they do"


@pytest.mark.parametrize("subjects", [3, 5, 14])
def test_intervals_of_few_people_hold_the_truth(subjects: int) -> None:
    """A small cut of bench/coverage.py: recall of people who differ, 95 % within what 400 draws can tell."""
    generator = np.random.default_rng(subjects)
    truth = 10.0 / 14  # mean of Beta(10, 4)
    held = 0
    for _ in range(400):
        right = generator.binomial(30, generator.beta(10, 4, subjects))
        counts = np.stack([right, np.zeros_like(right), 30 - right], 1)[:, None]
        found = share_interval(counts, lambda hits: hits[..., 0] / (hits[..., 0] + hits[..., 2]))
        held += bool(found.low[0] <= truth <= found.high[0])
    assert 0.92 <= held / 400 <= 0.985


def _doubting(doubts: list[float], wrong: list[bool]) -> AUTable:
    """One AU that is always found present, with labels that make these answers wrong."""
    count, column = len(doubts), np.array(doubts, np.float32)[:, None]
    labels = (~np.array(wrong))[:, None].astype(np.int8)
    return AUTable(
        aus=(12,), probabilities=np.full((count, 1), 0.9, np.float32), labels=labels,
        lengths=(count,), sequences=("a",), subjects=("s",), subject=np.zeros(count, np.intp), doubts=column,
        tilted=column,
    )  # fmt: skip


def test_abstention_keeps_the_wanted_risk_on_what_it_was_fitted_on() -> None:
    """1,000 answers, of which the tenth with most doubt is half wrong and the rest one in a hundred."""
    doubts = np.linspace(0.1, 0.9, 1000)
    wrong = [n % 100 == 99 if n < 900 else n % 2 == 0 for n in range(1000)]
    table, rule = _doubting(doubts.tolist(), wrong), DecisionRule.default((12, 4))
    found = fit_abstention([table], rule, 0.02)
    given, error = abstained(table, rule, found)
    assert (given, error) == (found.coverage, pytest.approx(0.02, abs=1e-3))
    assert error <= 0.02
    more = np.flatnonzero(~found.withheld(table.doubts[:, 0]))[-1] + 1
    assert np.mean(wrong[: more + 1]) > 0.02, "not one answer more could be given"
    assert fit_abstention([table], rule, 0.5).coverage == 1
    assert au_risk_by_doubt(table).risk[-1] == pytest.approx(np.mean(wrong))


def test_an_abstention_that_validation_cannot_support_is_refused_with_the_mend() -> None:
    rule, table = (
        DecisionRule.default((12,)),
        _doubting([0.1 + n / 1000 for n in range(200)], [n % 10 == 0 for n in range(200)]),
    )
    with pytest.raises(ValueError, match=r"at a risk of 0\.01: the least it reaches is 0\.1.* ask for at least that"):
        fit_abstention([table], rule, 0.01)
    with pytest.raises(ValueError, match="10 labelled answers with doubts are too few"):
        fit_abstention([_doubting([0.5] * 10, [False] * 10)], rule, 0.1)
    with pytest.raises(ValueError, match=r"risk is 1\.5: must lie in"):
        fit_abstention([table], rule, 1.5)
    with pytest.raises(ValueError, match=r"no evidence, so nothing says when to abstain: train with \+evidential"):
        fit_abstention([replace(table, doubts=None)], rule, 0.1)
    equal = _doubting([0.3] * 100, [n < 10 for n in range(100)])
    assert fit_abstention([equal], rule, 0.1).coverage == 1, "equal doubts are answered together"


def test_risk_falls_with_coverage_where_confidence_means_something_and_ties_share_their_errors() -> None:
    confidence = np.linspace(0.5, 1, 200)
    wrong = np.arange(200) < 40  # the least sure fifth
    found = risk_coverage(confidence, wrong)
    assert found.risk[:16].tolist() == [0] * 16
    assert found.risk[-1] == pytest.approx(0.2)
    flat = risk_coverage(np.full(200, 0.7), wrong)
    assert flat.risk == pytest.approx(np.full(20, 0.2))
    assert flat.area == pytest.approx(0.2)
    assert np.isnan(risk_coverage(confidence[:0], wrong[:0]).area)


def test_a_temperature_undoes_overconfidence_on_other_data() -> None:
    def clips(seed: int) -> ExpressionTable:
        generator = np.random.default_rng(seed)
        logits = generator.standard_normal((4000, 4))
        true = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
        labels = (true.cumsum(1) < generator.random((4000, 1))).sum(1)
        sure = np.exp(3 * logits) / np.exp(3 * logits).sum(1, keepdims=True)  # logits three times too large
        people = tuple(map(str, range(4000)))
        return ExpressionTable(EXPRESSIONS, sure.astype(np.float32), labels, people, people, np.arange(4000))

    validation, test = clips(0), clips(1)
    temperature = expression_temperature([validation])
    assert temperature == pytest.approx(3, rel=0.1)
    assert winner_error(cooled_expressions(test, temperature)) < 0.2 * winner_error(test)
    assert (cooled_expressions(test, temperature).probabilities.argmax(1) == test.probabilities.argmax(1)).all()
    assert expression_temperature([]) is None


def test_a_temperature_of_aus_is_one_for_all_and_needs_both_kinds_of_label() -> None:
    generator = np.random.default_rng(0)
    logits = generator.normal(0, 1.5, (6000, 2))
    labels = (generator.random(logits.shape) < 1 / (1 + np.exp(-logits))).astype(np.int8)
    gathered = AUPredictions((1, 4))
    gathered.update("q", "s", np.arange(6000), 1 / (1 + np.exp(-2 * logits)), labels)
    table = gathered.table()
    temperature = au_temperature([table])
    assert temperature == pytest.approx(2, rel=0.1)
    assert (calibration_error(cooled_aus(table, temperature)) < 0.3 * calibration_error(table)).all()
    never = AUPredictions((1,))
    never.update("q", "s", [0, 1], [[0.2], [0.3]], [[0], [-1]])
    assert au_temperature([never.table()]) is None


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
