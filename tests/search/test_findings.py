"""Findings: intervals, what counts as best and as worse, and the tables and page made of it."""

from __future__ import annotations

import json
import math
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from ssm_platform.base.overrides import override
from ssm_platform.runs.recipes import recipe, tiny
from ssm_platform.search.findings import Estimate, findings, setting_table, write_tables
from ssm_platform.search.report import render, write_recipe
from ssm_platform.search.space import Setting, parse_space
from ssm_platform.search.sweep import Sweep, SweepConfig
from ssm_platform.search.trials import Records, Trial

STYLE, OFF = "model.text.style", "model.mapping.off"


def ended(setting: Setting, seed: int, score: float | None, state: str = "finished") -> Trial:
    points = [] if score is None else [{"step": 2, "score": score / 2}, {"step": 4, "score": score, "uar/dfew": score}]
    trial = Trial.of(setting, seed).scored(points)
    return trial.model_copy(update={"state": state, "seconds": 3.0, "started": time.time()})


def trials_of(scores: dict[str, list[float]]) -> list[Trial]:
    return [ended({STYLE: style}, seed, score) for style, row in scores.items() for seed, score in enumerate(row)]


def test_an_interval_is_students_t() -> None:
    values = [0.4, 0.5, 0.45, 0.41]
    expected = stats.t.interval(0.95, 3, loc=np.mean(values), scale=stats.sem(values))
    assert (Estimate.of(values).low, Estimate.of(values).high) == pytest.approx(expected)
    assert math.isnan(Estimate.of([0.4]).low)


def test_worse_means_beyond_the_interval_of_paired_differences() -> None:
    found = findings(trials_of({"label": [0.30, 0.40, 0.50], "facs": [0.35, 0.45, 0.56], "anatomy": [0.5, 0.3, 0.4]}))
    label, facs, anatomy = found.settings
    assert found.best == facs
    assert label.worse, "seed by seed it is behind by 0.05 to 0.06, although the seeds themselves differ by more"
    assert anatomy.behind is not None
    assert not anatomy.worse


def test_noise_is_not_taken_for_a_win() -> None:
    """A setting that failed, was stopped early or lacks a seed is never the best, however high its score."""
    trials = trials_of({"facs": [0.4, 0.4, 0.4]})
    trials += [ended({STYLE: "label"}, seed, 0.9, "failed" if seed == 2 else "finished") for seed in range(3)]
    trials += [ended({STYLE: "anatomy"}, seed, 0.9, "stopped") for seed in range(3)]
    trials += [ended({STYLE: "narrative"}, seed, 0.9) for seed in range(2)]
    found = findings(trials)
    assert found.best is not None
    assert found.best.setting == {STYLE: "facs"}
    assert findings([ended({STYLE: "facs"}, 1, None, "failed")]).best is None


def test_tables_hold_settings_scores_intervals_and_seconds(tmp_path: Path) -> None:
    mixed = [ended({STYLE: "facs", "model.text.scramble": None, "model.backbone.options.depths": [1, 1]}, 1, 0.5)]
    mixed += [ended({STYLE: "facs", "model.text.scramble": 3, "model.backbone.options.depths": [2, 1]}, 1, 0.4)]
    write_tables(findings(mixed + trials_of({"label": [0.1, 0.2]})), tmp_path)
    for name in ("trials", "settings"):
        csv, parquet = pd.read_csv(tmp_path / f"{name}.csv"), pd.read_parquet(tmp_path / f"{name}.parquet")
        assert list(csv.columns) == list(parquet.columns)
        assert len(csv) == len(parquet) == {"trials": 4, "settings": 3}[name]
        assert {STYLE, "score", "seconds"} <= set(csv.columns)
    trials = pd.read_parquet(tmp_path / "trials.parquet")
    assert trials["uar/dfew"].tolist() == trials["score"].tolist() == [0.5, 0.4, 0.1, 0.2]
    assert trials["model.backbone.options.depths"][0] == "[1, 1]"
    table = setting_table(findings(trials_of({"label": [0.1, 0.2], "facs": [0.3, 0.5]})))
    assert table[STYLE].tolist() == ["facs", "label"]
    assert table["score_low"][0] < table["score"][0] == 0.4 < table["score_high"][0]


def test_the_page_stands_alone_and_the_best_setting_is_a_recipe(tmp_path: Path) -> None:
    base = tiny().model_copy(update={"storage": str(tmp_path)})
    space = parse_space([f"{STYLE}=facs,label", f"{OFF}=log:0.005..0.1"], base)
    sweep = Sweep(base, space, SweepConfig(repeats=2))
    settings = [{STYLE: "facs", OFF: 0.01}, {STYLE: "label", OFF: 0.02}, {STYLE: "label", OFF: 0.05}]
    trials = [ended(setting, seed, 0.5 - n / 10 + seed / 50) for n, setting in enumerate(settings) for seed in (1, 2)]
    trials[-1] = trials[-1].model_copy(update={"state": "failed", "error": "<script>alert('nan')</script>"})
    found = findings(trials)
    sweep.folder.mkdir()
    path = write_recipe(sweep, settings[0])
    page = render(sweep, found, path, None, "python jobs/tune.py")
    assert page.count("<svg") == 4, "parallel coordinates, styles, one effect, scores while training"
    assert "src=" not in page
    assert 'href="http' not in page.replace("http://www.w3.org", "")
    assert "&lt;script&gt;alert" in page
    assert "Prompt styles compared" in page
    trained = recipe(str(path))
    assert trained.mathematics() == override(base, settings[0]).mathematics()
    assert trained.data.corpora == base.data.corpora


def test_a_validation_that_is_nan_leaves_the_record_readable_and_is_never_the_best(tmp_path: Path) -> None:
    points = [{"step": 2, "score": math.nan}, {"step": 4, "score": 0.5, "uar/dfew": 0.5, "macro_f1/bp4d": math.nan}]
    Records(tmp_path).write(Trial.of({STYLE: "facs"}, 1).scored(points))
    (trial,) = Records(tmp_path).read()
    assert (trial.score, trial.steps, trial.metrics["uar/dfew"]) == (0.5, 4, 0.5)
    assert math.isnan(trial.metrics["macro_f1/bp4d"])
    assert [step for step, _ in trial.curve] == [2, 4]
    assert math.isnan(trial.curve[0][1])
    without = Trial.of({STYLE: "label"}, 1).scored(points[:1])
    assert (without.score, without.metrics, without.steps) == (None, {}, 2)


def test_a_record_that_holds_null_for_nan_is_read(tmp_path: Path) -> None:
    Records(tmp_path).write(trial := ended({STYLE: "facs"}, 1, 0.5))
    path = tmp_path / "records" / f"{trial.name}.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "metrics": {"uar/dfew": None}, "curve": [[2, None]]}))
    (read,) = Records(tmp_path).read()
    assert math.isnan(read.metrics["uar/dfew"])
    assert math.isnan(read.curve[0][1])


def test_records_outlive_the_driver(tmp_path: Path) -> None:
    records = Records(tmp_path)
    trial = ended({STYLE: "facs", OFF: 0.0123}, 2, 0.5)
    records.write(trial)
    records.write(later := ended({STYLE: "label", OFF: 0.1}, 2, None, "failed"))
    assert records.read() == [trial, later]
    assert [one.over for one in records.read()] == [True, False], "a failed trial is tried again"
    assert Trial.of({OFF: 0.0123, STYLE: "facs"}, 2).name == trial.name
    (tmp_path / "records" / "x.json").write_text("{}")
    with pytest.raises(ValueError, match=r"x\.json: not a record"):
        records.read()
