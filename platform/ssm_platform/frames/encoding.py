"""Encoding on Ray: one Ray Data pipeline over the parts that are missing, an actor pool that encodes them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ssm_platform.cluster import executed, rows_of
from ssm_platform.frames import cache
from ssm_platform.frames.cache import Part
from ssm_platform.frames.config import FrameRun
from ssm_platform.frames.encoders import make_encoder
from ssm_platform.records import Manifest

_MEMORY = 1024 * 2**20  # of a worker: encoder, a batch of frames, a part of features


class FeatureMaker:
    """The Ray side of `cache.encode_part`: one encoder a process, on one thread because the pool is the parallelism."""

    def __init__(self, work: Any) -> None:
        import cv2
        import ray
        import torch

        cv2.setNumThreads(1)
        torch.set_num_threads(1)
        self._manifest, self._place, self._run = ray.get(work)
        self._encoder = make_encoder(self._run.encoder, self._run.seed)

    def __call__(self, batch: dict[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        columns = (batch[name].tolist() for name in Part._fields)
        parts = [Part(*row) for row in zip(*columns, strict=True)]
        counts = [
            cache.encode_part(self._manifest, self._place, part, self._encoder, self._run.batch) for part in parts
        ]
        return {"frames": np.array(counts)}


def encode(
    run: FrameRun, manifest: Manifest, place: str, on_frames: Callable[[int], None] = lambda frames: None
) -> None:
    """Writes what is missing of a manifest's features. Ray must be joined; ValueError where the encoder is unusable."""
    import ray

    if cache.is_done(place):
        return
    encoder = make_encoder(run.encoder, run.seed)  # what is wrong with it is an error here, not in every worker
    todo = cache.missing(place, manifest)
    if todo:
        rows = ray.data.from_items([part._asdict() for part in todo], override_num_blocks=len(todo))
        made = rows.map_batches(
            FeatureMaker,
            fn_constructor_args=(ray.put((manifest, place, run)),),
            batch_size=1,
            compute=ray.data.ActorPoolStrategy(size=min(run.workers, len(todo))),
            num_cpus=1,
            memory=_MEMORY,
        )
        for row in executed(made, rows_of):
            on_frames(int(row["frames"]))
    cache.finish(place, manifest, encoder)
