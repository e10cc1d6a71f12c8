"""Every `train.*` field acts: two runs that differ in it alone end with other weights, averages or path of execution.

The leaves come from the schema: a new field without a row fails. Steps 10 to 12 of 20 are taken, past the first
milestone and high on the ramp, so that everything which depends on progress has its say.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from functools import cache
from typing import Any

import pytest
import tiny_training as tiny
import torch

from ssm.model.config import AUReaderConfig
from ssm.training.step import TrainConfig
from ssm_platform.base.overrides import describe_fields, override

STEPS, TOTAL = range(10, 13), 20
Observe = Callable[[TrainConfig], Any]


pytestmark = pytest.mark.usefixtures("one_thread")  # equal settings must be bit-equal, or a difference proves nothing


@cache
def weights(config: TrainConfig) -> str:
    """Digest of the model's own weights after the steps."""
    return _trained(config)[0]


@cache
def averages(config: TrainConfig) -> str:
    """Digest of the averaged weights after the steps."""
    return _trained(config)[1]


def evidential(config: TrainConfig) -> str:
    """As `weights`, of a model that gives Beta evidence."""
    return _trained(config, "evidential")[0]


def latent(config: TrainConfig) -> str:
    """As `weights`, of a model with a latent variable."""
    return _trained(config, "cvae_evidential")[0]


def started(config: TrainConfig) -> str:
    """As `weights`, after the first step of a network that can be started on data."""
    step = tiny.tiny_step(config, backbone=tiny.PLAIN_CNN)
    tiny.train(step, range(1), TOTAL)
    return _digest(step.state_dict()["model"])


@cache
def _trained(config: TrainConfig, reader: str = "linear") -> tuple[str, str]:
    step = tiny.tiny_step(config, au_reader=AUReaderConfig(kind=reader))
    tiny.train(step, STEPS, TOTAL)
    state = step.state_dict()
    return _digest(state["model"]), _digest(state["average"])


@cache
def affect_weights(config: TrainConfig) -> str:
    """Digest of the weights of a model with valence and arousal."""
    step = tiny.tiny_step(config, **tiny.WITH_AFFECT)
    tiny.train(step, range(2), run="affect")
    return _digest(step.state_dict()["model"])


def _digest(tensors: dict[str, torch.Tensor]) -> str:
    return hashlib.sha256(b"".join(tensor.numpy().tobytes() for tensor in tensors.values())).hexdigest()


def clips_per_pass(config: TrainConfig) -> list[int]:
    """AU clips in each forward pass with gradient of one step."""
    step, seen = tiny.tiny_step(config), []
    step.model.register_forward_pre_hook(
        lambda _, __, inputs: seen.append(len(inputs["au_clips"])) if torch.is_grad_enabled() else None,
        with_kwargs=True,
    )
    tiny.train(step, range(1))
    return seen


def passes_through_the_compiler(config: TrainConfig) -> list[str]:
    """The mode of each pass of one step through what `torch.compile` gave; it stands for the compiler here."""
    passes: list[str] = []

    def compiler(model: Any, mode: str | None = None, **_: Any) -> Callable[..., Any]:
        def compiled(**inputs: Any) -> Any:
            passes.append(mode or "default")
            return model(**inputs)

        return compiled

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch, "compile", compiler)
        tiny.train(tiny.tiny_step(config), range(1))
    return passes


MAL = {"sample_weighting": "mal"}
FIELDS: dict[str, tuple[dict[str, Any], Any, Observe]] = {
    # what both runs have, the other value, what it must change
    "optim.visual_encoder": ({}, 5e-3, weights),
    "optim.experts": ({}, 5e-3, weights),
    "optim.mapping": ({}, 5e-3, weights),
    "optim.rest": ({}, 5e-3, weights),
    "optim.weight_decay": ({}, 0.5, weights),
    "optim.milestones": ({}, (0.9,), weights),
    "optim.decay": ({}, 0.5, weights),
    "optim.warmup": ({}, 0.9, weights),
    "optim.frozen": ({}, 0.4, weights),
    "optim.clip_norm": ({}, 1e-3, weights),
    "optim.ema": ({}, 0.5, averages),
    "data_init": ({}, True, started),
    "loss.fe": ({}, 3.0, weights),
    "loss.fe_smoothing": ({}, 0.5, weights),
    "loss.au": ({}, 5.0, weights),
    "loss.fe_semantic": ({}, 3.0, weights),
    "loss.au_semantic": ({}, 3.0, weights),
    "loss.au_from": ({}, 0.9, weights),
    "loss.au_rise": ({}, 1.0, weights),
    "loss.map_evidence": ({}, 1.0, weights),
    "loss.prevalence": ({}, (0.1, 0.2, 0.3, 0.4), weights),
    "loss.evidential.form": ({}, "type2", evidential),
    "loss.evidential.regulariser": ({}, 1.0, evidential),
    "loss.evidential.ramp": ({}, 1.0, evidential),
    "loss.latent.posterior": ({}, 0.9, latent),
    "loss.latent.divergence": ({}, 1.0, latent),
    "loss.latent.ramp": ({}, 1.0, latent),
    "loss.affect": ({}, 3.0, affect_weights),
    "loss.ramp": ({}, 1.0, weights),
    "loss.momentum": ({}, 0.2, weights),
    "mixup_alpha": ({}, 0.0, weights),
    "au_partners": ({}, "faces", weights),
    "expression_teacher": ({}, 0.1, weights),
    "precision": ({}, "bfloat16", weights),
    "compile": ({}, True, passes_through_the_compiler),
    "compile_mode": ({"compile": True}, "reduce-overhead", passes_through_the_compiler),
    "accumulation": ({}, 2, clips_per_pass),
    "seed": ({}, 2, weights),
    "sample_weighting": ({}, "mal", weights),
    "mal.rate": (MAL, 0.1, weights),
    "mal.virtual_rate": (MAL, 5.0, weights),
    "mal.hidden": (MAL, 8, weights),
}


def test_the_table_has_a_row_for_every_field() -> None:
    assert {field.path for field in describe_fields(TrainConfig)} == set(FIELDS)


def test_equal_settings_end_bit_equal() -> None:
    assert _trained.__wrapped__(tiny.FAST) == _trained.__wrapped__(tiny.FAST)


@pytest.mark.parametrize("field", FIELDS)
def test_a_field_changes_the_training(field: str) -> None:
    common, value, observe = FIELDS[field]
    base = override(tiny.FAST, common)
    assert observe(base) != observe(override(base, {field: value}))


def test_the_average_alone_follows_its_momentum() -> None:
    assert weights(tiny.FAST) == weights(override(tiny.FAST, {"optim.ema": 0.5}))
