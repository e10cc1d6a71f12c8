"""AdamW over parameter groups, a schedule by training progress, and the moving average of the weights (section 6).

Learning rates differ by what a parameter is: pretrained visual encoder, learned corrections of the maps, everything
else. The schedule knows progress in [0, 1], not epochs, so it does not depend on the size of a corpus or of a batch.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Self, cast

import torch
from pydantic import BaseModel, ConfigDict, Field, model_validator
from torch import Tensor, nn

from ssm.model import Backbone, ExpertMlp


class OptimConfig(BaseModel):
    """Learning rates, schedule, regularisation and averaging; the defaults are the method's."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    visual_encoder: float = Field(default=1e-6, ge=0, description="learning rate of the pretrained visual encoder")
    experts: float = Field(
        default=1e-4, ge=0, description="learning rate of the private experts, their gates and scale, in the encoder"
    )
    mapping: float = Field(default=1e-2, ge=0, description="learning rate of the maps' corrections D1 and D2")
    rest: float = Field(default=1e-4, ge=0, description="learning rate of everything else")
    weight_decay: float = Field(default=1e-4, ge=0, description="decoupled weight decay on every parameter")
    milestones: tuple[float, ...] = Field(
        default=(15 / 30, 25 / 30), description="training progress in (0, 1) at which learning rates drop"
    )
    decay: float = Field(default=0.1, gt=0, le=1, description="factor on learning rates at each milestone")
    warmup: float = Field(
        default=0.0, ge=0, lt=1, description="share of the run over which rates rise from 0; for weights from scratch"
    )
    frozen: float = Field(
        default=0.0,
        ge=0,
        lt=0.5,
        description="share of the run over which the visual encoder stands still while everything else learns; its "
        "rate then rises over as long again. For weights from scratch: heads learn first how frequent their labels "
        "are, which an encoder otherwise answers with a vector that all pictures share",
    )
    clip_norm: float = Field(default=1.0, gt=0, description="greatest global norm of the gradient")
    ema: float = Field(default=0.99, ge=0, lt=1, description="momentum of the moving average of the weights")

    @model_validator(mode="after")
    def _milestones_in_order(self) -> Self:
        if list(self.milestones) != sorted(set(self.milestones)) or not all(0 < m < 1 for m in self.milestones):
            raise ValueError(f"milestones are {self.milestones}: must ascend strictly within (0, 1)")
        return self

    def rate(self, group: str, progress: float) -> float:
        """The learning rate of a group (of `GROUPS`) at `progress`."""
        risen = 1.0
        if group == "visual_encoder" and self.frozen:
            risen = min(max(progress / self.frozen - 1.0, 0.0), 1.0)
        return float(getattr(self, group) * risen * self._factor(progress))

    def _factor(self, progress: float) -> float:
        """The schedule's factor on every learning rate (MultiStep)."""
        passed = sum(progress >= milestone - 1e-9 for milestone in self.milestones)
        rise = min(1.0, progress / self.warmup) if self.warmup else 1.0
        return float(rise * self.decay**passed)


GROUPS = ("visual_encoder", "experts", "mapping", "rest")
"""Names of the parameter groups: the fields of `OptimConfig` that hold their learning rates."""


def group_names(model: nn.Module) -> dict[str, str]:
    """The group of every trainable parameter, by parameter name.

    DEVIATION: the rate of 1e-6 protects the encoder's pretrained weights. Experts, and the projection to D where it is
    not the pretrained one (CLIP's is), are drawn at random inside the encoder: they have nothing to protect and would
    hardly leave their start, so they learn as everything else does. The method does not say; `experts=1e-6` is the
    other reading.
    """
    new: dict[int, str] = {}
    for module in model.modules():
        if isinstance(module, ExpertMlp):
            shared = set(module.shared.parameters())
            new |= {id(parameter): "experts" for parameter in module.parameters() if parameter not in shared}
        elif isinstance(module, Backbone) and not _pretrained_projection(module):
            new |= {id(parameter): "rest" for parameter in cast(Any, module.net).get_classifier().parameters()}
    return {name: new.get(id(parameter), _group(name)) for name, parameter in trainable(model).items()}


