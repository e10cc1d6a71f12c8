"""Opening a run that starts from a saved model: files are found from anywhere, other weights are another run."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

from ssm import SSM
from ssm_platform.base.overrides import override
from ssm_platform.base.storage import open_storage
from ssm_platform.evaluate.assessment import run_config
from ssm_platform.runs.config import RunConfig
from ssm_platform.runs.preflight import PreflightError
from ssm_platform.runs.preparation import load, prepare
from ssm_platform.runs.recipes import tiny
from ssm_platform.train.opening import open_run


@pytest.fixture
def config(tiny_corpora: Path, tmp_path: Path) -> RunConfig:
    places = {f"data.corpora.{name}.root": str(tiny_corpora / name) for name in ("bp4d", "dfew")}
    plain = {"model.text.tower": None, "model.mapping.enabled": False}
    return override(tiny(), {"storage": str(tmp_path / "runs"), **places, **plain})


def save(config: RunConfig, folder: Path, seed: int) -> None:
    torch.manual_seed(seed)
    SSM(config.model).save_pretrained(folder)


def test_a_start_is_found_from_the_workers_folder_and_its_weights_are_part_of_the_run(
    config: RunConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, seed in (("one", 1), ("two", 2), ("moved", 1)):
        save(config, tmp_path / name, seed)
    monkeypatch.chdir(tmp_path)
    runs = {name: open_run(override(config, {"init_from": name, "name": name})).job for name in ("one", "two", "moved")}
    assert runs["one"].config.init_from == str(tmp_path / "one")
    assert runs["one"].fingerprint == runs["moved"].fingerprint
    assert len({runs["one"].fingerprint, runs["two"].fingerprint, open_run(config).job.fingerprint}) == 3


def test_a_start_that_is_not_there_or_does_not_fit_is_refused_before_ray_starts(
    config: RunConfig, tmp_path: Path
) -> None:
    with pytest.raises(PreflightError, match=r"init_from: cannot be built: .*cannot read a saved model here"):
        open_run(override(config, {"init_from": str(tmp_path / "absent")}))
    save(override(config, {"model.width": 16, "model.backbone.options.dims": [8, 8, 16, 16]}), tmp_path / "small", 1)
    other = override(config, {"model.backbone.name": "vit_tiny_patch16_224", "model.backbone.options": {}})
    with pytest.raises(PreflightError, match="no weight of its backbone fits"):
        open_run(override(other, {"init_from": str(tmp_path / "small"), "model.backbone.image_size": 32}))


def test_a_style_file_is_found_from_the_workers_folder(config: RunConfig, tmp_path: Path) -> None:
    named = override(config, {"model.text.style_file": "mine.json"}).anchored(tmp_path)
    assert named.model.text.style_file == str(tmp_path / "mine.json")
    absolute = override(config, {"model.text.style_file": "/texts/mine.json"}).anchored(tmp_path)
    assert absolute.model.text.style_file == "/texts/mine.json"


def test_a_run_named_by_relative_places_is_found_from_anywhere_and_is_the_same_run(
    config: RunConfig, tiny_corpora: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    there = os.path.relpath(tiny_corpora, tmp_path)
    load(config.corpus("dfew")).write(tmp_path / "dfew.parquet")
    opened = open_run(
        override(
            config,
            {
                "storage": "runs",
                "data.corpora.bp4d.root": f"{there}/bp4d",
                "data.corpora.dfew.root": None,
                "data.corpora.dfew.synthetic": None,
                "data.corpora.dfew.manifest": "dfew.parquet",
            },
        )
    )
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    stored = run_config(open_storage(tmp_path / "runs" / "tiny"))
    assert prepare(stored).fingerprints == opened.prepared.fingerprints
    assert list(Path().iterdir()) == []  # nothing was written again
    assert stored.storage == str(tmp_path / "runs")
    assert opened.job.fingerprint == open_run(override(config, {"name": "absolute"})).job.fingerprint


@pytest.mark.parametrize(
    ("uri", "seen"),
    [
        (None, None),
        ("http://tracker:5000", "http://tracker:5000"),
        ("databricks", "databricks"),
        ("mlruns", "/here/mlruns"),
        ("file:mlruns", "file:/here/mlruns"),
        ("file:///data/mlruns", "file:///data/mlruns"),
        ("sqlite:///mlflow.db", "sqlite:////here/mlflow.db"),
        ("sqlite:////data/mlflow.db", "sqlite:////data/mlflow.db"),
    ],
)
def test_a_relative_place_of_mlflow_is_found_from_the_workers_folder(
    config: RunConfig, uri: str | None, seen: str | None
) -> None:
    assert override(config, {"tracking.mlflow": uri}).anchored(Path("/here")).tracking.mlflow == seen


def test_places_in_object_storage_stay_as_they_are(config: RunConfig) -> None:
    remote = {
        "storage": "s3://b/runs",
        "data.corpora.dfew.root": None,
        "data.corpora.dfew.synthetic": None,
        "data.corpora.dfew.manifest": "s3://b/dfew/manifest.parquet",
    }
    named = override(config, remote).anchored(Path("/here"))
    assert (named.storage, named.corpus("dfew").manifest) == ("s3://b/runs", "s3://b/dfew/manifest.parquet")
