"""A whole run whose corpora lie in an object store as shards: what a cluster without a shared folder does."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from ssm_platform.base.storage import MissingKey
from ssm_platform.corpora.registry import read_corpus
from ssm_platform.ingest.corpus import IngestSettings, ShardResult, ShardTask, ingest_shard, run
from ssm_platform.records.manifest import Manifest

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


@pytest.mark.ray
@pytest.mark.timeout(500)
def test_a_run_trains_and_evaluates_from_shards_in_a_bucket(manifests: dict[str, str], tmp_path: Path) -> None:
    fields = [
        f"--data.corpora.{name}.{field}={value}"
        for name in CORPORA
        for field, value in (("root", "null"), ("synthetic", "null"), ("manifest", manifests[name]))
    ]
    command = [sys.executable, str(REPOSITORY / "jobs" / "train.py"), "--recipe=tiny", "--steps=3", *fields]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    result = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=400, check=False
    )
    assert result.returncode == 0, result.stderr[-5000:]
    curves = json.loads((tmp_path / "runs" / "tiny" / "curves.json").read_text())
    assert curves[-1]["step"] == 3
    assert not (tmp_path / "s3:").exists()