def _pretrained_projection(backbone: Backbone) -> bool:
    """Whether timm kept the last layer of its pretrained weights: it does where the widths agree."""
    net = cast(Any, backbone.net)
    return backbone.config.pretrained and net.pretrained_cfg["num_classes"] == net.num_classes


def _group(name: str) -> str:
    if name.startswith("backbone."):
        return "visual_encoder"
    return "mapping" if name.endswith(("delta_au_to_fe", "delta_fe_to_au")) else "rest"


def trainable(model: nn.Module) -> dict[str, nn.Parameter]:
    """The parameters that learn, by name; the frozen text tower is none of them."""
    return {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}


def learned_state(model: nn.Module) -> dict[str, Tensor]:
    """The model's own tensors (not copies) that a checkpoint must hold: trainable parameters and buffers."""
    frozen = {name for name, parameter in model.named_parameters() if not parameter.requires_grad}
    return {name: tensor for name, tensor in model.state_dict().items() if name not in frozen}


def make_optimizer(model: nn.Module, config: OptimConfig) -> torch.optim.AdamW:
    """AdamW with one group per entry of `GROUPS` that has parameters, each with its `name`."""
    members: dict[str, list[nn.Parameter]] = {group: [] for group in GROUPS}
    parameters = trainable(model)
    for name, group in group_names(model).items():
        members[group].append(parameters[name])
    groups: list[dict[str, Any]] = [
        {"name": group, "params": params, "lr": getattr(config, group)} for group, params in members.items() if params
    ]
    if not groups:
        raise ValueError("the model has no parameter that requires a gradient: nothing to train")
    return torch.optim.AdamW(groups, weight_decay=config.weight_decay, fused=True)


def set_progress(optimizer: torch.optim.Optimizer, config: OptimConfig, progress: float) -> dict[str, float]:
    """Set every group's learning rate for `progress`; the rates by group name."""
    for group in optimizer.param_groups:
        group["lr"] = config.rate(group["name"], progress)
    return {group["name"]: group["lr"] for group in optimizer.param_groups}


class MovingAverage:
    """Exponential moving average of the trainable weights: average = momentum * average + (1 - momentum) * weight.

    Buffers are not averaged: they are read from the model as they stand.
    """

    def __init__(self, model: nn.Module, momentum: float) -> None:
        self.momentum = momentum
        self._parameters = trainable(model)
        self._average = {name: parameter.detach().clone() for name, parameter in self._parameters.items()}

    @torch.no_grad()
    def update(self) -> None:
        """Take in the weights as they are now."""
        weights = [parameter.detach() for parameter in self._parameters.values()]
        torch._foreach_lerp_(list(self._average.values()), weights, 1 - self.momentum)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Within the block the model holds the averaged weights; afterwards its own, bit for bit."""
        self._swap()
        try:
            yield
        finally:
            self._swap()

    def state_dict(self) -> dict[str, Tensor]:
        """The averages (the live tensors) by parameter name."""
        return dict(self._average)

    @torch.no_grad()
    def _swap(self) -> None:
        for name, parameter in self._parameters.items():
            kept = parameter.detach().clone()
            parameter.copy_(self._average[name])
            self._average[name].copy_(kept)


def check_names(what: str, found: dict[str, Any], expected: dict[str, Any]) -> None:
    """ValueError where the names of a saved state are not those expected."""
    absent, unknown = sorted(expected.keys() - found.keys()), sorted(found.keys() - expected.keys())
    if absent or unknown:
        raise ValueError(
            f"{what} do not fit this model: {len(absent)} absent {absent[:5]}, {len(unknown)} unknown {unknown[:5]}"
        )


def check_shapes(what: str, found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    """ValueError where a saved tensor has another shape than the one it replaces."""
    for name, tensor in expected.items():
        if found[name].shape != tensor.shape:
            raise ValueError(f"{what}: {name} is {tuple(found[name].shape)}, this model needs {tuple(tensor.shape)}")
