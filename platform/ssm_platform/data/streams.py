"""Clips through Ray Data: pointers of the plan in, uint8 batches out, the same global batches at any worker count.

Plan rows are laid in blocks while they are still pointers: a block is one worker's shares (its rows of a step) of a few
consecutive steps, and the workers' blocks follow each other. A decode task turns such a block into one block of clips
(`repartition(strict=True)`), and `streaming_split(equal=True)` deals the blocks out in turn, so every worker gets its
shares in order. Why blocks of several steps, and cut before decoding: `docs/data.md`. What it rests on:
`preserve_order`, one block of clips per block of pointers, and a splitter that deals equal blocks in turn; the tests
hold all three. Decoding itself is `clips.ClipReader`; this module only adapts it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import pyarrow as pa
import ray
from numpy.typing import NDArray
from ray.data import ActorPoolStrategy, DataIterator, Dataset

from ssm_platform.data.clips import ClipReader, Columns
from ssm_platform.data.plan import Rows

_POINTERS_PER_BLOCK = 4096
_BLOCK_CLIPS = 256  # at most in a block: a task costs Ray some 15 ms of CPU, as much as decoding a few small clips
_BLOCK_BYTES = 96 * 2**20  # at most in a block of clips, unless a single share is more
_TASKS_AHEAD = 8  # per decode process: with Ray's two it idled a third of the time until the scheduler's next turn
_PROCESS_BYTES = 256 * 2**20  # a decode process without clips; declared to Ray, and enough to keep its warning quiet
_RETRIES = 3  # a clip that kills its decoder each time must end the job, not restart it for ever


@dataclass(frozen=True)
class ClipStream:
    """How rows become batches: the reader, and the pool of processes that decode."""

    reader: ClipReader
    decode_workers: int = 1
    decode_cpus: float = 1.0

    def steps_per_block(self, share: int) -> int:
        """How many shares of that many rows a block holds, at most."""
        return max(1, min(_BLOCK_CLIPS // share, _BLOCK_BYTES // (share * self.reader.row_bytes)))

    def decode(self, rows: Rows, size: int) -> Dataset:
        """Clips in blocks of exactly `size` rows (the last may be shorter), in the order of `rows`."""
        pointers = _pointers(rows)
        context = pointers.context
        context.execution_options.preserve_order = True
        context.target_max_block_size = 2 * size * self.reader.row_bytes  # above it Ray would cut a block of clips
        context.memory_usage_poll_interval_s = None  # a thread per task, only for a warning
        return pointers.repartition(target_num_rows_per_block=size, strict=True).map_batches(
            _Decoder,
            fn_constructor_args=(ray.put(self.reader),),
            batch_size=None,
            batch_format="numpy",
            compute=ActorPoolStrategy(size=self.decode_workers, max_tasks_in_flight_per_actor=_TASKS_AHEAD),
            num_cpus=self.decode_cpus,
            memory=_PROCESS_BYTES + 3 * size * self.reader.row_bytes,
            max_restarts=-1,  # nodes may come and go for as long as a run lasts
            max_task_retries=_RETRIES,
        )

    def dealt(self, rows: Rows, share: int, world: int) -> Dataset:
        """Whole steps of `rows` in blocks that, dealt out in turn, give each of `world` workers its shares in order.

        Fast where the number of steps is a multiple of `steps_per_block`. ValueError where `rows` are not whole steps.
        """
        steps, rest = divmod(len(rows), share * world)
        if rest:
            raise ValueError(f"{len(rows)} rows are not whole steps of {world} x {share}")
        together = max(count for count in range(1, self.steps_per_block(share) + 1) if steps % count == 0)
        order = np.arange(len(rows)).reshape(-1, together, world, share).swapaxes(1, 2).ravel()
        return self.decode(rows[order], together * share)

    def split(self, rows: Rows, share: int, world: int) -> list[DataIterator]:
        """One iterator per worker, without Ray Train."""
        return list(self.dealt(rows, share, world).streaming_split(world, equal=True))


def _pointers(rows: Rows) -> Dataset:
    """The rows as a dataset, without pixels."""
    table = pa.table(rows.columns())
    blocks = [table.slice(first, _POINTERS_PER_BLOCK) for first in range(0, len(rows), _POINTERS_PER_BLOCK)]
    # A slice drags its whole table along when it is stored: copy each.
    return ray.data.from_arrow([block.take(pa.array(range(len(block)))) for block in blocks])


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
