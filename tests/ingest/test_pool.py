"""Ingest on Ray: a maker that dies once changes no byte; a shard whose maker dies each time is given up."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from pathlib import Path
from typing import Any

import pytest
import ray

from ssm.labels.vocabulary import Vocabulary
from ssm_platform.base.storage import StorageError, open_storage
from ssm_platform.faces.settings import make_detector
from ssm_platform.ingest import pool
from ssm_platform.ingest.corpus import IngestSettings, ShardResult, ShardTask, ingest_shard
from ssm_platform.records.manifest import Manifest, Record


def test_a_shard_that_ends_its_maker_each_time_is_given_up_by_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    records = [Record(f"c{number}", f"{number}.mp4", "video", 0, 9, expression="fear") for number in range(4)]
    manifest = Manifest.build("/x", "wild", "fe", Vocabulary(expressions=("fear",)), records)
    monkeypatch.setattr(ray, "get", lambda value: value)
    monkeypatch.setattr(pool, "make_detector", lambda _: None)

    def deadly(*_: Any) -> ShardResult:
        raise SystemExit  # as a crash ends it: nothing after this is done

    monkeypatch.setattr(pool, "ingest_shard", deadly)
    task = ShardTask("shards/00000", 1, 3)
    for _ in range(pool._TRIES):
        with pytest.raises(SystemExit):
            pool.ShardMaker(manifest, str(tmp_path), IngestSettings())._made(task)
    with pytest.raises(ValueError, match=r"shards/00000: its worker died 4 times over records 1\.\.2 of wild"):
        pool.ShardMaker(manifest, str(tmp_path), IngestSettings())._made(task)

    def away(*_: Any) -> ShardResult:
        raise StorageError("s3://bucket/shards/00001.data", "gave up after 9 tries")

    monkeypatch.setattr(pool, "ingest_shard", away)
    for _ in range(pool._TRIES + 1):  # an outage is no death, however often it is met
        with pytest.raises(StorageError, match="gave up"):
            pool.ShardMaker(manifest, str(tmp_path), IngestSettings())._made(ShardTask("shards/00001", 3, 4))
    monkeypatch.setattr(pool, "ingest_shard", lambda *_: ShardResult("shards/00001", 9, 0))
    assert pool.ShardMaker(manifest, str(tmp_path), IngestSettings())._made(ShardTask("shards/00001", 3, 4)).frames == 9
    assert open_storage(tmp_path).list("shards/00001") == []


@pytest.mark.ray
def test_ingest_on_ray_survives_a_killed_worker_and_gives_the_same_bytes(
    ray_cluster: None, tmp_path: Path, shared_data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The command itself, on raw video with real faces; a worker is killed in the middle of its shard."""
    monkeypatch.syspath_prepend(str(Path(__file__).resolve().parents[2] / "jobs"))
    import importlib

    command = importlib.import_module("ingest")
    source = shared_data / "faces" / "WolfgangLanger_Pexels.mp4"
    records = [
        Record(f"c{number}", source.name, "video", number * 40, 40, expression="sadness", rate=24.0)
        for number in range(6)
    ]
    manifest = Manifest.build(source.parent, "raw", "fe", Vocabulary(expressions=("sadness",)), records)
    manifest.write(tmp_path / "records.parquet")
    flags = ["--size=96", "--frames_per_shard=80", "--faces.side=240"]
    killed: list[int] = []
    killer = threading.Thread(target=kill_one_worker, args=(tmp_path / "out", killed), daemon=True)
    killer.start()
    summary = command.ingest([str(tmp_path / "records.parquet"), "--out", str(tmp_path / "out"), *flags])
    killer.join()
    assert killed
    assert (summary.clips, summary.frames, summary.quarantined) == (6, 240, [])
    assert not list((tmp_path / "out").rglob("*.shard"))
    chosen = json.loads((tmp_path / "out" / "ingest.json").read_text())
    chosen.pop("manifest")
    straight = IngestSettings.model_validate(chosen)
    first = ShardTask("shards/00000", 0, 2)
    ingest_shard(manifest, str(tmp_path / "straight"), straight, first, make_detector(straight.faces))
    assert (tmp_path / "straight/shards/00000.data").read_bytes() == (tmp_path / "out/shards/00000.data").read_bytes()


def kill_one_worker(out: Path, killed: list[int]) -> None:
    """End one of this cluster's shard makers once it has begun to write."""
    for _ in range(1200):
        if list(out.glob(".scratch/*.shard")):
            for pid in shard_makers():
                os.kill(pid, signal.SIGKILL)
                killed.append(pid)
                return
        time.sleep(0.05)


def shard_makers() -> list[int]:
    """Processes below this one that are Ray actors of the ingest."""
    parents = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and (entry / "stat").exists():
            try:
                text = (entry / "stat").read_text()
                title = (entry / "cmdline").read_bytes()
            except OSError:
                continue
            parents[int(entry.name)] = (int(text.rpartition(")")[2].split()[1]), title)
    return [pid for pid, (_, title) in parents.items() if b"ShardMaker" in title and _is_below(pid, parents)]


def _is_below(pid: int, parents: dict[int, tuple[int, bytes]]) -> bool:
    while pid in parents:
        if pid == os.getpid():
            return True
        pid = parents[pid][0]
    return False
