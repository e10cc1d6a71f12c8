"""The rule search equals brute force over its whole grid, ties included; applying a rule equals its definition."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from ssm.interface.rules import THRESHOLDS, AURule, DecisionRule, fit_common_rule, fit_rule


def _votes(yes: NDArray[np.bool_], half_window: int) -> NDArray[np.int64]:
    """Yes votes around each frame of one sequence, straight from the definition."""
    last = len(yes) - 1
    offsets = range(-half_window, half_window + 1)
    return np.array([sum(int(yes[min(max(i + o, 0), last)]) for o in offsets) for i in range(len(yes))])


def _split(values: NDArray[np.float64], lengths: Sequence[int]) -> list[NDArray[np.float64]]:
    return np.split(values, np.cumsum(lengths)[:-1])


def _brute_force(probabilities: NDArray[np.float64], labels: NDArray[np.int8], lengths: Sequence[int]) -> AURule:
    best: tuple[float, ...] = (-1.0,)
    rule = AURule()
    for half_window in range(8):
        for index, threshold in enumerate(THRESHOLDS):
            count = np.concatenate([_votes(part >= threshold, half_window) for part in _split(probabilities, lengths)])
            for votes in range(1, 2 * half_window + 2):
                positive = count >= votes
                true = int((positive & (labels == 1)).sum())
                wrong = int((positive & (labels == 0)).sum()) + int((~positive & (labels == 1)).sum())
                f1 = 2 * true / max(2 * true + wrong, 1)
                key = (f1, -half_window, -abs(votes - half_window - 1), -votes, -abs(index - 49), -index)
                if key > best:
                    best = key
                    rule = AURule(threshold=threshold, half_window=half_window, votes=votes)
    return rule


@settings(max_examples=12, deadline=None)
@given(st.lists(st.integers(1, 9), min_size=1, max_size=4), st.integers(0, 10**6), st.booleans())
def test_fit_equals_brute_force(lengths: list[int], seed: int, coarse: bool) -> None:
    generator = np.random.default_rng(seed)
    frames = sum(lengths)
    probabilities = generator.random((frames, 1))
    if coarse:  # on the grid itself: ties, and values equal to thresholds
        probabilities = np.round(probabilities, 1)
    labels = generator.integers(-1, 2, (frames, 1)).astype(np.int8)
    fitted = fit_rule([12], probabilities, labels, lengths)
    assert fitted.rules[12] == _brute_force(probabilities[:, 0], labels[:, 0], lengths)


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.integers(1, 20), min_size=1, max_size=4),
    st.integers(0, 7),
    st.integers(0, 10**6),
    st.floats(0.01, 0.99),
)
def test_apply_equals_the_definition(lengths: list[int], half_window: int, seed: int, threshold: float) -> None:
    generator = np.random.default_rng(seed)
    probabilities = generator.random((sum(lengths), 2))
    votes = int(generator.integers(1, 2 * half_window + 2))
    rule = AURule(threshold=threshold, half_window=half_window, votes=votes)
    present = DecisionRule(rules={4: rule, 12: AURule()}).apply(probabilities, lengths)
    parts = _split(probabilities[:, 0], lengths)
    expected = np.concatenate([_votes(part >= threshold, half_window) >= votes for part in parts])
    assert (present[:, 0] == expected).all()
    assert (present[:, 1] == (probabilities[:, 1] >= 0.5)).all()


def test_applying_the_fitted_rule_reaches_the_f1_it_was_chosen_for() -> None:
    generator = np.random.default_rng(0)
    lengths = [40, 60]
    labels = (np.sin(np.arange(100) / 6) > 0.3).astype(np.int8)[:, None]
    probabilities = np.clip(0.35 + 0.25 * labels + 0.25 * generator.standard_normal((100, 1)), 0, 1).astype(np.float32)

    def f1(rule: DecisionRule) -> float:
        present, true = rule.apply(probabilities, lengths)[:, 0], labels[:, 0] == 1
        return 2 * (present & true).sum() / (present.sum() + true.sum())

    fitted = fit_rule([1], probabilities, labels, lengths)
    assert f1(fitted) > f1(DecisionRule.default([1])) + 0.05
    neighbours = [
        DecisionRule(rules={1: AURule(threshold=t / 100, half_window=k, votes=k + 1)})
        for t in range(5, 100, 5)
        for k in range(8)
    ]
    assert f1(fitted) >= max(map(f1, neighbours))


def test_the_common_rule_is_the_best_of_the_grid_by_mean_f1_and_the_same_for_all() -> None:
    """As the released code searches: one threshold and vote; an AU that is never active has no say."""
    generator = np.random.default_rng(3)
    lengths = [12, 9]
    labels = np.concatenate([generator.integers(-1, 2, (21, 2)), np.zeros((21, 1), int)], 1).astype(np.int8)
    probabilities = np.clip(0.4 + 0.2 * labels + 0.2 * generator.standard_normal((21, 3)), 0, 1)

    def mean_f1(rule: AURule) -> float:
        present = DecisionRule(rules={1: rule, 2: rule}).apply(probabilities[:, :2], lengths)
        true, known = labels[:, :2] == 1, labels[:, :2] >= 0
        hits = (present & true).sum(0)
        return float(np.mean(2 * hits / ((present & known).sum(0) + true.sum(0))))

    fitted = fit_common_rule([1, 2, 4], probabilities, labels, lengths)
    assert len(set(fitted.rules.values())) == 1
    grid = [
        AURule(threshold=float(threshold), half_window=k, votes=votes)
        for threshold in THRESHOLDS[::2]
        for k in (0, 1, 2, 5)
        for votes in range(1, 2 * k + 2)
    ]
    assert mean_f1(fitted.rules[1]) >= max(map(mean_f1, grid))


def test_an_au_without_positive_labels_keeps_the_plain_threshold() -> None:
    probabilities = np.random.default_rng(0).random((30, 2))
    labels = np.stack([np.zeros(30), np.full(30, -1)], axis=1).astype(np.int8)
    assert fit_rule([1, 2], probabilities, labels) == DecisionRule.default([1, 2])


def test_rules_survive_json_and_are_selected_by_au() -> None:
    rule = DecisionRule(rules={4: AURule(threshold=0.3, half_window=2, votes=4), 1: AURule()})
    again = DecisionRule.model_validate_json(rule.model_dump_json())
    assert again == rule
    assert again.aus == (4, 1)
    assert rule.reach == 2
    assert rule.select([1]).aus == (1,)
    with pytest.raises(ValueError, match="no entry for AU 12; it has 4, 1"):
        rule.select([12])


def test_no_frames_give_no_decisions() -> None:
    assert DecisionRule.default([1, 2]).apply(np.zeros((0, 2))).shape == (0, 2)


def test_bad_input_names_what_came() -> None:
    rule = DecisionRule.default([1])
    with pytest.raises(ValueError, match=r"N x 1, one column per AU; got \(3, 2\)"):
        rule.apply(np.zeros((3, 2)))
    with pytest.raises(ValueError, match="lengths sum to 4"):
        rule.apply(np.zeros((3, 1)), [2, 2])
    with pytest.raises(ValueError, match="nan or infinite"):
        rule.apply(np.full((3, 1), np.nan))
    with pytest.raises(ValueError, match=r"labels are \(2, 1\), probabilities \(3, 1\)"):
        fit_rule([1], np.zeros((3, 1)), np.zeros((2, 1), np.int8))
    with pytest.raises(ValueError, match="votes is 4: a window of half_window 1 has fewer"):
        AURule(half_window=1, votes=4)
