"""Weights that start on the first batch: what the layers then give, when it happens, and what comes after it."""

from __future__ import annotations

import copy

import pytest
import tiny_training as tiny
import torch
from torch import Tensor

from ssm.interface import Preprocessing
from ssm.model import Backbone, BackboneConfig, standardised, start_on
from ssm.training.batch import MicroBatch, au_part, fe_part
from ssm.training.collective import SingleProcess
from ssm.training.step import TrainStep


def _outputs(backbone: Backbone, frames: Tensor) -> list[Tensor]:
    """What every convolution gives of these frames, and the projection: C rows of numbers."""
    found: list[Tensor] = []
    modules = [*standardised(backbone), backbone.net.get_classifier()]
    hooks = [m.register_forward_hook(lambda m, i, output: found.append(output.clone())) for m in modules]
    backbone(frames)
    for hook in hooks:
        hook.remove()
    return [output.transpose(0, 1).flatten(1) for output in found]


@pytest.mark.parametrize("name", ["plain_cnn", "nf_resnet26"])
def test_every_layer_gives_the_first_frames_mean_0_and_deviation_1(name: str) -> None:
    torch.manual_seed(0)
    options = {} if name == "plain_cnn" else {"depths": [1, 1, 1, 1], "channels": [8, 8, 8, 8], "alpha": 1.0}
    backbone = Backbone(BackboneConfig(name=name, image_size=64, options=options, experts=None), 16).train()
    frames = 3 + torch.randn(40, 3, 64, 64)
    start_on(backbone.net, frames, SingleProcess().sum)
    for rows in _outputs(backbone, frames):
        deviation = rows.std(1)
        silent = deviation < 1e-4  # the last convolution of a residual branch, which starts at 0
        torch.testing.assert_close(rows.mean(1), torch.zeros(len(rows)), atol=1e-3, rtol=0)
        assert bool((silent | ((deviation - 1).abs() < 0.02)).all())


def test_the_first_step_starts_the_weights_and_no_other_does() -> None:
    config = tiny.fast_with(data_init=True)
    straight = tiny.tiny_step(config, backbone=tiny.PLAIN_CNN)
    drawn = straight.model.get_parameter("backbone.net.stages.0.0.gain").detach().clone()
    tiny.train(straight, range(2))
    started = straight.model.get_parameter("backbone.net.stages.0.0.gain")
    moved = (started / drawn - 1).abs()  # two steps alone move them by 0.002 at most
    assert int((moved > 0.01).sum()) >= moved.numel() - 1, "one channel may have been at its deviation by chance"
    assert moved.max() > 0.1
    state = copy.deepcopy(straight.state_dict())
    resumed = tiny.tiny_step(config, seed=9, backbone=tiny.PLAIN_CNN)
    resumed.load_state_dict(state)
    tiny.train(straight, range(2, 4))
    tiny.train(resumed, range(2, 4))
    for name, tensor in straight.state_dict()["model"].items():
        assert torch.equal(tensor, resumed.state_dict()["model"][name]), name


def test_the_average_begins_with_the_started_weights() -> None:
    still = tiny.FAST.optim.model_copy(update={"visual_encoder": 0.0, "experts": 0.0, "weight_decay": 0.0})
    step = tiny.tiny_step(tiny.fast_with(data_init=True, optim=still), backbone=tiny.PLAIN_CNN)
    tiny.train(step, range(1))
    name = "backbone.net.stages.0.0.gain"
    assert torch.equal(step.average.state_dict()[name], step.model.get_parameter(name).detach())


def test_clips_that_only_fill_up_are_no_part_of_the_start() -> None:
    fe, au = tiny.fe_batch(0), tiny.au_batch(0)
    padded = tiny.part_of(fe, _Second())
    assert (padded.row_ids == tiny.PADDING).any()
    batch = MicroBatch(fe_part(padded), au_part(au, 0.0, 1, 0, SingleProcess()))
    frames = batch.first_frames(Preprocessing(image_size=tiny.SIZE))
    assert len(frames) == int((padded.row_ids != tiny.PADDING).sum()) + len(au.clips)


class _Second(SingleProcess):
    """The first of four workers, who have six clips between them."""

    world, rank = 4, 0


def test_a_backbone_that_cannot_be_started_is_refused_when_the_step_is_made() -> None:
    with pytest.raises(ValueError, match=r"train.data_init is on, but the backbone has no standardised convolution"):
        TrainStep(tiny.tiny_model(), tiny.fast_with(data_init=True), device="cpu")
