"""Evaluation on tables alone: where the rule is fitted, what the noise floor means, and that files keep every bit."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import f1_score

from ssm import SSM
from ssm.interface.rules import DecisionRule, fit_rule
from ssm.metrics import AUPredictions, AUTable, ExpressionPredictions, ExpressionTable
from ssm_platform.evaluate.groups import read_people
from ssm_platform.evaluate.noise import noise_floor
from ssm_platform.evaluate.prediction_files import from_parquet, to_parquet
from ssm_platform.evaluate.report.maps import map_report
from ssm_platform.evaluate.report.page import render
from ssm_platform.evaluate.rules import describe, fit, fit_common
from ssm_platform.evaluate.scores import Evaluation, EvaluationProtocol, Provenance
from ssm_platform.evaluate.scoring import About, evaluate
from ssm_platform.runs.recipes import tiny

PROVENANCE = Provenance(
    run="r", command="c", seed=1, config_fingerprint="f", data={}, versions={}, machine="m"
)  # fmt: skip
ABOUT = About(PROVENANCE)


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
    clean, clean_rule = evaluate(test, validation, "clean", (1, 12), ABOUT)
    published, published_rule = evaluate(test, validation, "published", (1, 12), ABOUT)
    per_au, per_au_rule = evaluate(test, validation, "published_per_au", (1, 12), ABOUT)
    assert clean_rule == fit(validation, (1, 12)) != published_rule == fit_common(test, (1, 12))
    assert per_au_rule == fit(test, (1, 12))
    assert published_rule.rules[1] == published_rule.rules[12], "as released: one threshold and vote for all AUs"
    assert "validation" in clean.fitted_on
    assert published.fitted_on == "test labels"
    assert published.macro_f1 is not None
    assert clean.macro_f1 is not None
    assert per_au.macro_f1 is not None
    assert per_au.macro_f1 >= max(published.macro_f1, clean.macro_f1), "selecting on the test labels can only flatter"


def test_a_rule_is_fitted_over_every_corpus_that_labels_its_au() -> None:
    one, other = au_table((1, 12), seed=1), au_table((12, 4), seed=2, shift=0.1)
    rule = fit({"bp4d": one, "disfa": other}, (1, 4, 12, 25))
    both = np.concatenate([one.probabilities[:, [1]], other.probabilities[:, [0]]])
    labels = np.concatenate([one.labels[:, [1]], other.labels[:, [0]]])
    assert rule.rules[12] == fit_rule([12], both, labels, [*one.lengths, *other.lengths]).rules[12]
    assert rule.rules[4] == fit_rule([4], other.probabilities[:, [1]], other.labels[:, [1]], other.lengths).rules[4]
    assert rule.rules[25] == DecisionRule.default([25]).rules[25], "nobody labels AU 25: the plain threshold stays"


def with_evidence(table: AUTable, seed: int = 0) -> AUTable:
    """The table of a model that doubts where it is wrong; tilted probabilities lie above."""
    wrong = (table.probabilities >= 0.5) != (table.labels > 0)
    doubts = np.where(wrong, 0.8, 0.2) + 0.1 * np.random.default_rng(seed).random(wrong.shape)
    return replace(table, doubts=doubts.astype(np.float32), tilted=np.sqrt(table.probabilities))


def test_a_model_that_gives_evidence_is_judged_by_it() -> None:
    validation, test = (with_evidence(au_table((1, 12), seed=seed)) for seed in (1, 2))
    about = replace(ABOUT, risk=0.05)
    found, _ = evaluate({"lab": test}, {"lab": validation}, "clean", (1, 12), about)
    evidence = found.au[0].evidence
    assert evidence is not None
    assert evidence.risk.area < found.au[0].risk.area, "doubts know what is wrong better than these probabilities"
    assert evidence.tilted_error > found.au[0].calibration.before
    assert found.abstention.risk == 0.05
    assert 0 < evidence.given < 1
    assert "calibration error before the asymmetry was undone" in found.summary()
    both, _ = evaluate({"a": test, "b": test}, {"a": validation}, "clean", (1, 12), ABOUT)
    assert both.au_pooled.evidence.risk.area == pytest.approx(evidence.risk.area, abs=0.01)
    plain, _ = evaluate({"a": test, "b": au_table((1, 12))}, {"a": validation}, "clean", (1, 12), ABOUT)
    assert (plain.au[1].evidence, plain.au_pooled.evidence) == (None, None)


def test_files_keep_the_evidence() -> None:
    table = with_evidence(au_table((1, 12)))
    again = from_parquet(to_parquet(table))
    assert np.array_equal(again.doubts, table.doubts)
    assert np.array_equal(again.tilted, table.tilted)


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
    evaluation, _ = evaluate(test, validation, "lodo", (1, 7, 12, 26), ABOUT)
    assert evaluation.au[0].aus == (1, 12)
    assert evaluation.fe[0].expressions == ("happiness", "neutral")
    assert evaluation.fe[0].clips == sum(test["mafw"].labels != 1)
    assert evaluation.left_out == (
        "bp4d: AU7, which no training corpus labels",
        "mafw: sadness, which no training corpus labels",
    )
    whole, _ = evaluate({"bp4d": test["bp4d"]}, {"bp4d": test["bp4d"]}, "clean", (1, 7, 12), ABOUT)
    assert evaluation.au[0].roc_auc == (whole.au[0].roc_auc[0], whole.au[0].roc_auc[2])
    with pytest.raises(ValueError, match="no test corpus shares a label"):
        evaluate({"bp4d": au_table((7,))}, validation, "lodo", (1, 7), ABOUT)


def test_clips_that_could_not_be_read_are_named() -> None:
    table = {"bp4d": au_table((1,))}
    evaluation, _ = evaluate(
        table, table, "clean", (1,), About(PROVENANCE, unreadable=["bp4d: clip 'x': no such file"])
    )
    assert "left out: bp4d: clip 'x': no such file" in evaluation.summary()


def test_nothing_to_test_on_is_an_error() -> None:
    with pytest.raises(ValueError, match="no corpus has a test side"):
        evaluate({}, {"bp4d": au_table((1,))}, "clean", (1,), ABOUT)


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


def test_hostile_sides_are_nan_with_a_reason_and_never_an_error() -> None:
    """An AU without a label, one never shown, one shown by one person, constant scores, a class without clips."""
    gathered = AUPredictions((1, 4, 6, 12))
    for number in range(3):
        labels = np.stack(
            [np.full(20, -1), np.zeros(20), np.arange(20) % 2 if number == 0 else np.zeros(20), np.arange(20) % 3 == 0],
            1,
        )
        scores = np.random.default_rng(number).random((20, 4))
        scores[:, 3] = 0.5
        gathered.update(f"S{number}", f"S{number}", np.arange(20), scores, labels.astype(np.int8))
    clips = ExpressionPredictions(("happiness", "sadness", "neutral"))
    for number in range(4):
        clips.update(f"c{number}", f"S{number}", [0.2, 0.3, 0.5], 0 if number < 3 else 2)
    test = {"bp4d": gathered.table(), "dfew": clips.table()}
    evaluation, rule = evaluate(test, test, "published", (1, 4, 6, 12), ABOUT)
    au, fe = evaluation.au[0], evaluation.fe[0]
    assert [np.isnan(one.value) for one in au.f1] == [True, True, False, False]
    assert np.isnan(au.f1[2].low)
    assert not np.isnan(au.macro_f1.low)
    assert au.mean_chance == pytest.approx(np.mean(au.chance[2:]))
    assert au.roc_auc[3].value == 0.5
    assert np.isnan(fe.recall[1].value)
    assert fe.uar.value == pytest.approx(0.5)
    for line in (
        "bp4d: AU1 has no label: no figures",
        "bp4d: AU4 is active on none of 60 labelled frames: no F1, AUC, AP or calibration",
        "bp4d: AU6 is shown by 1 subject: no interval of its F1",
        "bp4d: AU12 has the same score on all frames: its AUC is 0.5 whatever the labels",
        "dfew: sadness has no clip: no recall, and UAR is over the other classes",
        "dfew: neutral is shown by 1 subject: no interval of its recall",
    ):
        assert line in evaluation.undefined
        assert f"not defined: {line}" in evaluation.summary()
    assert rule.rules[1] == rule.rules[12]
    page = render(evaluation)
    assert "AU4 is active on none" in page
    assert "nan" not in re.sub(r"<svg.*?</svg>", "", page, flags=re.DOTALL)
    assert Evaluation.model_validate_json(evaluation.model_dump_json()).summary() == evaluation.summary()


@pytest.mark.parametrize("protocol", ["clean", "published", "published_per_au", "lodo"])
def test_a_test_side_of_one_person_without_any_label_is_evaluated(protocol: EvaluationProtocol) -> None:
    gathered = AUPredictions((1, 4))
    gathered.update("q", "s", [0, 1], [[0.5, 0.5], [0.5, 0.5]], [[-1, -1], [-1, -1]])
    clips = ExpressionPredictions(("happiness", "sadness"))
    clips.update("c", "s", [1.0, 0.0], 1)
    test = {"bp4d": gathered.table(), "dfew": clips.table()}
    evaluation, _ = evaluate(test, test, protocol, (1, 4), ABOUT)
    assert np.isnan(evaluation.macro_f1 or 0)
    assert evaluation.uar == 0
    assert "bp4d: one subject (s): no intervals" in evaluation.undefined
    assert "0.000 [no interval, n 1]" in evaluation.summary()
    assert "no interval, subjects: 1" in render(evaluation)


def test_corpora_are_judged_apart_and_pooled() -> None:
    one, other = au_table((1, 12), subjects=4, seed=1), au_table((12, 4), subjects=5, seed=2)
    test = {"bp4d": one, "disfa": other}
    evaluation, rule = evaluate(test, test, "clean", (1, 4, 12), ABOUT)
    pooled = evaluation.au_pooled
    assert pooled is not None
    assert (pooled.aus, pooled.subjects, pooled.frames) == ((1, 12, 4), 9, len(one) + len(other))
    assert pooled.f1[0].value == evaluation.au[0].f1[0].value, "only one corpus labels AU 1"
    said = [rule.select(table.aus).apply(table.probabilities, table.lengths) for table in (one, other)]
    labels = np.concatenate([one.labels[:, 1], other.labels[:, 0]])
    both = np.concatenate([said[0][:, 1], said[1][:, 0]])
    assert pooled.f1[1].value == pytest.approx(f1_score(labels, both)), "of both corpora's frames of AU 12"
    single, _ = evaluate({"bp4d": one}, test, "clean", (1, 4, 12), ABOUT)
    assert single.au_pooled is None
    three, two = fe_table(seed=3), ExpressionPredictions(("neutral", "fear"))
    two.update("v", None, [0.3, 0.7], 1)
    found, _ = evaluate({"mafw": three, "x": two.table()}, {"mafw": three, "x": two.table()}, "clean", (), ABOUT)
    assert found.fe_pooled is not None
    assert np.sum(found.fe_pooled.confusion) == 41
    assert found.fe_pooled.recall[3].value == 1


def test_groups_of_people_are_judged_apart(tmp_path: Path) -> None:
    table = au_table((1, 12), subjects=6)
    path = tmp_path / "people.csv"
    path.write_text("subject,sex,age\n" + "".join(f"S{n},{'f' if n < 3 else 'm'},\n" for n in range(5)))
    about = About(PROVENANCE, people=read_people(path, ["sex"]))
    evaluation, rule = evaluate({"bp4d": table}, {"bp4d": table}, "clean", (1, 12), about)
    found = {(one.group, one.measure): one for one in evaluation.groups}
    assert [found[group, "macro F1"].subjects for group in ("f", "m", "not said")] == [3, 2, 1]
    rows = table.subject < 3
    said = rule.apply(table.probabilities, table.lengths)
    scores = [f1_score(table.labels[rows, column], said[rows, column]) for column in (0, 1)]
    assert found["f", "macro F1"].score.value == pytest.approx(np.mean(scores))
    assert np.isnan(found["not said", "macro F1"].score.low)
    assert "bp4d, sex f: macro F1" in evaluation.summary()
    assert "Groups of people" in render(evaluation)


def test_a_table_of_people_that_cannot_be_used_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "people.csv"
    path.write_text("subject,sex\nS1,f\n")
    with pytest.raises(ValueError, match=r"people\.csv:1: no column 'sexx'; did you mean 'sex'"):
        read_people(path, ["sexx"])
    path.write_text("name,sex\nS1,f\n")
    with pytest.raises(ValueError, match="one must be subject"):
        read_people(path)
    path.write_text("subject,sex\nS1,f\nS1,m\n")
    with pytest.raises(ValueError, match=r"people\.csv:3: subject 'S1' stands in line 2 already"):
        read_people(path)
    path.write_text("subject,age\n" + "".join(f"S{n},{n}\n" for n in range(21)))
    with pytest.raises(ValueError, match="21 values; groups are at most 20: use bands"):
        read_people(path)
    with pytest.raises(ValueError, match="a table of people is a CSV file"):
        read_people(tmp_path / "absent.csv")
    path.write_text("subject,sex\nT9,f\n")
    about = About(PROVENANCE, people=read_people(path))
    table = {"bp4d": au_table((1,))}
    with pytest.raises(ValueError, match="names none of the test subjects"):
        evaluate(table, table, "clean", (1,), about)


@pytest.mark.parametrize(("text", "rule"), [
    ("subject,sex,age,sex\nS1,f,3,m\n", r":1: columns 2 and 4 are both 'sex'"),
    ("subject,subject,sex\nS1,S2,f\n", r":1: columns 1 and 2 are both 'subject'"),
    ('subject,sex\nS1,"f\nS2,m\n', r": a table of people is a CSV file.*unexpected end"),
    ('subject,sex\nS1,"f\nS2,m"\n', r":3: a cell has a line break"),
])  # fmt: skip
def test_people_are_not_swallowed(tmp_path: Path, text: str, rule: str) -> None:
    path = tmp_path / "people.csv"
    path.write_text(text)
    with pytest.raises(ValueError, match=rf"people\.csv{rule}"):
        read_people(path)


def test_calibration_is_given_before_and_after_a_temperature_of_the_validation_side() -> None:
    side = {"bp4d": au_table((1, 12), subjects=8, seed=1), "dfew": fe_table(400)}
    evaluation, _ = evaluate(side, side, "clean", (1, 12), ABOUT)
    for scores in (evaluation.au[0], evaluation.fe[0]):
        assert scores.calibration.temperature is not None
        assert scores.calibration.after is not None
        assert scores.calibration.after < scores.calibration.before
    bare, _ = evaluate(side, {"bp4d": side["bp4d"], "dfew": side["dfew"]}, "lodo", (1, 12), ABOUT)
    assert bare.fe[0].risk.risk[-1] == pytest.approx(1 - bare.fe[0].war.value)


def test_predictions_of_another_model_are_not_read_as_this_ones() -> None:
    data = to_parquet(au_table((1,)), "a" * 64)
    assert isinstance(from_parquet(data, "a" * 64), AUTable)
    with pytest.raises(ValueError, match="predictions of model aaaaaaaaaaaa, not of bbbbbbbbbbbb"):
        from_parquet(data, "b" * 64)
    with pytest.raises(ValueError, match="not named"):
        from_parquet(to_parquet(au_table((1,))), "b" * 64)
