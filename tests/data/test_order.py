"""The running hash: the same at any worker count and across restarts, and wrong for every wrong sample."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import numpy as np
import pytest

from ssm.labels.vocabulary import Vocabulary
from ssm_platform.base.hashing import UNREAD, sample_ids
from ssm_platform.data.order import OrderError, OrderHash, Span, clip_keys, verify
from ssm_platform.data.plan import Plan, PlanConfig, Rows
from ssm_platform.records.manifest import Manifest, Record

LABELS = np.zeros((40, 2), np.int8)
MANIFESTS = [
    Manifest.build(
        "/x",
        "dfew",
        "fe",
        Vocabulary(expressions=("fear", "anger")),
        [Record(f"{i:05}", f"{i}.mp4", "video", 0, 9, expression="fear") for i in range(30)],
    ),
    Manifest.build(
        "/x",
        "bp4d",
        "au",
        Vocabulary(aus=(1, 2)),
        [Record(f"F{i:03}_T1", f"{i}.avi", "video", 0, 40, au_labels=LABELS) for i in range(7)],
    ),
]
PLAN = Plan.of(MANIFESTS, PlanConfig(fe_batch=8, au_batch=4))


def samples_of(rows: Rows) -> np.ndarray:
    """What a perfect reader gives, one by one."""
    keys = [clip_keys(manifest) for manifest in MANIFESTS]
    one_by_one = [
        sample_ids(keys[corpus][[record]], np.array([start], np.int32))[0]
        for corpus, record, start in zip(rows.corpus, rows.record, rows.start, strict=True)
    ]
    return np.array(one_by_one, np.int64)


def together(calls: list[Callable[..., Any]]) -> list[Any]:
    """Each call in a thread of its own, with a `combine` that sums over them as a collective does."""
    barrier, parts = threading.Barrier(len(calls)), [np.zeros(0, np.int64)] * len(calls)

    def combine(rank: int, numbers: np.ndarray) -> np.ndarray:
        parts[rank] = numbers
        barrier.wait(10)
        total = np.sum(parts, axis=0)
        barrier.wait(10)
        return total

    with ThreadPoolExecutor(len(calls)) as pool:
        running = [pool.submit(call, combine=partial(combine, rank)) for rank, call in enumerate(calls)]
        return [one.result() for one in running]


def train(
    state: dict[str, Any] | None, first: int, last: int, world: int, black: tuple[int, ...] = ()
) -> dict[str, Any]:
    """Steps first..last-1 by `world` workers, each of which sees its own rows only."""
    workers = [OrderHash(state) for _ in range(world)]
    shares = PLAN.config.shares(world)
    for step in range(first, last):
        rows = PLAN.rows(step, step + 1)
        samples = samples_of(rows)
        samples[np.isin(rows.row, black)] = UNREAD
        dealt = [rows.filled(*mine) for mine in zip(shares.places, shares.tasks, strict=True)]
        calls = [
            partial(worker.update, step, mine.row, np.where(mine.row < 0, UNREAD, samples[places]), world=world)
            for worker, mine, places in zip(workers, dealt, shares.places, strict=True)
        ]
        states = together(calls)
        assert all(state == states[0] for state in states)
    stored: dict[str, Any] = json.loads(json.dumps(states[0]))
    return stored


def test_the_digest_does_not_depend_on_the_number_of_workers_or_on_restarts() -> None:
    straight = train(None, 0, 12, 1)
    broken = train(train(train(None, 0, 3, 4), 3, 8, 1), 8, 12, 5)
    assert straight["digest"] == broken["digest"]
    verdict = verify(PLAN, MANIFESTS, broken)
    assert verdict.spans == (Span(0, 3, 4), Span(3, 8, 1), Span(8, 12, 5))
    assert verdict.rows == 12 * 12
    assert verdict.draws == {"dfew": (30, 3, 4), "bp4d": (21, 2, 3)}
    assert "each used exactly once" in str(verdict)


def test_a_run_rolled_back_to_a_checkpoint_and_repeated_counts_its_steps_once() -> None:
    checkpoint = train(None, 0, 4, 2)
    train(checkpoint, 4, 7, 2)
    assert verify(PLAN, MANIFESTS, train(checkpoint, 4, 9, 1)).steps == 9


def test_black_clips_are_part_of_the_proof_counted_and_named() -> None:
    """They were verified as used, since their identity was told before their pixels were read."""
    black = (2, 11, 12, 40)
    state = train(train(None, 0, 3, 4, black), 3, 6, 1, black)
    assert state["unread"] == list(black)
    verdict = verify(PLAN, MANIFESTS, state)
    assert sum(verdict.unread.values()) == len(black)
    assert "each used exactly once, but 4 without pixels" in str(verdict)
    rows = PLAN.rows(0, 4)
    named = {
        f"{MANIFESTS[rows.corpus[row]].corpus}/{MANIFESTS[rows.corpus[row]][rows.record[row]].clip}" for row in black
    }
    assert set(verdict.unread) == named
    for lie in ([], list(black[1:]), [*black, 50]):
        with pytest.raises(OrderError, match="other samples"):
            verify(PLAN, MANIFESTS, {**state, "unread": lie})
    assert state["digest"] != train(None, 0, 6, 1)["digest"]


def test_a_proof_of_an_earlier_version_still_holds() -> None:
    state = train(None, 0, 6, 2)
    del state["unread"]
    assert verify(PLAN, MANIFESTS, state).unread == {}


def swap_two_rows(rows: np.ndarray, samples: np.ndarray) -> None:
    samples[[0, 5]] = samples[[5, 0]]


def repeat_a_sample(rows: np.ndarray, samples: np.ndarray) -> None:
    samples[1] = samples[0]


def use_another_row(rows: np.ndarray, samples: np.ndarray) -> None:
    rows[3] += 12


@pytest.mark.parametrize("spoil", [swap_two_rows, repeat_a_sample, use_another_row])
def test_any_other_sample_is_found_and_the_span_named(spoil: Callable[[np.ndarray, np.ndarray], None]) -> None:
    order = OrderHash(train(None, 0, 3, 2))
    for step in range(3, 6):
        rows = PLAN.rows(step, step + 1)
        columns = rows.row.copy(), samples_of(rows)
        if step == 4:
            spoil(*columns)
        state = order.update(step, *columns)
    with pytest.raises(OrderError, match=r"steps 3\.\.5: other samples"):
        verify(PLAN, MANIFESTS, state)


def test_a_skipped_or_repeated_step_is_refused_at_once() -> None:
    order = OrderHash(train(None, 0, 3, 1))
    rows = PLAN.rows(3, 4)
    for step in (2, 4):
        with pytest.raises(OrderError, match=f"step {step} after 3 steps"):
            order.update(step, rows.row, samples_of(rows))


def test_verify_notices_missing_rows_and_another_plan() -> None:
    state = train(None, 0, 3, 1)
    with pytest.raises(OrderError, match="must be 12 in each"):
        verify(PLAN, MANIFESTS, {**state, "rows": 35})
    other = Plan(PLAN.corpora, PLAN.config.model_copy(update={"seed": 9}))
    with pytest.raises(OrderError, match=r"steps 0\.\.2"):
        verify(other, MANIFESTS, state)
