"""A whole run whose corpora lie in an object store as shards: what a cluster without a shared folder does."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from faulty_s3 import Faulty

from ssm_platform.base.storage import MissingKey, open_storage
from ssm_platform.corpora.registry import read_corpus
from ssm_platform.ingest.corpus import IngestSettings, ShardResult, ShardTask, ingest_shard, run
from ssm_platform.records.manifest import Manifest
from ssm_platform.train.checkpoints import Checkpoints

REPOSITORY = Path(__file__).resolve().parents[2]
CORPORA = ("bp4d", "dfew")


def here(manifest: Manifest, out: str, settings: IngestSettings, tasks: list[ShardTask]) -> Iterator[ShardResult]:
    """A spread without Ray; with frames kept as they are nobody is asked for a face."""
    for task in tasks:
        yield ingest_shard(manifest, out, settings, task, lambda *_: [])


@pytest.fixture
def manifests(bucket: str, tiny_corpora: Path) -> dict[str, str]:
    """The corpora of recipe `tiny` as shards in a bucket."""
    settings = IngestSettings(crops="always", size=64)
    return {
        name: run(read_corpus(name, tiny_corpora / name).manifest, f"{bucket}/{name}", settings, here).manifest
        for name in CORPORA
    }


def test_a_manifest_in_a_bucket_is_read_and_an_absent_one_is_named(manifests: dict[str, str], bucket: str) -> None:
    manifest = Manifest.read(manifests["dfew"])
    assert len(manifest)
    assert manifest.root == f"{bucket}/dfew"
    with pytest.raises(MissingKey, match=r"s3://shards/gone/manifest\.parquet"):
        Manifest.read(f"{bucket}/gone/manifest.parquet")


def fields_of(manifests: dict[str, str]) -> dict[str, Any]:
    return {
        f"data.corpora.{name}.{field}": value
        for name in CORPORA
        for field, value in (("root", None), ("synthetic", None), ("manifest", manifests[name]))
    }


@pytest.mark.ray
@pytest.mark.timeout(500)
def test_a_run_from_shards_in_a_bucket_has_the_same_bits_through_an_outage(
    manifests: dict[str, str], faulty: Faulty, tmp_path: Path
) -> None:
    """Eight seconds without an answer while clips are read: five tries once took 1.5 s, and the clips turned black."""
    fields = [f"--{path}={json.dumps(value)}" for path, value in fields_of(manifests).items()]
    command = [sys.executable, str(REPOSITORY / "jobs" / "train.py"), "--recipe=tiny", "--steps=4", *fields]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    result = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=400, check=False
    )
    assert result.returncode == 0, result.stderr[-5000:]
    curves = json.loads((tmp_path / "runs" / "tiny" / "curves.json").read_text())
    assert curves[-1]["step"] == 4
    assert not (tmp_path / "s3:").exists()

    settings = {**fields_of(manifests), "steps": 4, "name": "dark", "storage": str(tmp_path / "runs")}
    faulty.outage(after=12, seconds=8)
    driver = [sys.executable, str(REPOSITORY / "tests" / "support" / "train_driver.py"), json.dumps(settings)]
    dark = subprocess.run(driver, env=environment, capture_output=True, text=True, timeout=300, check=False)
    assert dark.returncode == 0, dark.stderr[-5000:]
    assert faulty.unanswered > 5, "tried again and again while it was away"
    one, other = (Checkpoints(open_storage(tmp_path / "runs" / name)).resume() for name in ("tiny", "dark"))
    assert one is not None
    assert other is not None
    assert one[1]["position"]["order"] == other[1]["position"]["order"]
    assert one[1]["position"]["order"]["unread"] == []
    for part in ("model", "average"):
        for name, tensor in one[1]["train"][part].items():
            assert torch.equal(tensor, other[1]["train"][part][name]), name
