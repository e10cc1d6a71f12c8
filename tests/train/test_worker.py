"""What a worker does beside the loop: its scratch, and what it says of validation clips that cannot be read."""

from __future__ import annotations

import logging
import shutil
from pathlib import Path

import numpy as np
import pytest

from ssm_platform.base.overrides import override
from ssm_platform.data.turns import Turns
from ssm_platform.runs.preparation import prepare
from ssm_platform.runs.recipes import tiny
from ssm_platform.train import worker
from ssm_platform.train.building import run_reader, start_digest
from ssm_platform.train.place import Job, RunPlace
from ssm_platform.train.validation import validation_rows
from ssm_platform.train.worker import typed


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
    config = override(tiny(), places)
    manifests = prepare(config).validation
    rows = validation_rows(config, manifests)
    rows = rows[np.array([manifests[place].corpus == "dfew" for place in rows.corpus])]
    manifest = manifests[int(rows.corpus[0])]
    record = manifest[int(rows.record[0])]
    source = tmp_path / "corpora" / "dfew" / record.source
    shutil.rmtree(source) if source.is_dir() else source.unlink()
    columns, turns = run_reader(config, [], manifests).read(rows.columns()), Turns(0, 2, 1, 1)
    trained = {**columns, "row": columns["row"] + 1000}
    with caplog.at_level(logging.WARNING):
        first, again = [
            batch for batch in typed(iter([trained, columns] * 2), turns, config.data) if batch.rows[0] < 1000
        ]
    assert first.fe is not None
    assert not first.fe.class_mask[0].any()
    assert (first.rows == again.rows).all()
    told = [entry.getMessage() for entry in caplog.records if "clip without pixels" in entry.getMessage()]
    assert len(told) == 2, "once of those it trains on, once of those it is validated on"
    assert f"dfew: clip {record.clip!r}" in told[0]


def test_other_weights_or_none_under_init_from_on_a_node_end_the_run_there(tmp_path: Path) -> None:
    """Every worker looks at its own node's folder: a path that leads elsewhere would train another model there."""
    (tmp_path / "model.safetensors").write_bytes(b"weights")
    config = override(tiny(), {"init_from": str(tmp_path)})
    job = Job(config, "/x", "", 1, [], start=start_digest(config))
    worker._check_start(job)
    (tmp_path / "model.safetensors").write_bytes(b"others")
    with pytest.raises(ValueError, match=f"init_from: {tmp_path} on .* holds other weights than the driver's"):
        worker._check_start(job)
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(ValueError, match=r"init_from on .*: every node must see that folder"):
        worker._check_start(job)
