"""What probabilities are worth: abstention at a wanted risk, risk and coverage, temperatures."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from drawn_tables import EXPRESSIONS

from ssm.interface.rules import DecisionRule
from ssm.metrics import (
    AUPredictions,
    AUTable,
    ExpressionTable,
    au_temperature,
    calibration_error,
    cooled_aus,
    cooled_expressions,
    expression_temperature,
    winner_error,
)
from ssm.metrics.risk import abstained, au_risk_by_doubt, fit_abstention, risk_coverage


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
