"""A step on a GPU never makes the host wait, and a compiled step is compiled once. The former skips without a GPU."""

from __future__ import annotations

from functools import partial

import pytest
import tiny_training as tiny
import torch
from torch._dynamo.testing import CompileCounter

from ssm.model.config import TextConfig
from ssm.training.step import TrainStep


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize(
    ("run", "changes"),
    [
        ("plain", {}),
        ("plain", {"accumulation": 2}),
        ("plain", {"precision": "bfloat16"}),
        ("hiva_evidential", {}),
        ("cvae_evidential", {"precision": "bfloat16"}),
    ],
    ids=str,
)
def test_a_step_waits_for_nothing(run: str, changes: dict[str, object]) -> None:
    model = tiny.tiny_model(**tiny.model_of(run))
    step = TrainStep(model, tiny.fast_with(**changes, compile=False), device="cuda")
    tiny.train(step, range(2))  # the first finds where the losses start
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        tiny.train(step, range(2, 4))
    finally:
        torch.cuda.set_sync_debug_mode("default")
    step.check()


def test_a_compiled_step_is_compiled_once_for_each_size_of_slice(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither another key nor another step is a reason to compile again."""
    counter = CompileCounter()
    torch.compiler.reset()
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend=counter))
    model = tiny.tiny_model(text=TextConfig(tower=None))
    step = TrainStep(model, tiny.fast_with(compile=True, accumulation=4), device="cpu")
    tiny.train(step, range(1))
    once = counter.frame_count
    assert once == 2, "four slices of six and four clips come in two sizes"
    tiny.train(step, range(1, 4))
    assert counter.frame_count == once
