"""What a worker does beside the loop: its scratch, and what it says of validation clips that cannot be read."""

from __future__ import annotations

import logging
import shutil
from pathlib import Path

import pytest
import torch

from ssm.training.collective import SingleProcess
from ssm_platform.base.overrides import override
from ssm_platform.runs.preparation import prepare
from ssm_platform.runs.recipes import tiny
from ssm_platform.train import worker
from ssm_platform.train.building import make_step
from ssm_platform.train.place import Job, RunPlace


def test_scratch_is_no_other_runs() -> None:
    runs = [("s3://a/tiny", "f1"), ("s3://b/tiny", "f1"), ("s3://a/tiny", "f2")]
    folders = [RunPlace.at(folder, tiny()).events(mark) for folder, mark in [*runs, runs[0]]]
    assert len(set(folders)) == 3
    assert folders[0] == folders[3], "a restart finds what it wrote"
    assert RunPlace.at("/runs/tiny", tiny()).events("f1") == Path("/runs/tiny")


def test_validation_clips_without_pixels_are_told_once(
    tiny_corpora: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    shutil.copytree(tiny_corpora, tmp_path / "corpora")
    places = {f"data.corpora.{name}.root": str(tmp_path / "corpora" / name) for name in ("bp4d", "dfew")}
    config = override(tiny(), {**places, "model.text.tower": None, "model.mapping.enabled": False})
    manifests = prepare(config).validation
    step = make_step(config, torch.device("cpu"), SingleProcess())
    validation = worker.validation(Job(config, "/x", "", 1, manifests), step)
    place = next(place for place, manifest in enumerate(manifests) if manifest.corpus == "dfew")
    rows = validation.rows[validation.rows.corpus == place]
    record = manifests[place][int(rows.record[0])]
    source = tmp_path / "corpora" / "dfew" / record.source
    shutil.rmtree(source) if source.is_dir() else source.unlink()
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            fe, *_ = validation.read(rows)
    assert fe is not None
    assert not fe.class_mask[0].any()
    told = [entry.getMessage() for entry in caplog.records if "clip without pixels" in entry.getMessage()]
    assert len(told) == 1
    assert f"dfew: clip {record.clip!r}" in told[0]
