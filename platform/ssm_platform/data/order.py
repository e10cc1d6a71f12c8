"""Evidence of order: a running hash over what each step really used, and the proof that it is what was planned.

A step's fingerprint is the sum mod 2^64 of hash(row, sample) over its global batch, so each worker adds up its own rows
and one sum over the workers gives the same number at any worker count; the steps are chained by SHA-256. `row` is the
place in the plan, `sample` the identity of the clip that was decoded for it, so a wrong, missing, repeated or
exchanged clip changes the digest. A row without pixels counts as `UNREAD` instead, and is listed: a proof says which
clips were black. The state is a small JSON value that lives in checkpoints: it is rolled back with
the weights, and so covers exactly the steps that made them, across restarts. Knows no Ray and no tensors.

    order = OrderHash(state_of_the_checkpoint or None)
    order.update(step, columns["row"], columns["sample"], combine=sum_over_workers, world=2)
    checkpoint["order"] = order.state
    verify(plan, manifests, checkpoint["order"]) -> Verdict, or OrderError
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ssm.training import PADDING
from ssm_platform.base import UNREAD, mix, sample_ids, text_key
from ssm_platform.data.plan import Plan, Rows
from ssm_platform.records import Manifest

_STEPS_AT_ONCE = 4096
_SHOWN = 3  # clips named in a verdict


class OrderError(ValueError):
    """Samples were used that the plan does not ask for at that step, or steps are missing or repeated."""


@dataclass(frozen=True)
class Span:
    """Consecutive steps run by the same number of workers without a restart."""

    first: int
    last: int
    world: int


@dataclass(frozen=True)
class Verdict:
    """What was proved: every row of steps 0..steps-1 was used exactly once, in plan order, but for those unread."""

    steps: int
    rows: int
    spans: tuple[Span, ...]
    draws: Mapping[str, tuple[int, int, int]]  # per corpus: clips, least and greatest number of times one was drawn
    unread: Mapping[str, int] = field(default_factory=dict)  # "corpus/clip": times its pixels could not be read

    def __str__(self) -> str:
        runs = ", ".join(f"{span.first}..{span.last - 1} by {span.world}" for span in self.spans)
        drawn = ", ".join(f"{name}: {n} clips {low}-{high} times each" for name, (n, low, high) in self.draws.items())
        used = f"{self.rows} rows in {self.steps} steps, each used exactly once"
        if black := sum(self.unread.values()):
            first = ", ".join(list(self.unread)[:_SHOWN])
            used += f", but {black} without pixels, masked ({len(self.unread)} clips that could not be read: {first})"
        return f"{used} (steps by workers: {runs}; {drawn})"


Combine = Callable[[NDArray[np.int64]], NDArray[np.int64]]
"""Element by element the sum over the workers, wrapping."""


def _alone(numbers: NDArray[np.int64]) -> NDArray[np.int64]:
    """The sum over the only worker there is."""
    return numbers


class OrderHash:
    """The running hash. Continues from a stored `state`; a fresh object marks a new span at its first step."""

    def __init__(self, state: Mapping[str, Any] | None = None) -> None:
        state = state or {"steps": 0, "rows": 0, "digest": "", "spans": []}
        self._unread: list[int] = list(state.get("unread", []))  # absent in states of earlier versions
        self._steps: int = state["steps"]
        self._rows: int = state["rows"]
        self._digest: str = state["digest"]
        self._spans: list[dict[str, Any]] = [dict(span) for span in state["spans"]]
        self._fresh = True

    @property
    def state(self) -> dict[str, Any]:
        """For the checkpoint: steps and rows used so far, their digest, where spans began, which rows were black."""
        spans, unread = [dict(span) for span in self._spans], list(self._unread)
        return {"steps": self._steps, "rows": self._rows, "digest": self._digest, "spans": spans, "unread": unread}

    def update(
        self,
        step: int,
        rows: NDArray[np.int64],
        samples: NDArray[np.int64],
        combine: Combine = _alone,
        world: int = 1,
    ) -> dict[str, Any]:
        """Take in this worker's part of global batch `step`; all workers call it. Returns the new state."""
        (count,) = combine(np.array([(rows != PADDING).sum()], np.int64)).tolist()
        self.settle(step, [Used.of(rows, samples)], combine, count, world)
        return self.state

    def settle(self, first: int, parts: Sequence[Used], combine: Combine, count: int, world: int) -> None:
        """Take in this worker's parts of the global batches from step `first` on, each of `count` rows.

        All workers call it together. `combine` sums signed 64-bit numbers over the `world` workers, wrapping.
        OrderError where `first` is not the next step.
        """
        table = np.array([[part.fingerprint, len(part.unread)] for part in parts], np.int64).reshape(-1, 2)
        for step, part, (total, missing) in zip(range(first, first + len(parts)), parts, combine(table), strict=True):
            if missing:  # rare: a second round tells every worker which
                places = np.bincount(part.unread - step * count, minlength=count).astype(np.int64)
                self._unread.extend((np.flatnonzero(combine(places)) + step * count).tolist())
            self._add(step, int(total), count, world)

    def _add(self, step: int, total: int, count: int, world: int) -> None:
        if step != self._steps:
            raise OrderError(f"step {step} after {self._steps} steps: the next one must be {self._steps}")
        if self._fresh or self._spans[-1]["world"] != world:
            self._spans.append({"first": step, "world": world, "digest": self._digest})
            self._fresh = False
        self._digest = _chain(self._digest, step, total)
        self._steps += 1
        self._rows += count


