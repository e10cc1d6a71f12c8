"""The study's table: paired by seed, a noise floor beside the differences, and no old figures under new settings."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from ssm_platform.base.overrides import override
from ssm_platform.evaluate.scores import Evaluation, NoiseFloor, Provenance
from ssm_platform.runs.recipes import recipe

BENCH = Path(__file__).resolve().parents[2] / "bench" / "study.py"


@pytest.fixture(scope="module")
def study() -> ModuleType:
    spec = importlib.util.spec_from_file_location("study", BENCH)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


def evaluation() -> Evaluation:
    origin = Provenance(run="r", command="c", seed=1, config_fingerprint="", data={}, versions={}, machine="")
    return Evaluation(protocol="clean", fitted_on="validation", noise=NoiseFloor(repeats=2), provenance=origin)


def run(study: ModuleType, right: int, noise: float | None = 0.1) -> Any:
    """Two classes of ten clips each by ten people, `right` of each class recognised."""
    people = [[[1, 0], [0, 1]]] * right + [[[0, 1], [1, 0]]] * (10 - right)
    return study.Run(evaluation(), {"UAR": np.array(people)}, NoiseFloor(repeats=2, uar=noise))


def cells(table: str, variant: str) -> list[str]:
    (line,) = [line for line in table.splitlines() if line.startswith(f"| {variant} |")]
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_differences_are_paired_by_seed_where_a_run_is_missing(study: ModuleType) -> None:
    full = {1: run(study, 9), 2: run(study, 5), 3: run(study, 7)}
    table = study.table({"full": full, "mal": {2: run(study, 4), 3: run(study, 6)}})
    (_, seeds, *_, uar, difference, _) = cells(table, "mal")
    assert (seeds, uar) == ("2", "0.500 ± 0.141")
    assert difference.endswith("n 10 x 2] (-0.100, -0.100)")
    assert difference.startswith("-0.100 [")  # seed 2 with seed 2: by place it would be (4 - 9 + 6 - 5) / 20 = -0.2
    assert cells(table, "full")[7] == ""


def test_a_run_equal_to_the_full_one_differs_by_exactly_nothing(study: ModuleType) -> None:
    table = study.table({"full": {1: run(study, 6)}, "no_dpm": {1: run(study, 6)}})
    assert cells(table, "no_dpm")[7] == "+0.000 [+0.000, +0.000, n 10 x 1] (+0.000)"


def test_a_variant_without_a_seed_in_common_has_no_difference(study: ModuleType) -> None:
    table = study.table({"full": {1: run(study, 6)}, "no_dpm": {2: run(study, 6)}})
    assert cells(table, "no_dpm")[7] == ""


def test_the_noise_floor_is_the_mean_over_full_runs(study: ModuleType) -> None:
    full = {1: run(study, 6, 0.02), 2: run(study, 6, 0.04), 3: run(study, 6, None)}
    assert cells(study.table({"full": full}), "noise floor") == ["noise floor", "", "", "", "", "", "", "± 0.030", ""]
    assert "noise floor" not in study.table({"mal": full})


def finished(study: ModuleType, folder: Path, seed: int, **changes: Any) -> None:
    """A folder as a run of `quickstart+full` leaves it, as far as settings go."""
    config = override(recipe("quickstart+full"), {"seed": seed, **changes})
    place = study.Study(folder, "quickstart", ()).folder("full", seed)
    place.mkdir(parents=True)
    (place / "evaluation.json").write_text("{}")
    (place / "run.json").write_text(json.dumps({"config": config.model_dump(mode="json")}))


def asked(study: ModuleType, folder: Path, monkeypatch: pytest.MonkeyPatch, *words: str) -> None:
    monkeypatch.setattr(study, "_read", lambda _: run(study, 6))
    arguments = ["study.py", "--out", str(folder), "--variants", "full", "--seeds", "1", "2", *words]
    monkeypatch.setattr(sys, "argv", arguments)
    study.main()


def test_runs_of_other_settings_are_not_printed_as_these(
    study: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    finished(study, tmp_path, 1, steps=5)
    for words in ((), ("--steps=6",), ("--table-only", "--steps=6")):
        with pytest.raises(SystemExit):
            asked(study, tmp_path, monkeypatch, *words)
        assert "have steps=5: give these fields" in capsys.readouterr().err
    asked(study, tmp_path, monkeypatch, "--table-only")
    assert "Unlike the recipe, these runs have steps=5." in capsys.readouterr().out
    asked(study, tmp_path, monkeypatch, "--table-only", "--steps=5")
    assert "Unlike the recipe" not in capsys.readouterr().out


def test_runs_that_differ_among_themselves_make_no_table(
    study: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    finished(study, tmp_path, 1, steps=5)
    finished(study, tmp_path, 2, steps=7)
    with pytest.raises(SystemExit):
        asked(study, tmp_path, monkeypatch, "--table-only")
    assert "quickstart-full-1 has steps=5, quickstart-full-2 has steps=7" in capsys.readouterr().err


def test_a_run_that_does_not_say_how_it_was_trained_is_refused(
    study: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    finished(study, tmp_path, 1)
    (tmp_path / "quickstart-full-1" / "run.json").write_text("{}")
    with pytest.raises(SystemExit):
        asked(study, tmp_path, monkeypatch, "--table-only")
    assert "cannot tell how this run was trained" in capsys.readouterr().err
