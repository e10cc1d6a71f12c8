"""Valence and arousal in training: the loss is the batch's CCC in value and gradient, however the batch is cut."""

from __future__ import annotations

import copy
import math

import pytest
import tiny_training as tiny
import torch
from torch import Tensor

from ssm.model import LabelAffect
from ssm.training.batch import va_part
from ssm.training.collective import SingleProcess
from ssm.training.losses.concordance import Moments, concordance_loss, moments

pytestmark = pytest.mark.usefixtures("one_thread")


def drawn(clips: int = 6, frames: int = 5) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(4)
    p = torch.rand(clips, frames, 2, generator=generator, dtype=torch.float64) * 2 - 1
    y = torch.rand(clips, frames, 2, generator=generator, dtype=torch.float64) * 2 - 1
    w = (torch.rand(clips, frames, 2, generator=generator) > 0.3).double()
    return p.requires_grad_(), y, w


def slow_loss(p: Tensor, y: Tensor, w: Tensor) -> Tensor:
    """1 - CCC by its definition, with autograd through every moment; the mean over the two dimensions."""
    losses = []
    for column in range(2):
        share = w[..., column] / w[..., column].sum()
        x, t = p[..., column], y[..., column]
        mx, mt = (share * x).sum(), (share * t).sum()
        vx, vt = (share * (x - mx) ** 2).sum(), (share * (t - mt) ** 2).sum()
        losses.append(1 - 2 * (share * (x - mx) * (t - mt)).sum() / (vx + vt + (mx - mt) ** 2))
    return torch.stack(losses).mean()


def test_value_and_gradient_are_those_of_the_batch_however_it_is_cut_over_workers() -> None:
    p, y, w = drawn()
    expected = slow_loss(p, y, w)
    (slope,) = torch.autograd.grad(expected, p)
    whole = moments(p, y, w)
    assert torch.allclose(sum(moments(p[part], y[part], w[part]) for part in (slice(0, 2), slice(2, 6))), whole)
    value, found = 0.0, torch.zeros_like(p)
    for part in (slice(0, 2), slice(2, 6)):
        loss = concordance_loss(p[part], y[part], w[part], whole) / w.sum()
        value += float(loss.detach())
        found += torch.autograd.grad(loss, p)[0]
    assert value == pytest.approx(float(expected), abs=1e-6)
    assert torch.allclose(found, slope, atol=1e-8)
    assert slope.abs().max() > 1e-3


def test_unlabelled_frames_have_neither_loss_nor_gradient() -> None:
    p, y, w = drawn()
    y = torch.where(w > 0, y, 0.9)
    loss = concordance_loss(p, y, w, moments(p, y, w))
    assert (torch.autograd.grad(loss, p)[0][w == 0] == 0).all()


@pytest.mark.parametrize("what", ["constant labels", "three frames"])
def test_a_dimension_that_teaches_nothing_has_the_value_of_no_knowledge_and_no_gradient(what: str) -> None:
    p, y, w = drawn()
    if what == "constant labels":
        y[..., 1] = 0.25
    else:
        w[..., 1] = 0
        w[0, :3, 1] = 1
    loss = concordance_loss(p, y, w, moments(p, y, w)) / w.sum()
    (slope,) = torch.autograd.grad(loss, p)
    assert (slope[..., 1] == 0).all()
    assert (slope[..., 0] != 0).any()
    alone = slow_loss(p, torch.where(torch.tensor([True, False]), y, torch.randn_like(y)), torch.ones_like(w))
    assert math.isfinite(float(alone))
    valence = 2 * float(loss) - 1
    known = w[..., 0] > 0
    x, t = p[..., 0][known].detach(), y[..., 0][known]
    concordance = (
        2
        * torch.cov(torch.stack([x, t]), correction=0)[0, 1]
        / (x.var(correction=0) + t.var(correction=0) + (x.mean() - t.mean()) ** 2)
    )
    assert valence == pytest.approx(1 - float(concordance), abs=1e-6)


def test_a_batch_without_any_label_of_affect_costs_nothing() -> None:
    step = tiny.tiny_step(**tiny.WITH_AFFECT)
    batch = tiny.va_batch(0)
    batch.mask[:] = False
    result = step(tiny.fe_batch(0), tiny.au_batch(0), 0, 5, batch).floats()
    assert result["loss/affect"] == 0
    later = tiny.train(step, range(1, 3), run="affect")[-1].floats()
    assert 0 < later["loss/affect"] < 2
    assert math.isfinite(later["total"])


