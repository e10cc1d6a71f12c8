"""Clips through Ray Data: pointers of the plan in, uint8 batches out, the same global batches at any worker count.

Plan rows are cut into runs of whole shares (a share: one worker's rows of a step) while they are still pointers
(`repartition(strict=True)`); a decode task turns such a run into one block of clips per share, and
`streaming_split(equal=True)` deals the blocks out in order. Cutting before decoding costs bytes where cutting after it
would copy every pixel once more (measured: `docs/data.md`). What it rests on: `preserve_order`, blocks of exactly one
share (by their size in bytes), and a splitter that deals equal blocks in turn; the tests hold all three. Decoding
itself is `clips.ClipReader`; this module only adapts it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, cast

import pyarrow as pa
import ray
from numpy.typing import NDArray
from ray.data import ActorPoolStrategy, DataIterator, Dataset, ExecutionOptions
from ray.train import DataConfig

from ssm_platform.clips import ClipReader, Columns
from ssm_platform.plan import Rows

_POINTERS_PER_BLOCK = 4096
_CLIPS_PER_TASK = 64  # a task costs Ray some 15 ms of CPU, as much as decoding four small clips
_PROCESS_BYTES = 256 * 2**20  # a decode process without clips; declared to Ray, and enough to keep its warning quiet
_RETRIES = 3  # a clip that kills its decoder each time must end the job, not restart it for ever


@dataclass(frozen=True)
class ClipStream:
    """How rows become batches: the reader, and the pool of processes that decode."""

    reader: ClipReader
    decode_workers: int = 1
    decode_cpus: float = 1.0

    def pointers(self, rows: Rows) -> Dataset:
        """The rows as a dataset, without pixels: what Ray Train gets as `datasets={"train": ...}`."""
        table = pa.table(rows.columns())
        blocks = [table.slice(first, _POINTERS_PER_BLOCK) for first in range(0, len(rows), _POINTERS_PER_BLOCK)]
        # A slice drags its whole table along when it is stored: copy each.
        return ray.data.from_arrow([block.take(pa.array(range(len(block)))) for block in blocks])

    def decode(self, pointers: Dataset, share: int) -> Dataset:
        """Clips in blocks of exactly `share` rows (the last may be shorter), in the order of the pointers."""
        context = pointers.context
        context.execution_options.preserve_order = True
        # Ray closes a block of clips once it is over this size and cuts it from 1.5 times on: each share is one block.
        context.target_max_block_size = share * self.reader.row_bytes * 4 // 5
        context.memory_usage_poll_interval_s = None  # a thread per task, only for a warning
        shares = max(1, _CLIPS_PER_TASK // share)
        return pointers.repartition(target_num_rows_per_block=shares * share, strict=True).map_batches(
            _Decoder,
            fn_constructor_args=(ray.put(self.reader),),
            batch_size=share,
            batch_format="numpy",
            compute=ActorPoolStrategy(size=self.decode_workers),
            num_cpus=self.decode_cpus,
            memory=_PROCESS_BYTES + 3 * share * self.reader.row_bytes,
            max_restarts=-1,  # nodes may come and go for as long as a run lasts
            max_task_retries=_RETRIES,
        )

    def split(self, rows: Rows, share: int, world: int) -> list[DataIterator]:
        """One iterator per worker, without Ray Train."""
        return list(self.decode(self.pointers(rows), share).streaming_split(world, equal=True))


class PlanDataConfig(DataConfig):
    """Decodes a dataset of pointers for as many workers as a Train run has at that moment, in exact plan order."""

    def __init__(self, stream: ClipStream, global_batch: int) -> None:
        super().__init__(execution_options=ExecutionOptions(preserve_order=True))
        self._stream = stream
        self._global_batch = global_batch

    def configure(self, datasets: dict[str, Dataset], world_size: int, *args: Any, **kwargs: Any) -> Any:
        """Called by Ray Train at each start of its worker group."""
        if self._global_batch % world_size:
            raise ValueError(f"{world_size} workers cannot share a global batch of {self._global_batch} rows")
        share = self._global_batch // world_size
        decoded = {name: self._stream.decode(pointers, share) for name, pointers in datasets.items()}
        return super().configure(decoded, world_size, *args, **kwargs)


def batches(shard: DataIterator, share: int, prefetch: int = 2) -> Iterator[Columns]:
    """This worker's columns, one step after the other. RuntimeError where a batch is not exactly its share."""
    for batch in shard.iter_batches(batch_size=share, batch_format="numpy", prefetch_batches=prefetch):
        columns = cast(Columns, batch)
        if len(columns["row"]) != share:
            raise RuntimeError(f"a batch of {len(columns['row'])} rows came in, each worker's share is {share}")
        yield columns


class _Decoder:
    """The Ray side of `ClipReader`: one per process, OpenCV on one thread because the pool is the parallelism."""

    def __init__(self, reader: Any) -> None:
        import cv2

        cv2.setNumThreads(1)
        self._reader: ClipReader = ray.get(reader)

    def __call__(self, rows: dict[str, NDArray[Any]]) -> Columns:
        return self._reader.read(rows)
