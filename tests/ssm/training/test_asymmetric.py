"""The weighted asymmetric loss: against the formula written out, where it is least, and whom it refuses."""

from __future__ import annotations

import math

import pytest
import tiny_training as tiny
import torch

from ssm.model.config import AUReaderConfig
from ssm.training.losses.asymmetric import asymmetric_loss, asymmetric_losses, balance
from ssm.training.losses.config import LossConfig


def test_value_and_gradient_are_those_of_the_formula() -> None:
    """Entry by entry in float64: p solves p^2 = o (1 - p) for the odds o of the logit; the factor p has no gradient."""
    logits = torch.tensor([[-9.0, -2.0, 0.3, 8.0], [0.0, 1.0, -1.0, 3.0]], requires_grad=True)
    targets = torch.tensor([[0.0, 1.0, 0.4, 1.0], [1.0, 0.0, 0.7, 0.0]])
    weights, shares = torch.tensor([[1.0, 2.0, 1.0, 0.0], [1.0, 1.0, 0.5, 1.0]]), (0.5, 0.1, 0.02, 0.3)
    found = asymmetric_loss(logits, targets, weights, shares)
    found.backward()
    rarity = [1 / share for share in shares]
    total, slopes = 0.0, torch.zeros(2, 4)
    for row in range(2):
        for au in range(4):
            odds, y = math.exp(float(logits.detach()[row, au])), float(targets[row, au])
            p = (-odds + math.sqrt(odds * odds + 4 * odds)) / 2
            w = float(weights[row, au]) * 4 * rarity[au] / sum(rarity)
            total -= w * (y * math.log(p) + (1 - y) * p * math.log(1 - p))
            dp = odds * (1 - p) / (2 * p + odds)  # of p^2 = odds (1 - p), by the logit
            slopes[row, au] = -w * (y / p - (1 - y) * p / (1 - p)) * dp
    assert float(found.detach()) == pytest.approx(total, rel=1e-5)
    assert logits.grad is not None
    torch.testing.assert_close(logits.grad, slopes, rtol=1e-4, atol=1e-5)
    assert logits.grad[0, 3] == 0, "an unknown label teaches nothing"


@pytest.mark.parametrize("rate", [0.02, 0.3, 0.9])
def test_it_is_least_at_the_true_rate(rate: float) -> None:
    """So what is served needs no undoing; its own p lies far from the rate."""
    logit = torch.zeros(1, requires_grad=True)
    optimizer = torch.optim.LBFGS([logit], max_iter=50, line_search_fn=None, tolerance_grad=1e-9)

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        loss = rate * asymmetric_losses(logit, torch.ones(1)) + (1 - rate) * asymmetric_losses(logit, torch.zeros(1))
        loss.sum().backward()
        return loss.sum()

    for _ in range(20):
        optimizer.step(closure)
    assert float(logit.detach().sigmoid()) == pytest.approx(rate, abs=1e-3)


def test_far_logits_are_finite_and_rare_aus_weigh_more() -> None:
    logits = torch.tensor([-1e4, -80.0, 80.0, 1e4], requires_grad=True)
    for target in (0.0, 1.0):
        losses = asymmetric_losses(logits, torch.full((4,), target))
        assert losses.isfinite().all()
        assert torch.autograd.grad(losses.sum(), logits)[0].isfinite().all()
    assert balance((0.5, 0.1)) == pytest.approx([2 / 6, 10 / 6])


def test_shares_that_do_not_fit_are_refused_with_the_mend() -> None:
    with pytest.raises(ValueError, match=r"loss\.prevalence names 2 shares for 4 AUs: give one for each of AU"):
        tiny.tiny_step(tiny.fast_with(loss=LossConfig(prevalence=(0.1, 0.2))))
    reader = AUReaderConfig(kind="evidential")
    with pytest.raises(ValueError, match=r"loss\.prevalence is for readers that give logits"):
        tiny.tiny_step(tiny.fast_with(loss=LossConfig(prevalence=(0.1,) * 4)), au_reader=reader)
    with pytest.raises(ValueError, match="less than 1"):
        LossConfig(prevalence=(0.1, 1.0))
