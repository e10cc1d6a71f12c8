"""The small convolutional backbone against its equations, written out in double precision."""

from __future__ import annotations

from math import sqrt

import pytest
import timm
import torch
from torch import Tensor
from torch.nn import functional

from ssm.model import BackboneConfig
from ssm.model.backbone import Backbone

CONFIG = BackboneConfig(name="plain_cnn", image_size=16, options={"channels": (4, 6)}, experts=None)


def _convolved(x: Tensor, weight: Tensor, gain: Tensor, bias: Tensor) -> Tensor:
    """Each filter brought to mean 0 and variance 1 / fan-in, times its gain and what a ReLU takes of the size."""
    rows = []
    for filter_, own in zip(weight, gain.flatten(), strict=True):
        centred = filter_ - filter_.mean()
        relu_deviation = sqrt((1 - 1 / torch.pi) / 2)
        rows.append(own / relu_deviation * centred / (centred.square().mean() * centred.numel()).sqrt())
    return functional.conv2d(x, torch.stack(rows), bias, padding=1).clamp_min(0)


def test_the_network_is_its_equations() -> None:
    torch.manual_seed(0)
    net = Backbone(CONFIG, 5).net.double().eval()
    weights = {name: value.detach() for name, value in net.named_parameters()}
    for name in weights:
        if name.endswith(("gain", "bias")):
            weights[name].normal_()
    frames = torch.randn(3, 3, 16, 16, dtype=torch.float64)
    x = frames
    for stage, layers in enumerate(((0, 1), (3, 4))):
        if stage:
            x = functional.max_pool2d(x, 2)
        for layer in layers:
            x = _convolved(x, *(weights[f"stages.{layer}.0.{part}"] for part in ("weight", "gain", "bias")))
    wanted = functional.linear(x.mean((2, 3)), weights["head.fc.weight"], weights["head.fc.bias"])
    # timm adds 1e-6 to the variance of a filter
    torch.testing.assert_close(net(frames), wanted, rtol=1e-3, atol=1e-3)


def test_an_answer_is_the_frames_own_in_training_too() -> None:
    torch.manual_seed(0)
    net = Backbone(CONFIG, 5).train()
    frames = torch.randn(4, 3, 16, 16)
    torch.testing.assert_close(net(frames).pooled[1:2], net(frames[1:2]).pooled)


def test_widths_that_are_none_are_refused() -> None:
    with pytest.raises(ValueError, match=r"channels is \(\); a plain_cnn needs one positive width a stage"):
        timm.create_model("plain_cnn", channels=())
