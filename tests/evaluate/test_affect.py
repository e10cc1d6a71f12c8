"""Evaluation of valence and arousal: joined over a split, smoothed as validation chose, said where it is undefined."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from ssm.metrics import AffectPredictions, AffectTable
from ssm_platform.evaluate.affect import HALF_WINDOWS, fit_half_window, smoothed
from ssm_platform.evaluate.groups import read_people
from ssm_platform.evaluate.prediction_files import from_parquet, to_parquet
from ssm_platform.evaluate.report.page import render
from ssm_platform.evaluate.scores import Evaluation, Provenance
from ssm_platform.evaluate.scoring import About, evaluate

ABOUT = About(Provenance(run="r", command="c", seed=1, config_fingerprint="f", data={}, versions={}, machine="m"))


def va_table(subjects: int = 6, frames: int = 200, seed: int = 0, noise: float = 0.4) -> AffectTable:
    """Slow truth under frame noise, so that smoothing helps up to a width; every ninth frame is unlabelled."""
    generator, gathered = np.random.default_rng(seed), AffectPredictions()
    for subject in range(subjects):
        phase, time = generator.uniform(0, 6, 2), np.arange(frames)[:, None]
        truth = 0.6 * np.sin(time / 25 + phase)
        found = np.clip(0.8 * truth + noise * generator.standard_normal(truth.shape), -1, 1)
        truth[::9] = np.nan
        gathered.update(f"v{subject}", f"p{subject}", np.arange(frames), found, truth)
    return gathered.table()


def direct(table: AffectTable, column: int) -> float:
    known = ~np.isnan(table.labels[:, column])
    x, y = (values[known, column].astype(float) for values in (table.predictions, table.labels))
    return float(2 * ((x - x.mean()) * (y - y.mean())).mean() / (x.var() + y.var() + (x.mean() - y.mean()) ** 2))


def test_the_window_is_fitted_on_validation_and_applied_to_test_once() -> None:
    test, validation = {"a": va_table(seed=1)}, {"a": va_table(seed=2)}
    clean, _ = evaluate(test, validation, "clean", (), ABOUT)
    published, _ = evaluate(test, validation, "published", (), ABOUT)
    assert clean.smoothing is not None
    half = clean.smoothing.affect
    assert half == fit_half_window(validation.values())
    assert half in HALF_WINDOWS[1:]
    (scores,) = clean.va
    joined = [direct(smoothed(test["a"], half), column) for column in range(2)]
    assert [one.value for one in scores.ccc] == pytest.approx(joined, abs=1e-5)
    assert scores.mean_ccc.value == pytest.approx(np.mean(joined), abs=1e-5)
    assert scores.mean_ccc.low > scores.mean_ccc_frames.high, "smoothing beats frames beyond the interval"
    assert published.fitted_on == "test labels"
    assert published.smoothing is not None
    assert published.smoothing.affect == fit_half_window(test.values())
    assert clean.mean_ccc == scores.mean_ccc.value


def test_smoothing_never_crosses_a_gap() -> None:
    gathered = AffectPredictions()
    gathered.update("v", "p", [0, 1, 5, 6], [[1, 1], [1, 1], [-1, -1], [-1, -1]], np.zeros((4, 2)))
    assert np.array_equal(smoothed(gathered.table(), 50).predictions[:, 0], [1, 1, -1, -1])


def test_of_equal_windows_the_smallest_is_taken_and_without_labels_none() -> None:
    steady = va_table(noise=0.0)
    flat = AffectTable(
        np.full_like(steady.predictions, 0.2), steady.labels, steady.lengths, steady.sequences, steady.subjects,
        steady.subject,
    )  # fmt: skip
    assert fit_half_window([flat]) == 0
    unknown = AffectTable(
        steady.predictions, np.full_like(steady.labels, np.nan), steady.lengths, steady.sequences, steady.subjects,
        steady.subject,
    )  # fmt: skip
    assert fit_half_window([unknown]) == 0


def test_constant_labels_are_nan_with_the_reason() -> None:
    gathered = AffectPredictions()
    for person in ("p", "q"):
        gathered.update(person, person, range(5), np.zeros((5, 2)), np.tile([0.5, np.nan], (5, 1)))
    evaluation, _ = evaluate({"a": gathered.table()}, {"a": va_table()}, "clean", (), ABOUT)
    assert np.isnan(evaluation.va[0].mean_ccc.value)
    assert evaluation.undefined == (
        "a: valence is 0.5 on all of 10 labelled frames: no CCC and no PCC",
        "a: arousal has no label: no figures",
    )
    assert "n/a" in render(evaluation)


def test_a_corpus_of_another_task_is_not_judged_where_nobody_trains_affect() -> None:
    with pytest.raises(ValueError, match="a: valence, arousal, which no training corpus labels"):
        evaluate({"a": va_table()}, {}, "clean", (), ABOUT)


def test_files_keep_every_bit_and_the_report_holds_scatter_and_circumplex(tmp_path: Path) -> None:
    table = va_table()
    back = from_parquet(to_parquet(table, "m"), "m")
    assert isinstance(back, AffectTable)
    assert np.array_equal(back.predictions, table.predictions)
    assert np.array_equal(back.labels, table.labels, equal_nan=True)
    assert (back.lengths, back.sequences, back.subjects) == (table.lengths, table.sequences, table.subjects)
    people = tmp_path / "people.csv"
    people.write_text("subject,sex\np0,f\np1,m\np2,f\np3,m\np4,f\np5,m\n")
    about = About(ABOUT.provenance, people=read_people(people))
    evaluation, _ = evaluate({"a": table, "b": va_table(seed=7)}, {"a": va_table(seed=2)}, "clean", (), about)
    assert {(g.corpus, g.group, g.measure) for g in evaluation.groups if g.corpus == "a"} == {
        ("a", "f", "mean CCC"), ("a", "m", "mean CCC")
    }  # fmt: skip
    assert evaluation.va_pooled is not None
    assert evaluation.va_pooled.subjects == 12
    assert evaluation.noise.ccc is not None
    page = render(evaluation)
    assert len(re.findall(r"<h2>Valence and arousal", page)) == 3
    assert "Over time" in page
    assert "labelled" in page
    assert "mean CCC" in evaluation.summary()
    path = tmp_path / "evaluation.json"
    path.write_text(evaluation.model_dump_json())
    assert Evaluation.read(path) == evaluation
