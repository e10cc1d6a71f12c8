"""Intervals over people: against closed forms, leaving out one by one, and simulated truth."""

from __future__ import annotations

import math

import numpy as np
import pytest
from drawn_tables import au_table, expression_table
from scipy.special import logit
from scipy.stats import t

from ssm.metrics import (
    confusion_by_subject,
    difference_interval,
    f1_score,
    hits_by_subject,
    seeds_difference,
    share_interval,
    unweighted_recall,
)
from ssm.metrics.figures import recall


def test_the_interval_equals_leaving_subjects_out_one_by_one() -> None:
    table = au_table(1, sequences=9)
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
    table = expression_table(0, clips=400)
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
