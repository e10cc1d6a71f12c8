"""Parameter groups on the real model, schedule by progress, AdamW, and the average of the weights."""

from __future__ import annotations

import pytest
import torch
from pydantic import ValidationError
from tiny_training import tiny_model
from torch import nn

from ssm.training.optim import (
    MovingAverage,
    OptimConfig,
    group_names,
    learned_state,
    make_optimizer,
    set_progress,
    trainable,
)


def test_every_trainable_parameter_of_the_model_is_in_the_group_of_its_kind() -> None:
    model = tiny_model()
    groups = group_names(model)
    assert groups.keys() == trainable(model).keys()
    assert {name for name, group in groups.items() if group == "mapping"} == {
        "mapping.delta_au_to_fe",
        "mapping.delta_fe_to_au",
    }
    experts = {name for name, group in groups.items() if group == "experts"}
    assert all(".blocks.1.mlp." in name and ".shared." not in name for name in experts)
    assert {name.rsplit("mlp.")[1] for name in experts} == {
        "w1", "b1", "w2", "b2", "alpha", "gate.weight", "gate.bias"
    }  # fmt: skip
    encoder = {name for name, group in groups.items() if group == "visual_encoder"}
    new = {"backbone.net.head.weight", "backbone.net.head.bias"}  # not pretrained
    assert encoder == {name for name in groups if name.startswith("backbone.")} - experts - new
    assert {groups[name] for name in new} == {"rest"}


@pytest.mark.parametrize(("classes", "group"), [(16, "visual_encoder"), (1000, "rest")])
def test_a_projection_that_timm_kept_is_part_of_the_encoder(classes: int, group: str) -> None:
    model = tiny_model()
    model.backbone.config = model.backbone.config.model_copy(update={"pretrained": True})
    model.backbone.net.pretrained_cfg = {"num_classes": classes}
    assert group_names(model)["backbone.net.head.weight"] == group


def test_optimizer_holds_each_parameter_once_with_the_methods_settings() -> None:
    model = tiny_model()
    optimizer = make_optimizer(model, OptimConfig())
    rates = {group["name"]: (group["lr"], group["weight_decay"]) for group in optimizer.param_groups}
    assert rates == {
        "visual_encoder": (1e-6, 1e-4), "experts": (1e-4, 1e-4), "mapping": (1e-2, 1e-4), "rest": (1e-4, 1e-4)
    }  # fmt: skip
    held = [id(parameter) for group in optimizer.param_groups for parameter in group["params"]]
    assert sorted(held) == sorted(id(parameter) for parameter in model.parameters() if parameter.requires_grad)


def test_a_frozen_encoder_stands_still_then_rises_while_the_rest_learns() -> None:
    config = OptimConfig(visual_encoder=1.0, rest=2.0, frozen=0.1, milestones=(0.5,), decay=0.5)
    shares = (0.0, 0.1, 0.15, 0.2, 0.4, 0.5)
    assert [config.rate("visual_encoder", at) for at in shares] == pytest.approx([0, 0, 0.5, 1, 1, 0.5])
    assert [config.rate("rest", at) for at in shares] == [2, 2, 2, 2, 2, 1]


def test_frozen_parameters_are_neither_optimised_nor_saved() -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    model[0].requires_grad_(False)
    assert {group["name"] for group in make_optimizer(model, OptimConfig()).param_groups} == {"rest"}
    assert set(learned_state(model)) == {f"1.{n}" for n in ("weight", "bias", "running_mean", "running_var")} | {
        "1.num_batches_tracked"
    }
    with pytest.raises(ValueError, match="nothing to train"):
        make_optimizer(nn.Linear(2, 2).requires_grad_(False), OptimConfig())


def test_rates_drop_at_milestones_of_progress() -> None:
    config = OptimConfig(rest=1.0)
    optimizer = make_optimizer(nn.Linear(2, 2), config)
    rates = [set_progress(optimizer, config, step / 30)["rest"] for step in range(30)]
    assert rates == pytest.approx([1.0] * 15 + [0.1] * 10 + [0.01] * 5)
    assert optimizer.param_groups[0]["lr"] == pytest.approx(0.01)


def test_rates_rise_over_the_first_share_of_a_run() -> None:
    config = OptimConfig(rest=1.0, warmup=0.25)
    optimizer = make_optimizer(nn.Linear(2, 2), config)
    rates = [set_progress(optimizer, config, step / 20)["rest"] for step in range(10)]
    assert rates == pytest.approx([0.0, 0.2, 0.4, 0.6, 0.8, 1.0, 1.0, 1.0, 1.0, 1.0])
    assert set_progress(optimizer, config, 0.5)["rest"] == pytest.approx(0.1)  # and then fall as without


def test_the_first_step_of_a_warm_up_moves_nothing_but_starts_the_moments() -> None:
    model, config = nn.Linear(2, 2), OptimConfig(warmup=0.5)
    optimizer, before = make_optimizer(model, config), model.weight.detach().clone()
    model(torch.ones(1, 2)).sum().backward()
    set_progress(optimizer, config, 0.0)
    optimizer.step()
    assert torch.equal(model.weight, before)
    assert optimizer.state[model.weight]["exp_avg"].abs().sum() > 0


def test_the_optimiser_is_the_fused_one() -> None:
    assert make_optimizer(nn.Linear(2, 2), OptimConfig()).defaults["fused"] is True  # the CPU has one too


@pytest.mark.parametrize("milestones", [(0.8, 0.5), (0.5, 0.5), (0.0,), (1.0,)])
def test_milestones_must_ascend_within_training(milestones: tuple[float, ...]) -> None:
    with pytest.raises(ValidationError, match="must ascend strictly within"):
        OptimConfig(milestones=milestones)


def test_average_follows_its_formula_and_swaps_bit_for_bit() -> None:
    model = nn.Linear(3, 2)
    average = MovingAverage(model, 0.9)
    expected = model.weight.detach().clone()
    for _ in range(3):
        with torch.no_grad():
            model.weight += torch.randn(2, 3)
        average.update()
        expected = 0.9 * expected + 0.1 * model.weight.detach()
    own = model.weight.detach().clone()
    with average.applied():
        torch.testing.assert_close(model.weight.detach(), expected)
    assert torch.equal(model.weight, own)
    torch.testing.assert_close(average.state_dict()["weight"], expected)
