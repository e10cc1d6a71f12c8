"""Clips of many callers into one pass: everyone's own answers, full batches, turns, errors, callers that leave."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Hashable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from serve.replicas.batching import Batcher
from ssm_platform.read.windows import ClipAnswers

Run = Callable[..., Any]


class Passes:
    """A model that says what it was given."""

    def __init__(self) -> None:
        self.sizes: list[tuple[Hashable, int]] = []

    def read(self, key: Hashable, clips: NDArray[np.uint8]) -> ClipAnswers:
        self.sizes.append((key, len(clips)))
        if (clips == 255).any():
            raise ValueError("a clip of 255")
        value = clips.reshape(len(clips), -1)[:, :1].astype(np.float32)
        return ClipAnswers(value[:, None], value, None)


def clips(*values: int) -> NDArray[np.uint8]:
    return np.array(values, np.uint8).reshape(-1, 1, 1, 1, 1)


def test_everyone_gets_their_own_answers_and_batches_fill_while_a_pass_runs(run: Run) -> None:
    passes = Passes()
    batcher = Batcher(passes.read, most=4)

    async def ask() -> list[ClipAnswers]:
        return await asyncio.gather(*(batcher.submit("m", clips(n, n + 1)) for n in range(9)))

    answers = run(ask())
    assert [answer.expression.ravel().tolist() for answer in answers] == [[n, n + 1] for n in range(9)]
    assert max(size for _, size in passes.sizes) == 4
    assert len(passes.sizes) <= 6
    assert batcher.waiting == 0


def test_a_large_request_lets_others_pass_between_its_pieces(run: Run) -> None:
    passes = Passes()
    batcher = Batcher(passes.read, most=2)
    done: list[str] = []

    async def ask(name: str, *values: int) -> None:
        await batcher.submit(name, clips(*values))
        done.append(name)

    async def both() -> None:
        await asyncio.gather(ask("large", *range(20)), ask("small", 1))

    run(both())
    assert done == ["small", "large"]
    assert [key for key, _ in passes.sizes[:3]] == ["large", "small", "large"]


def test_models_are_not_mixed_large_requests_are_cut_and_errors_reach_their_pass_only(run: Run) -> None:
    passes = Passes()
    batcher = Batcher(passes.read, most=4)

    async def ask() -> list[Any]:
        asked = [("a", clips(*range(10))), ("b", clips(1)), ("a", clips(2)), ("c", clips(255)), ("b", clips(3))]
        return await asyncio.gather(*(batcher.submit(*each) for each in asked), return_exceptions=True)

    answers = run(ask())
    assert answers[0].expression.ravel().tolist() == list(range(10))
    assert isinstance(answers[3], ValueError)
    assert [answers[i].expression.item() for i in (1, 2, 4)] == [1, 2, 3]
    assert all(size <= 4 for _, size in passes.sizes)


def test_a_caller_that_left_costs_no_pass(run: Run) -> None:
    passes = Passes()
    batcher = Batcher(passes.read, most=1)

    async def ask() -> None:
        tasks = [asyncio.create_task(batcher.submit("m", clips(n))) for n in range(4)]
        await asyncio.sleep(0)
        for task in tasks[1:]:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await batcher.submit("m", clips(9))

    run(ask())
    assert len(passes.sizes) == 2
