"""Evaluation on tables alone: where the rule is fitted, what the noise floor means, and that files keep every bit."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ssm import SSM
from ssm.interface.rules import DecisionRule, fit_rule
from ssm.metrics import AUPredictions, AUTable, ExpressionPredictions, ExpressionTable
from ssm_platform.evaluate.maps import map_report
from ssm_platform.evaluate.noise import noise_floor
from ssm_platform.evaluate.prediction_files import from_parquet, to_parquet
from ssm_platform.evaluate.results import Provenance
from ssm_platform.evaluate.rules import describe, fit
from ssm_platform.evaluate.scoring import evaluate
from ssm_platform.runs.recipes import tiny

PROVENANCE = Provenance(
    run="r", command="c", seed=1, config_fingerprint="f", data={}, versions={}, machine="m"
)  # fmt: skip


def au_table(aus: tuple[int, ...], subjects: int = 6, frames: int = 60, seed: int = 0, shift: float = 0.0) -> AUTable:
    """Frames whose probability is informative; `shift` moves every probability, so that 0.5 is the wrong threshold."""
    generator = np.random.default_rng(seed)
    gathered = AUPredictions(aus)
    for subject in range(subjects):
        labels = (generator.random((frames, len(aus))) < 0.3).astype(np.int8)
        scores = np.clip(0.25 + 0.4 * labels + 0.15 * generator.standard_normal(labels.shape) + shift, 0, 1)
        gathered.update(f"S{subject}_T1", f"S{subject}", np.arange(frames), scores, labels)
    return gathered.table()


def fe_table(clips: int = 40, seed: int = 0) -> ExpressionTable:
    generator = np.random.default_rng(seed)
    gathered = ExpressionPredictions(("happiness", "sadness", "neutral"))
    for clip in range(clips):
        gathered.update(f"{clip:05d}", None, generator.dirichlet(np.ones(3)), int(generator.integers(3)))
    return gathered.table()


def test_clean_fits_on_validation_and_published_on_test() -> None:
    test, validation = {"bp4d": au_table((1, 12), seed=1, shift=0.2)}, {"bp4d": au_table((1, 12), seed=2, shift=-0.1)}
    clean, clean_rule = evaluate(test, validation, "clean", (1, 12), PROVENANCE)
    published, published_rule = evaluate(test, validation, "published", (1, 12), PROVENANCE)
    assert clean_rule == fit(validation, (1, 12)) != published_rule == fit(test, (1, 12))
    assert "validation" in clean.fitted_on
    assert published.fitted_on == "test labels"
    assert published.macro_f1 is not None
    assert clean.macro_f1 is not None
    assert published.macro_f1 >= clean.macro_f1, "selecting on the test labels can only flatter"


def test_a_rule_is_fitted_over_every_corpus_that_labels_its_au() -> None:
    one, other = au_table((1, 12), seed=1), au_table((12, 4), seed=2, shift=0.1)
    rule = fit({"bp4d": one, "disfa": other}, (1, 4, 12, 25))
    both = np.concatenate([one.probabilities[:, [1]], other.probabilities[:, [0]]])
    labels = np.concatenate([one.labels[:, [1]], other.labels[:, [0]]])
    assert rule.rules[12] == fit_rule([12], both, labels, [*one.lengths, *other.lengths]).rules[12]
    assert rule.rules[4] == fit_rule([4], other.probabilities[:, [1]], other.labels[:, [1]], other.lengths).rules[4]
    assert rule.rules[25] == DecisionRule.default([25]).rules[25], "nobody labels AU 25: the plain threshold stays"


def test_the_noise_floor_grows_when_there_are_fewer_subjects() -> None:
    few, many = noise_floor({"a": au_table((1, 4), subjects=6)}), noise_floor({"a": au_table((1, 4), subjects=48)})
    assert few.macro_f1 is not None
    assert many.macro_f1 is not None
    assert few.macro_f1 > many.macro_f1 > 0


def test_the_noise_floor_says_nothing_about_three_subjects() -> None:
    assert noise_floor({"a": au_table((1,), subjects=3)}).macro_f1 is None


def test_an_au_nobody_shows_does_not_break_the_noise_floor() -> None:
    gathered = AUPredictions((1, 2))
    for subject in range(6):
        scores = np.random.default_rng(subject).random((30, 2))
        gathered.update(
            f"S{subject}", f"S{subject}", np.arange(30), scores, np.stack([np.arange(30) % 2, np.zeros(30)], 1)
        )
    assert noise_floor({"a": gathered.table()}).macro_f1 is not None


def test_every_measure_has_a_noise_floor() -> None:
    floor = noise_floor({"a": au_table((1, 4)), "b": fe_table()})
    assert set(floor.figures) == {"macro F1", "mean ROC-AUC", "UAR"}
    assert all(0 < value < 0.5 for value in floor.figures.values())


def test_labels_that_no_training_corpus_has_are_not_judged() -> None:
    test = {"bp4d": au_table((1, 7, 12), seed=1), "mafw": fe_table()}
    gathered = ExpressionPredictions(("neutral", "happiness"))
    gathered.update("v", None, [0.5, 0.5], 0)
    validation = {"disfa": au_table((12, 1, 26), seed=2), "dfew": gathered.table()}
    evaluation, _ = evaluate(test, validation, "lodo", (1, 7, 12, 26), PROVENANCE)
    assert evaluation.au[0].aus == (1, 12)
    assert evaluation.fe[0].expressions == ("happiness", "neutral")
    assert evaluation.fe[0].clips == sum(test["mafw"].labels != 1)
    assert evaluation.left_out == (
        "bp4d: AU7, which no training corpus labels",
        "mafw: sadness, which no training corpus labels",
    )
    whole, _ = evaluate({"bp4d": test["bp4d"]}, {"bp4d": test["bp4d"]}, "clean", (1, 7, 12), PROVENANCE)
    assert evaluation.au[0].roc_auc == (whole.au[0].roc_auc[0], whole.au[0].roc_auc[2])
    with pytest.raises(ValueError, match="no test corpus shares a label"):
        evaluate({"bp4d": au_table((7,))}, validation, "lodo", (1, 7), PROVENANCE)


def test_clips_that_could_not_be_read_are_named() -> None:
    table = {"bp4d": au_table((1,))}
    evaluation, _ = evaluate(table, table, "clean", (1,), PROVENANCE, unreadable=["bp4d: clip 'x': no such file"])
    assert "left out: bp4d: clip 'x': no such file" in evaluation.summary()


def test_nothing_to_test_on_is_an_error() -> None:
    with pytest.raises(ValueError, match="no corpus has a test side"):
        evaluate({}, {"bp4d": au_table((1,))}, "clean", (1,), PROVENANCE)


@settings(max_examples=20, deadline=None)
@given(subjects=st.integers(1, 5), frames=st.integers(1, 20), seed=st.integers(0, 100))
def test_au_files_keep_every_bit(subjects: int, frames: int, seed: int) -> None:
    table = au_table((1, 12, 26), subjects, frames, seed)
    again = from_parquet(to_parquet(table))
    assert isinstance(again, AUTable)
    for name in ("probabilities", "labels", "subject"):
        assert np.array_equal(getattr(table, name), getattr(again, name))
    assert (table.aus, table.lengths, table.sequences, table.subjects) == (
        again.aus, again.lengths, again.sequences, again.subjects,
    )  # fmt: skip


def test_expression_files_keep_every_bit() -> None:
    table = fe_table()
    again = from_parquet(to_parquet(table))
    assert isinstance(again, ExpressionTable)
    assert np.array_equal(table.probabilities, again.probabilities)
    assert (table.labels.tolist(), table.clips, table.subjects) == (again.labels.tolist(), again.clips, again.subjects)


def test_a_fresh_models_map_is_its_prior_and_correlates_with_it() -> None:
    model = SSM(tiny().model)
    prior = np.asarray(model.mapping.prior)  # type: ignore[union-attr]
    labels = model.vocabulary
    truth = {
        (name, au): float(prior[row, column])
        for row, name in enumerate(labels.expressions)
        for column, au in enumerate(labels.aus)
    }
    report = map_report(model, truth)
    assert report is not None
    assert report.prior_correlation == pytest.approx(1.0)
    assert report.learned_correlation == pytest.approx(1.0, abs=1e-3)
    assert np.allclose(np.sum(report.learned, axis=1), prior.sum(axis=1), atol=1e-4), "row mass is kept"


def test_rules_are_said_in_words() -> None:
    rule = DecisionRule.model_validate(
        {"rules": {1: {"threshold": 0.4}, 12: {"threshold": 0.3, "half_window": 2, "votes": 4}}}
    )
    assert describe(rule) == {1: "p ≥ 0.40", 12: "p ≥ 0.30, 4 of 5 frames"}
