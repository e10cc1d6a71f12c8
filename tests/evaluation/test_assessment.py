"""A finished run, assessed: evaluation, report, predictions and a published model that carries what was found out."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from ssm import SSM
from ssm.metrics import AUTable
from ssm_platform.assessment import assess
from ssm_platform.prediction_files import from_parquet
from ssm_platform.registry import Registry
from ssm_platform.results import Evaluation

pytestmark = pytest.mark.ray


def test_a_finished_run_is_evaluated_reported_and_published(tiny_run: Path) -> None:
    evaluation = Evaluation.model_validate_json((tiny_run / "evaluation.json").read_text())
    assert evaluation.protocol == "clean"
    assert evaluation.provenance.run == "tiny"
    page = (tiny_run / "report.html").read_text()
    assert evaluation.provenance.config_fingerprint[:8] in page
    published = SSM.from_pretrained(Registry(tiny_run.parent / "registry").resolve("latest"))
    assert published.facts == SSM.from_pretrained(tiny_run / "model").facts
    assert published.facts.rule is not None


def test_predictions_on_disk_give_the_figures_of_the_report(tiny_run: Path) -> None:
    tables = {
        path.name.removesuffix(".parquet"): from_parquet(path.read_bytes())
        for path in (tiny_run / "predictions").iterdir()
    }
    assert tables.keys() == {"bp4d.validation", "bp4d.test", "dfew.validation", "dfew.test"}
    assert isinstance(tables["bp4d.test"], AUTable)
    assert not set(tables["bp4d.test"].subjects) & set(tables["bp4d.validation"].subjects)


def test_another_protocol_is_another_result_and_another_version(
    ray_cluster: None, tiny_run: Path, tmp_path: Path
) -> None:
    run = shutil.copytree(tiny_run, tmp_path / "tiny")
    outcome = assess(str(run), "published", str(tmp_path / "registry"))
    assert outcome.evaluation.protocol == "published"
    assert "published" in outcome.evaluation.summary()
    assert Registry(tmp_path / "registry").versions() == [outcome.version]


def test_a_run_that_has_not_ended_is_refused(tiny_run: Path, tmp_path: Path) -> None:
    shutil.copy(tiny_run / "run.json", tmp_path)
    with pytest.raises(ValueError, match="train it to its end first"):
        assess(str(tmp_path))
    with pytest.raises(ValueError, match="no run here"):
        assess(str(tmp_path / "absent"))
