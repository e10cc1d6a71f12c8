"""The loop of one worker: cadence, resume, and refusal of any batch that is not the plan's."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from tiny_training import AU_BATCH, FE_BATCH, au_batch, fe_batch, tiny_step

from ssm_platform.data.order import OrderError
from ssm_platform.train.ahead import ahead
from ssm_platform.train.checkpoints import detached
from ssm_platform.train.loop import Batch, Loop, Outlets, Position, Schedule

NEEDS_GPU = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
GLOBAL = FE_BATCH + AU_BATCH


def schedule(total: int = 9) -> Schedule:
    return Schedule(total=total, global_batch=GLOBAL, log_every=2, validate_every=4, checkpoint_every=3)


def feed(first: int, last: int) -> Iterator[Batch]:
    for step in range(first, last):
        rows = np.arange(step * GLOBAL, (step + 1) * GLOBAL)
        yield Batch(rows, rows * 7, fe_batch(step), au_batch(step))


def loop(outlets: Outlets | None = None, total: int = 9) -> Loop:
    return Loop(
        step=tiny_step(),
        schedule=schedule(total),
        position=Position(),
        validate=lambda model, stream: {"score": float(not model.training)},
        outlets=outlets or Outlets(),
        places=np.arange(GLOBAL),
    )


def flat(state: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    items = state.items() if isinstance(state, dict) else enumerate(state) if isinstance(state, list) else None
    if items is None:
        yield prefix, state
        return
    for key, value in items:
        yield from flat(value, f"{prefix}.{key}")


def same(one: dict[str, Any], other: dict[str, Any]) -> list[str]:
    """Names of what differs in two states, bit for bit."""
    left, right = dict(flat(one)), dict(flat(other))
    assert left.keys() == right.keys()
    equal = {
        name: torch.equal(value, right[name]) if isinstance(value, torch.Tensor) else value == right[name]
        for name, value in left.items()
    }
    return [name for name, value in equal.items() if not value]


def test_a_loop_that_goes_on_from_a_checkpoint_ends_bit_equal() -> None:
    saved: dict[int, dict[str, Any]] = {}
    straight = loop(Outlets(checkpoint=lambda state, done, score: saved.__setitem__(done, detached(state))))
    straight.run(feed(0, 9))
    resumed = loop()
    resumed.load(saved[4])
    resumed.run(feed(4, 9))
    assert same(straight.state()["train"], resumed.state()["train"]) == []
    assert straight.position.curves == resumed.position.curves
    assert resumed.position.order.state["digest"] == straight.position.order.state["digest"]


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=NEEDS_GPU)])
def test_batches_copied_ahead_are_those_that_came(device: str) -> None:
    for batch, found in zip(feed(0, 5), ahead(feed(0, 5), torch.device(device)), strict=True):
        assert (batch.rows == found.rows).all()
        assert found.fe is not None
        assert batch.fe is not None
        assert found.fe.clips.device.type == device
        assert torch.equal(found.fe.clips.cpu(), batch.fe.clips)


def test_what_happens_when() -> None:
    logged, checkpoints, reported = [], [], []
    outlets = Outlets(
        log=lambda step, scalars: logged.append((step, "validation/score" in scalars)),
        checkpoint=lambda state, done, score: checkpoints.append((done, score)),
        report=lambda metrics: reported.append(metrics["step"]),
    )
    done = loop(outlets).run(feed(0, 9))
    assert done.done == 9
    assert checkpoints == [(3, None), (4, 1.0), (6, None), (8, 1.0), (9, 1.0)]
    assert reported == [4, 8, 9]
    assert logged == [(2, False), (4, False), (4, True), (6, False), (8, False), (8, True), (9, False), (9, True)]
    assert [point["step"] for point in done.curves] == [step for step, _ in logged]


@pytest.mark.parametrize(
    ("batches", "message"),
    [
        (feed(1, 9), r"step 0.*plan has \[0 1 2\]\.\. \(10\)"),
        ([*feed(0, 2), *feed(3, 9)], r"step 2.*plan has \[20 21 22\]"),
        ([*feed(0, 2), *feed(1, 9)], "step 2"),
        (feed(0, 5), "ended after step 5 of 9"),
    ],
)
def test_any_other_batch_than_the_plans_is_refused(batches: Iterator[Batch], message: str) -> None:
    with pytest.raises(OrderError, match=message):
        loop().run(batches)