def test_where_nobody_waits_the_moments_are_running_means_from_the_second_step_on() -> None:
    running = Moments(["affect"], 0.5, False, lambda tensor: tensor)
    first, second = torch.full((2, 6), 4.0), torch.full((2, 6), 8.0)
    assert torch.equal(running("affect", first), first)  # nothing is known yet
    running.settle()
    assert torch.equal(running("affect", second), first)
    assert torch.equal(running("affect", second), first)
    running.settle()
    assert torch.equal(running.state_dict()["affect"], 0.5 * first + 0.5 * 2 * second)
    again = Moments(["affect"], 0.5, False, lambda tensor: tensor)
    again.load_state_dict(copy.deepcopy(running.state_dict()), torch.device("cpu"))
    assert torch.equal(again("affect", first), running("affect", first))


def test_micro_batches_come_near_the_whole_and_resume_bit_for_bit() -> None:
    whole, cut = (tiny.tiny_step(tiny.fast_with(accumulation=slices), **tiny.WITH_AFFECT) for slices in (1, 2))
    one, other = (tiny.train(step, range(6), run="affect") for step in (whole, cut))
    assert other[0].floats()["loss/affect"] == pytest.approx(one[0].floats()["loss/affect"], rel=0.2)
    assert other[-1].floats()["loss/affect"] == pytest.approx(one[-1].floats()["loss/affect"], rel=0.3)
    half = tiny.tiny_step(tiny.fast_with(accumulation=2), **tiny.WITH_AFFECT)
    tiny.train(half, range(3), run="affect")
    resumed = tiny.tiny_step(tiny.fast_with(accumulation=2), **tiny.WITH_AFFECT)
    resumed.load_state_dict(copy.deepcopy(half.state_dict()))
    tiny.train(resumed, range(3, 6), run="affect")
    for name, tensor in cut.state_dict()["model"].items():
        assert torch.equal(resumed.state_dict()["model"][name], tensor), name


@pytest.mark.parametrize("head", ["features", "labels"])
def test_the_loss_falls_and_each_head_learns(head: str) -> None:
    fields = {**tiny.WITH_AFFECT, "affect": tiny.tiny_config().affect.model_copy(update={"head": head})}
    rates = tiny.FAST.optim.model_copy(update={"visual_encoder": 5e-3, "experts": 5e-3, "rest": 5e-3})
    step = tiny.tiny_step(tiny.fast_with(mixup_alpha=0.0, optim=rates), **fields)
    losses = [step(None, None, number, 40, tiny.va_batch(0)).floats()["loss/affect"] for number in range(40)]
    assert losses[-1] < 0.7 * losses[0]


def test_clips_are_mixed_by_draws_of_their_own() -> None:
    batch = tiny.va_batch(0)
    plain = va_part(batch, 0.0, 1, 0, SingleProcess())
    mixed = va_part(batch, 0.4, 1, 0, SingleProcess())
    assert plain.partners is None
    assert torch.equal(plain.targets[plain.weights > 0], batch.targets[batch.mask])
    assert mixed.partners is not None
    assert not torch.equal(mixed.targets, plain.targets)
    lone = (mixed.weights > 0) & (mixed.weights < 1)  # labelled in one of the two clips
    assert lone.any()


def test_a_run_without_affect_has_no_trace_of_it() -> None:
    step = tiny.tiny_step()
    assert "affect" not in step.means.names
    assert not any(name.startswith("affect") for name in step.state_dict()["model"])
    assert "moments" not in step.state_dict()
    with pytest.raises(ValueError, match="no head for valence and arousal: its vocabulary has no affect"):
        step(tiny.fe_batch(0), None, 0, 5, tiny.va_batch(0))


def test_the_label_head_recovers_the_planted_signs_and_reaches_the_concordance_asked_for() -> None:
    planted = torch.tensor([[0.9, -0.6, 0.0, -0.8], [0.0, 0.3, 0.8, 0.4]])
    generator = torch.Generator().manual_seed(2)
    active = torch.rand(64, 8, 4, generator=generator) < 0.4
    logits = 3 * (2 * active.float() - 1) + torch.randn(active.shape, generator=generator)
    drift = 0.05 * torch.randn(64, 1, 2, generator=generator)
    affect = (active.float() @ planted.T + drift).clamp(-1, 1)
    expressions = torch.randn(64, 3, generator=generator)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        head = LabelAffect(4, 3)
    optimizer, weights = torch.optim.Adam(head.parameters(), lr=0.02), torch.ones_like(affect)
    for _ in range(150):
        found = head(logits, expressions)
        loss = concordance_loss(found, affect, weights, moments(found, affect, weights)) / weights.sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert 1 - loss.item() >= 0.8
    learned = head.by_au.weight.detach()
    strong = planted.abs() > 0.2
    assert torch.equal(learned.sign()[strong], planted.sign()[strong])
    assert learned[~strong].abs().max() < learned[strong].abs().min()
