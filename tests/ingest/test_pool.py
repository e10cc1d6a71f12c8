"""A shard whose maker dies each time is given up: Ray starts makers again as often as they die."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import ray

from ssm.labels.vocabulary import Vocabulary
from ssm_platform.base.storage import StorageError, open_storage
from ssm_platform.ingest import pool
from ssm_platform.ingest.corpus import IngestSettings, ShardResult, ShardTask
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
