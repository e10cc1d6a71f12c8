"""Weights that start on data: convolutions and projection give the first pictures mean 0 and deviation 1.

Salimans & Kingma (2016, section 3), Mishkin & Matas (2016). Pictures of faces are nearly alike; what a net from scratch
makes of them is a large vector that all share and small differences. Batch normalisation subtracts the shared part at
every step, at the price of answers that depend on the batch; this subtracts it once, at the start.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import torch
from timm.layers.std_conv import ScaledStdConv2d
from torch import Tensor, nn

Total = Callable[[Tensor], Tensor]

_EPS = 1e-6  # to the variance: a channel that shows nothing keeps its size


def standardised(net: nn.Module) -> list[ScaledStdConv2d]:
    """The convolutions that can be started; ValueError where there are none."""
    found = [module for module in net.modules() if isinstance(module, ScaledStdConv2d)]
    if not found:
        raise ValueError(
            "train.data_init is on, but the backbone has no standardised convolution to start: take one that has "
            "(plain_cnn, nf_resnet26, ...) or leave it off"
        )
    return found


@torch.no_grad()
def start_on(net: nn.Module, frames: Tensor, total: Total) -> None:
    """Sets gain and bias of each `standardised` convolution, then weight and bias of the projection, in the order in
    which frames (F, 3, S, S) pass them.

    `total` sums a tensor over workers: moments are over all their frames, so that they start alike.
    """

    def settle(module: Any, _: Any, output: Tensor) -> Tensor:
        mean_C, deviation_C = _moments(output.double(), total)
        scale = module.gain if isinstance(module, ScaledStdConv2d) else module.weight
        scale.div_(_along(deviation_C, 0, scale.ndim))
        module.bias.sub_(mean_C).div_(deviation_C)
        return ((output - _along(mean_C, 1, output.ndim)) / _along(deviation_C, 1, output.ndim)).to(output.dtype)

    modules = [*standardised(net), cast(Any, net).get_classifier()]
    hooks = [module.register_forward_hook(settle) for module in modules]
    try:
        net(frames)
    finally:
        for hook in hooks:
            hook.remove()


def _moments(output: Tensor, total: Total) -> tuple[Tensor, Tensor]:
    """Mean and deviation of each channel (float64 F, C ...) over frames and places of all workers."""
    rows = output.flatten(2) if output.ndim > 2 else output[:, :, None]
    count_C = rows.new_full((rows.shape[1],), rows[:, 0].numel())
    sums_C = torch.stack([rows.sum((0, 2)), rows.square().sum((0, 2)), count_C])
    total_C, squares_C, count_C = total(sums_C)
    mean_C = total_C / count_C
    return mean_C, (squares_C / count_C - mean_C.square()).clamp_min(0).add(_EPS).sqrt()


def _along(values_C: Tensor, axis: int, axes: int) -> Tensor:
    """Values of each channel, shaped to meet a tensor of so many axes at `axis`."""
    return values_C.view(*[1] * axis, -1, *[1] * (axes - axis - 1))
