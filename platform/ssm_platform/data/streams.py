"""Clips through Ray Data: numbers of blocks in, uint8 batches out, the same global batches at any worker count.

A block is one worker's shares (its rows of a turn) of a few consecutive turns, and the workers' blocks follow each
other (`Layout`). What Ray Data carries before decoding is the block's number alone: its rows are computed where they
are decoded, so a start costs the same however long the run is. A decode task turns a number into one block of clips
(`repartition(strict=True)`), and `streaming_split(equal=True)` deals the blocks out in turn, so every worker gets its
shares in order. Why blocks of several steps, and cut before decoding: `docs/data.md`. What it rests on:
`preserve_order`, one block of clips per number, and a splitter that deals equal blocks in turn; the tests hold all
three. Decoding itself is `clips.ClipReader`; this module only adapts it.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Protocol, cast
from uuid import uuid4

import numpy as np
import pyarrow as pa
import ray
from numpy.typing import NDArray
from ray.data import ActorPoolStrategy, DataIterator, Dataset

from ssm.training import PADDING
from ssm_platform.data.clips import ClipReader, Columns
from ssm_platform.data.ledger import TRIES, ledger
from ssm_platform.data.plan import Plan, Rows
from ssm_platform.data.shared import Shared
from ssm_platform.data.shares import Shares
from ssm_platform.data.turns import Course, Turn, Turns

_BLOCK_CLIPS = 256  # at most in a block: a task costs Ray some 15 ms of CPU, as much as decoding a few small clips
_BLOCK_BYTES = 128 * 2**20  # at most in a block of clips, unless a single share is more
_TASKS_AHEAD = 8  # per decode process: with Ray's two it idled a third of the time until the scheduler's next turn
_PROCESS_BYTES = 256 * 2**20  # a decode process without clips; declared to Ray, and enough to keep its warning quiet
_NUMBER = "block"
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # of malloc.h
_FRAMES_KEPT = 64 * 2**20  # of freed memory; half of it is the most that glibc takes for the second threshold


def steps_of_block(share: int, row_bytes: int) -> int:
    """How many shares of that many rows, of that many bytes each, a block holds at most."""
    return max(1, min(_BLOCK_CLIPS // share, _BLOCK_BYTES // (share * row_bytes)))


def decoders(decode_workers: int, world: int, group: int) -> int:
    """How many processes decode for `world` workers, where so many do for a full group of `group`."""
    return max(1, -(-decode_workers * world // group))


class Blocks(Protocol):
    """Rows by number of block."""

    def __len__(self) -> int:
        """How many blocks there are."""

    def rows(self, number: int) -> Rows:
        """The rows of one of them."""


@dataclass(frozen=True)
class Layout:
    """The blocks of some turns of a course: each holds a few turns of one worker, the workers in turn.

    The first ones, as many as are sent ahead, hold one turn, since training begins when a batch is decoded and Ray may
    let the first wait for the others; the rest hold `together`.
    """

    course: Shared[Course]
    shares: Shares
    turns: Turns
    begin: int  # the first turn of the first block
    together: int  # turns in a block, at most
    groups: int  # of one block for each worker

    def __len__(self) -> int:
        return self.groups * self.shares.world

    def rows(self, number: int) -> Rows:
        """A worker's rows of a few turns, one turn after the other; past the last turn nothing but `PADDING`."""
        group, rank = divmod(number, self.shares.world)
        begin, count = self._span(group)
        turns = [self.turns.at(self.begin + begin + place) for place in range(count)]
        steps = [turn.step for turn in turns if turn is not None and turn.step is not None]
        course = self.course.value
        plan, size = course.plan, course.plan.config.global_batch
        first, last = (steps[0], steps[-1] + 1) if steps else (0, 1)
        known, every = last * size - first * size, plan.rows(first, last)
        if course.validation is not None:
            every = Rows.concatenate([every, course.validation])
        places = [self._places(turn, rank, first * size, known) for turn in turns]
        return every.filled(np.concatenate(places), np.tile(self.shares.tasks[rank], count))

    def reach(self, groups: int) -> int:
        """How many turns so many groups of blocks hold."""
        return self._span(groups)[0]

    def needed(self, turns: int) -> int:
        """How many groups hold so many turns."""
        return turns if turns <= _TASKS_AHEAD else _TASKS_AHEAD - (_TASKS_AHEAD - turns) // self.together

    def _span(self, group: int) -> tuple[int, int]:
        """The first turn of a group of blocks, and how many it holds."""
        if group < _TASKS_AHEAD:
            return group, 1
        return _TASKS_AHEAD + (group - _TASKS_AHEAD) * self.together, self.together

    def _places(self, turn: Turn | None, rank: int, first: int, known: int) -> NDArray[np.int64]:
        """A worker's rows of a turn (S) among `known` rows of the plan from row `first` on and those of validation."""
        course, mine = self.course.value, self.shares.places[rank]
        if turn is None:
            return np.full_like(mine, PADDING)
        if turn.step is not None:
            return np.where(mine == PADDING, PADDING, turn.step * course.plan.config.global_batch - first + mine)
        mine = self.shares.of_round(course.clips, turn.round or 0, rank)
        return np.where(mine == PADDING, PADDING, known + mine)


