"""Ingest on Ray: one Ray Data pipeline over the shards to make, an actor pool that makes them, results as they come.

A worker that dies is started anew and its shard made again; nothing it wrote counts before the shard's manifest does.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from ssm_platform.base import open_storage
from ssm_platform.cluster import executed, rows_of
from ssm_platform.faces import make_detector
from ssm_platform.ingest.corpus import IngestSettings, ShardResult, ShardTask, ingest_shard
from ssm_platform.records import Manifest

_TRIES = 4  # of one shard: a file that kills the decoder must not kill it for ever
_MARK = ".tries"  # in the name of the object that counts them
_MEMORY = 512 * 2**20  # of a worker: decoder, detector, `lookahead` frames of a large video


class ShardMaker:
    """The actor: keeps the manifest and a detector, makes the shards it is given."""

    def __init__(self, manifest: Any, out: str, settings: IngestSettings) -> None:
        import ray

        cv2.setNumThreads(1)
        self._manifest, self._out, self._settings = ray.get(manifest), out, settings
        self._detector = make_detector(settings.faces)

    def __call__(self, batch: dict[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        names, firsts, lasts = (batch[name].tolist() for name in ShardTask._fields)
        tasks = [ShardTask(*row) for row in zip(names, firsts, lasts, strict=True)]
        results = [self._made(task) for task in tasks]
        return {
            name: np.array(values) for name, values in zip(ShardResult._fields, zip(*results, strict=True), strict=True)
        }

    def _made(self, task: ShardTask) -> ShardResult:
        """The shard, begun a few times at most in a run: Ray starts a worker again as often as it dies."""
        storage, key = open_storage(self._out), task.name + _MARK
        tries = len(storage.read(key)) if storage.exists(key) else 0
        if tries == _TRIES:
            clips = f"records {task.first}..{task.last - 1} of {self._manifest.corpus}"
            raise ValueError(f"{storage.uri}/{task.name}: its worker died {tries} times over {clips}")
        storage.write(key, b"." * (tries + 1))
        try:
            result = ingest_shard(self._manifest, self._out, self._settings, task, self._detector)
        except Exception:  # it is told; only a death leaves its mark
            storage.delete(key)
            raise
        storage.delete(key)
        return result


def on_ray(manifest: Manifest, out: str, settings: IngestSettings, tasks: list[ShardTask]) -> Iterator[ShardResult]:
    """The results of `ingest_shard`, in the order they finish. Ray must be joined."""
    import ray

    if not tasks:
        return
    storage = open_storage(out)
    for key in storage.list("shards/"):
        if key.endswith(_MARK):  # of a run that was broken off
            storage.delete(key)
    make_detector(settings.faces)  # a missing model is an error here, not in every worker
    cpus: float = ray.cluster_resources().get("CPU", 1)  # type: ignore[no-untyped-call]
    workers = max(1, min(len(tasks), int(cpus)))
    rows = ray.data.from_items([task._asdict() for task in tasks], override_num_blocks=len(tasks))
    results = rows.map_batches(
        ShardMaker,
        fn_constructor_args=(ray.put(manifest), out, settings),
        batch_size=1,
        compute=ray.data.ActorPoolStrategy(size=workers),
        num_cpus=1,
        memory=_MEMORY,
    )
    for row in executed(results, rows_of):
        yield ShardResult(str(row["name"]), int(row["frames"]), int(row["quarantined"]))
