"""A finished run, assessed: evaluation, report, predictions and a published model that carries what was found out."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

import pytest

from ssm import SSM
from ssm.interface.crops import FaceCrop
from ssm.metrics import AUTable
from ssm_platform.base.storage import open_storage
from ssm_platform.evaluate.assessment import _split_in_words, assess, run_config
from ssm_platform.evaluate.prediction_files import from_parquet
from ssm_platform.evaluate.scores import Evaluation
from ssm_platform.models.registry import Registry
from ssm_platform.runs.preparation import prepare

pytestmark = pytest.mark.ray


def _evaluation(run: Path) -> Evaluation:
    return Evaluation.read(run / "evaluation.json")


def test_a_finished_run_is_evaluated_reported_and_published(tiny_run: Path) -> None:
    evaluation = _evaluation(tiny_run)
    assert evaluation.protocol == "clean"
    assert evaluation.provenance.run == "tiny"
    page = (tiny_run / "report.html").read_text()
    assert evaluation.provenance.config_fingerprint[:8] in page
    published = SSM.from_pretrained(Registry(tiny_run.parent / "registry").resolve("latest"))
    assert published.facts == SSM.from_pretrained(tiny_run / "model").facts
    assert published.facts.rule is not None
    assert published.facts.preprocessing is not None
    assert published.facts.preprocessing.crop == FaceCrop(source="owner"), "drawn faces are as close as crops"
    weights = (tiny_run / "model" / "model.safetensors").read_bytes()
    assert evaluation.provenance.model == hashlib.sha256(weights).hexdigest()


def test_predictions_on_disk_give_the_figures_of_the_report(tiny_run: Path) -> None:
    tables = {
        path.name.removesuffix(".parquet"): from_parquet(path.read_bytes(), _evaluation(tiny_run).provenance.model)
        for path in (tiny_run / "predictions").iterdir()
    }
    assert tables.keys() == {"bp4d.validation", "bp4d.test", "dfew.validation", "dfew.test"}
    assert isinstance(tables["bp4d.test"], AUTable)
    assert not set(tables["bp4d.test"].subjects) & set(tables["bp4d.validation"].subjects)


def test_the_published_protocol_is_for_comparison_only(ray_cluster: None, tiny_run: Path, tmp_path: Path) -> None:
    run = shutil.copytree(tiny_run, tmp_path / "tiny")
    before = {path.name: path.read_bytes() for path in [*(run / "model").iterdir(), run / "evaluation.json"]}
    outcome = assess(str(run), "published", str(tmp_path / "registry"))
    assert outcome.evaluation.protocol == "published"
    assert "published" in outcome.evaluation.summary()
    assert Evaluation.read(run / "evaluation.published.json").summary() == outcome.evaluation.summary()
    assert "for comparison with papers only" in (run / "report.published.html").read_text()
    assert outcome.version is None
    assert Registry(tmp_path / "registry").versions() == []
    assert before == {path.name: path.read_bytes() for path in [*(run / "model").iterdir(), run / "evaluation.json"]}


def test_the_report_shows_clips_of_both_tasks_and_how_the_corpora_were_split(tiny_run: Path) -> None:
    page = (tiny_run / "report.html").read_text()
    for title in ("Most labels right · bp4d", "Fewest labels right · bp4d", "and sure · dfew"):
        assert title in page
    assert "learned, expression to AU" in page
    assert "validation: 20% drawn by hash" in page


def test_a_corpus_that_lodo_trains_on_has_no_test_side(tiny_run: Path) -> None:
    config = run_config(open_storage(tiny_run))
    held = config.data.corpora[1].model_copy(update={"role": "test"})
    data = config.data.model_copy(update={"corpora": (config.data.corpora[0], held)})
    config = config.model_copy(update={"protocol": "lodo", "data": data})
    prepared = prepare(config)
    assert "0 test records; test: none, validation: 20% drawn" in _split_in_words(config, "bp4d", prepared)
    assert _split_in_words(config, "dfew", prepared).endswith("left out of training")


def test_a_run_is_evaluated_only_as_it_was_split(tiny_run: Path) -> None:
    with pytest.raises(ValueError, match=r"split for clean.*published_per_au; train with --protocol=lodo"):
        assess(str(tiny_run), "lodo")


def test_fields_that_decided_the_numbers_cannot_change_afterwards(tiny_run: Path) -> None:
    with pytest.raises(ValueError, match=r"model\.frames: decided the numbers"):
        assess(str(tiny_run), changes={"model.frames": 8})


def test_a_corpus_that_changed_since_training_is_refused(tiny_run: Path, tmp_path: Path) -> None:
    run = shutil.copytree(tiny_run, tmp_path / "tiny")
    stored = json.loads((run / "run.json").read_text())
    stored["data"]["bp4d"] = "0" * 64
    (run / "run.json").write_text(json.dumps(stored))
    with pytest.raises(ValueError, match="bp4d: the corpus is not as it was"):
        assess(str(run))


def test_a_cluster_that_cannot_hold_the_scorers_is_refused(ray_cluster: None, tiny_run: Path) -> None:
    with pytest.raises(ValueError, match=r"scale\.gpu"):
        assess(str(tiny_run), changes={"scale.gpu": True})


def test_a_run_that_has_not_ended_is_refused(tiny_run: Path, tmp_path: Path) -> None:
    shutil.copy(tiny_run / "run.json", tmp_path)
    with pytest.raises(ValueError, match="train it to its end first"):
        assess(str(tmp_path))
    with pytest.raises(ValueError, match="no run here"):
        assess(str(tmp_path / "absent"))