@dataclass(frozen=True)
class Cut:
    """Any rows in blocks of `size`; the last may be shorter."""

    every: Shared[Rows]
    size: int

    def __len__(self) -> int:
        return -(-len(self.every.value) // self.size)

    def rows(self, number: int) -> Rows:
        """The next `size` rows."""
        return self.every.value[number * self.size : (number + 1) * self.size]


@dataclass(frozen=True)
class ClipStream:
    """How rows become batches: the reader, and the pool of processes that decode."""

    source: Shared[ClipReader]
    decode_workers: int = 1
    decode_cpus: float = 1.0
    group: int = 1  # the number of workers that so many decode for; fewer decode for a smaller group

    @cached_property
    def _ledger(self) -> Any:
        return ledger()

    @property
    def reader(self) -> ClipReader:
        """What reads the rows."""
        return self.source.value

    def steps_per_block(self, share: int) -> int:
        """How many shares of that many rows a block holds, at most."""
        return steps_of_block(share, self.reader.row_bytes)

    def decode(self, rows: Rows, size: int) -> Dataset:
        """Clips in blocks of exactly `size` rows (the last may be shorter), in the order of `rows`."""
        return self._decoded(Cut(Shared(rows), size), size, self.decode_workers)

    def layout(self, course: Shared[Course], first: int, world: int) -> Layout:
        """All that is left of a course from step `first` on. ValueError where so many workers cannot share a batch."""
        read = course.value
        shares = read.plan.config.shares(world)
        turns = Turns(first, read.total, read.every, shares.rounds(read.clips))
        every = Layout(course, shares, turns, 0, self.steps_per_block(shares.slots), 0)
        return replace(every, groups=every.needed(len(turns)))

    def dealt(self, layout: Layout) -> Dataset:
        """Clips in the blocks of a layout, to be dealt out in turn; as many decode as that group of workers needs."""
        workers = decoders(self.decode_workers, layout.shares.world, self.group)
        return self._decoded(layout, layout.together * layout.shares.slots, workers)

    def split(self, plan: Plan, first: int, last: int, world: int) -> list[DataIterator]:
        """Steps first..last-1, one iterator per worker, without Ray Train; `world` is the full group."""
        clips = replace(self, group=world)
        return list(
            clips.dealt(clips.layout(Shared(Course(plan, last)), first, world)).streaming_split(world, equal=True)
        )

    def _decoded(self, blocks: Blocks, size: int, workers: int) -> Dataset:
        numbers = ray.data.from_arrow(pa.table({_NUMBER: np.arange(len(blocks), dtype=np.int64)}))
        context = numbers.context
        context.execution_options.preserve_order = True
        context.target_max_block_size = 2 * size * self.reader.row_bytes  # above it Ray would cut a block of clips
        context.memory_usage_poll_interval_s = None  # a thread per task, only for a warning
        return numbers.repartition(target_num_rows_per_block=1, strict=True).map_batches(
            _Decoder,
            fn_constructor_args=(self.source, blocks, self._ledger, uuid4().hex),
            batch_size=None,
            batch_format="numpy",
            compute=ActorPoolStrategy(size=workers, max_tasks_in_flight_per_actor=_TASKS_AHEAD),
            num_cpus=self.decode_cpus,
            memory=_PROCESS_BYTES + 3 * size * self.reader.row_bytes,
        )


def batches(shard: DataIterator, share: int, prefetch: int = 2) -> Iterator[Columns]:
    """This worker's columns, one step after the other. RuntimeError where a batch is not exactly its share."""
    for batch in shard.iter_batches(batch_size=share, batch_format="numpy", prefetch_batches=prefetch):
        columns = cast(Columns, batch)
        if len(columns["row"]) != share:
            raise RuntimeError(f"a batch of {len(columns['row'])} rows came in, each worker's share is {share}")
        yield columns


class _Decoder:
    """The Ray side of `ClipReader`: one per process, OpenCV on one thread because the pool is the parallelism."""

    def __init__(self, source: Shared[ClipReader], blocks: Blocks, ledger: Any, stream: str) -> None:
        import cv2

        cv2.setNumThreads(1)
        _keep_freed_memory()
        self._reader, self._blocks, self._ledger, self._stream = source.value, blocks, ledger, stream

    def __call__(self, batch: dict[str, NDArray[Any]]) -> Columns:
        (number,) = batch[_NUMBER].tolist()
        tries: int = ray.get(self._ledger.begin.remote(self._stream, number))
        rows = self._blocks.rows(number)
        if tries > TRIES:
            raise ValueError(
                f"block {number} ended its decoder {TRIES} times: rows {rows.row.min()}..{rows.row.max()} of the plan"
            )
        columns = self._reader.read(rows.columns())
        self._ledger.end.remote(self._stream, number)
        return columns


def _keep_freed_memory() -> None:
    """Lets this process use the memory again that a clip's frames had, where the C library can be told so (glibc).

    Left alone it hands back what is above twice the largest piece freed so far, and blocks of clips are too large to
    count: every clip then met 550 new pages, 30 % of the time it takes to decode.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_MMAP_THRESHOLD, _FRAMES_KEPT // 2)
        mallopt(_TRIM_THRESHOLD, _FRAMES_KEPT)
