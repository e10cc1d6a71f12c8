"""Meta auxiliary learning: the virtual step is what it says, weights learn to help AUs, runs resume bit for bit."""

from __future__ import annotations

from pathlib import Path

import pytest
import tiny_training as tiny
import torch
from torch import nn

from ssm.training.batch import au_part, fe_part
from ssm.training.collective import SingleProcess
from ssm.training.mal import GlobalFeatures, MALConfig, SampleWeighting, WeightingScope, projection
from ssm.training.step import TrainStep

MAL = tiny.fast_with(sample_weighting="mal", mal=MALConfig(rate=1e-2))


def _weighting(config: MALConfig) -> SampleWeighting:
    scope = WeightingScope(
        1, torch.device("cpu"), SingleProcess(), TrainStep(tiny.tiny_model(), MAL, device="cpu").preprocessing
    )
    return SampleWeighting(tiny.tiny_model(), config, scope)


def _batch(weighting: SampleWeighting) -> GlobalFeatures:
    fe, au = fe_part(tiny.fe_batch(0)), au_part(tiny.au_batch(0), 0.4, 1, 0, SingleProcess())
    return weighting.gather(fe, au, key=5, slices=2)


def test_the_gradient_through_the_virtual_step_is_that_of_finite_differences() -> None:
    weighting = _weighting(MALConfig(virtual_rate=0.5))
    batch = _batch(weighting)
    weights = torch.ones(tiny.FE_BATCH, requires_grad=True)
    (gradient,) = torch.autograd.grad(weighting.au_loss_after(batch, weights), weights)
    assert gradient.abs().max() > 0
    for clip in range(tiny.FE_BATCH):
        nudge = 0.5 * nn.functional.one_hot(torch.tensor(clip), tiny.FE_BATCH)
        up, down = (float(weighting.au_loss_after(batch, weights.detach() + sign * nudge).detach()) for sign in (1, -1))
        assert up - down == pytest.approx(float(gradient[clip]), rel=0.05, abs=2e-6)


def test_learned_weights_lower_the_au_loss_after_the_virtual_step() -> None:
    weighting = _weighting(MALConfig(rate=1e-2, virtual_rate=0.5))
    fe, au = fe_part(tiny.fe_batch(0)), au_part(tiny.au_batch(0), 0.4, 1, 0, SingleProcess())
    for _ in range(40):
        weights = weighting(fe, au, key=5, slices=1)
    batch = weighting.gather(fe, au, key=5, slices=1)
    assert weights.mean() == pytest.approx(1, abs=1e-5)
    assert weights.min() >= 0
    assert weights.max() - weights.min() > 0.5
    assert weighting.au_loss_after(batch, weights) < weighting.au_loss_after(batch, torch.ones_like(weights))


def test_a_virtual_step_with_learned_weights_lowers_the_au_loss() -> None:
    weighting = _weighting(MALConfig(rate=1e-2, virtual_rate=3e-3))
    fe, au = fe_part(tiny.fe_batch(0)), au_part(tiny.au_batch(0), 0.4, 1, 0, SingleProcess())
    for _ in range(10):
        weights = weighting(fe, au, key=5, slices=1)
    batch = weighting.gather(fe, au, key=5, slices=1)
    with torch.no_grad():
        _, before = weighting._losses(batch, *weighting._shared())
    equal = weighting.au_loss_after(batch, torch.ones_like(weights))
    assert weighting.au_loss_after(batch, weights) < equal < before


def test_a_clip_that_could_not_be_read_has_no_weight() -> None:
    weighting = _weighting(MALConfig(rate=1e-2))
    clips = tiny.fe_batch(0)
    tiny.unread(clips, 1)
    weights = weighting(
        fe_part(clips), au_part(tiny.au_batch(0), 0.4, 1, 0, SingleProcess()), key=5, slices=1
    )  # fmt: skip
    assert weights[1] == 0
    assert weights.sum() == pytest.approx(tiny.FE_BATCH - 1, rel=1e-5)


def test_weights_start_nearly_equal_and_need_no_global_randomness() -> None:
    before = torch.random.get_rng_state()
    weighting = _weighting(MALConfig(rate=1e-6))
    assert torch.equal(before, torch.random.get_rng_state())
    weights = weighting(
        fe_part(tiny.fe_batch(0)), au_part(tiny.au_batch(0), 0.4, 1, 0, SingleProcess()), key=5, slices=1
    )
    assert weights == pytest.approx(torch.ones(tiny.FE_BATCH), abs=1e-3)


def test_resumed_run_equals_the_straight_run_bit_for_bit(tmp_path: Path) -> None:
    straight, half, resumed = (TrainStep(tiny.tiny_model(), MAL, device="cpu") for _ in range(3))
    expected = tiny.train(straight, range(5))
    tiny.train(half, range(2))
    torch.save(half.state_dict(), tmp_path / "state.pt")
    resumed.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    assert tiny.train(resumed, range(2, 5))[-1].floats() == expected[-1].floats()
    for one, other in zip(
        straight.state_dict()["weighting"]["network"].values(),
        resumed.state_dict()["weighting"]["network"].values(),
        strict=True,
    ):
        assert torch.equal(one, other)


def test_a_single_side_trains_without_weights() -> None:
    step = TrainStep(tiny.tiny_model(), MAL, device="cpu")
    assert set(step(tiny.fe_batch(0), None, 0, 5).losses) == {"fe", "fe_semantic"}


def test_models_it_cannot_serve_are_refused() -> None:
    with pytest.raises(ValueError, match="needs an SSM model, got Linear"):
        TrainStep(nn.Linear(2, 2), MAL, device="cpu")
    model = tiny.tiny_model()
    model.backbone.net.head = nn.Identity()
    with pytest.raises(ValueError, match=r"ends in a linear layer; .* ends in Identity"):
        projection(model)