@dataclass(frozen=True)
class Used:
    """What one worker used of one global batch."""

    fingerprint: int  # of its rows and their samples
    unread: NDArray[np.int64]  # rows that could not be read

    @classmethod
    def of(cls, rows: NDArray[np.int64], samples: NDArray[np.int64]) -> Used:
        """By the rows and the identities of what was decoded for them; what fills a batch up is no row of the plan."""
        real = rows != PADDING
        rows, samples = rows[real], samples[real]
        return cls(_fingerprint(rows, samples), rows[samples == UNREAD])


def _fingerprint(rows: NDArray[np.int64], samples: NDArray[np.int64]) -> int:
    """The sum over rows, as a signed 64-bit number."""
    return int(_tokens(rows, samples).sum(dtype=np.uint64).view(np.int64))


def clip_keys(manifest: Manifest) -> NDArray[np.int64]:
    """The identity of each record's clip (N), for `sample_ids`."""
    names = manifest.column("clip").to_pylist()
    return np.array([text_key(f"{manifest.corpus}/{name}") for name in names], np.int64)


def verify(plan: Plan, manifests: Sequence[Manifest], state: Mapping[str, Any]) -> Verdict:
    """Replay the plan without pixels and compare. OrderError names the span of steps in which the digests part."""
    keys = [clip_keys(manifest) for manifest in manifests]
    counts = [np.zeros(len(clips), np.int64) for clips in plan.corpora]
    unread = np.array(state.get("unread", []), np.int64)
    names: Counter[str] = Counter()
    expected = {0: ""}
    wanted = {span["first"] for span in state["spans"]} | {state["steps"]}
    digest = ""
    for first in range(0, state["steps"], _STEPS_AT_ONCE):
        rows = plan.rows(first, min(first + _STEPS_AT_ONCE, state["steps"]))
        _count(plan, rows, counts)
        black = np.isin(rows.row, unread)
        names.update(_named(manifests, rows[black]))
        for step, total in enumerate(_step_fingerprints(plan, rows, keys, black), first):
            digest = _chain(digest, step, total)
            if step + 1 in wanted:
                expected[step + 1] = digest
    _compare(state, expected, plan.config.global_batch)
    draws = {
        clips.corpus: (len(clips), int(count.min()), int(count.max()))
        for clips, count in zip(plan.corpora, counts, strict=True)
    }
    return Verdict(state["steps"], state["rows"], _spans(state), draws, dict(names))


def _named(manifests: Sequence[Manifest], rows: Rows) -> list[str]:
    pairs = [(manifests[corpus], record) for corpus, record in zip(rows.corpus, rows.record.tolist(), strict=True)]
    return [f"{manifest.corpus}/{manifest.column('clip')[record].as_py()}" for manifest, record in pairs]


def _compare(state: Mapping[str, Any], expected: Mapping[int, str], global_batch: int) -> None:
    begin = 0
    marks = [(span["first"], span["digest"]) for span in state["spans"]] + [(state["steps"], state["digest"])]
    for step, digest in marks:
        if digest != expected[step]:
            raise OrderError(f"steps {begin}..{step - 1}: other samples were used than the plan asks for")
        begin = step
    if state["rows"] != state["steps"] * global_batch:
        raise OrderError(f"{state['rows']} rows in {state['steps']} steps: must be {global_batch} in each")


def _spans(state: Mapping[str, Any]) -> tuple[Span, ...]:
    begins = [span["first"] for span in state["spans"]]
    ends = [*begins[1:], state["steps"]]
    worlds = [span["world"] for span in state["spans"]]
    return tuple(Span(*span) for span in zip(begins, ends, worlds, strict=True))


def _tokens(rows: NDArray[np.int64], samples: NDArray[np.int64]) -> NDArray[np.uint64]:
    return mix(mix(rows.astype(np.uint64)) ^ samples.astype(np.int64).view(np.uint64))


def _step_fingerprints(
    plan: Plan, rows: Rows, keys: Sequence[NDArray[np.int64]], black: NDArray[np.bool_]
) -> list[int]:
    samples = np.zeros(len(rows), np.int64)
    for corpus, of_clips in enumerate(keys):
        mine = rows.corpus == corpus
        samples[mine] = sample_ids(of_clips[rows.record[mine]], rows.start[mine])
    samples[black] = UNREAD
    tokens = _tokens(rows.row, samples).reshape(-1, plan.config.global_batch)
    totals: list[int] = tokens.sum(axis=1, dtype=np.uint64).view(np.int64).tolist()
    return totals


def _count(plan: Plan, rows: Rows, counts: list[NDArray[np.int64]]) -> None:
    """How often each clip of each corpus was drawn; clips are found by (record, start), which ascend."""
    for corpus, clips in enumerate(plan.corpora):
        mine = rows.corpus == corpus
        of_clips = clips.record.astype(np.int64) << 32 | clips.start
        drawn = rows.record[mine].astype(np.int64) << 32 | rows.start[mine]
        counts[corpus] += np.bincount(np.searchsorted(of_clips, drawn), minlength=len(clips))


def _chain(digest: str, step: int, total: int) -> str:
    return hashlib.sha256(f"{digest}/{step}/{total}".encode()).hexdigest()
