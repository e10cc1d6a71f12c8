"""The four losses: masks with gradients of exactly zero, running means, ramp, and the weighing of the total."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from pydantic import ValidationError

from ssm.training.losses import LossConfig, RunningMeans, au_loss, expression_loss, ramp


def test_expression_loss_is_cross_entropy_among_the_classes_in_use() -> None:
    logits = torch.randn(4, 5, requires_grad=True)
    labels = torch.tensor([0, 1, 0, 2])
    mask = torch.tensor([True, True, True, False, False]).expand(4, 5)
    loss = expression_loss(logits, labels, mask, None)
    torch.testing.assert_close(loss, F.cross_entropy(logits[:, :3], labels, reduction="sum"))
    loss.backward()
    assert logits.grad is not None
    assert (logits.grad[:, 3:] == 0).all()


def test_clip_weights_scale_each_clips_loss() -> None:
    logits, labels, mask = torch.randn(3, 4), torch.tensor([0, 1, 3]), torch.ones(3, 4, dtype=torch.bool)
    single = torch.stack([expression_loss(logits[i : i + 1], labels[i : i + 1], mask[:1], None) for i in range(3)])
    weights = torch.tensor([0.5, 0.0, 2.0])
    torch.testing.assert_close(expression_loss(logits, labels, mask, weights), (single * weights).sum())


def test_a_label_outside_its_classes_makes_the_loss_infinite() -> None:
    mask = torch.tensor([[True, True, False]])
    assert math.isinf(expression_loss(torch.zeros(1, 3), torch.tensor([2]), mask, None))


def test_au_loss_ignores_what_is_not_labelled() -> None:
    logits = torch.randn(2, 3, 4, requires_grad=True)
    targets = torch.randint(0, 2, (2, 3, 4)).float()
    weights = (torch.rand(2, 3, 4) > 0.4).float()
    weights[..., 1] = 0
    loss = au_loss(logits, targets, weights)
    labelled = weights.bool()
    torch.testing.assert_close(
        loss, F.binary_cross_entropy_with_logits(logits[labelled], targets[labelled], reduction="sum")
    )
    loss.backward()
    assert logits.grad is not None
    assert (logits.grad[~labelled] == 0).all()


def test_losses_of_bfloat16_logits_are_float32() -> None:
    logits = torch.randn(2, 3).bfloat16()
    assert (
        expression_loss(logits, torch.tensor([0, 1]), torch.ones(2, 3, dtype=torch.bool), None).dtype == torch.float32
    )


def test_running_means_start_at_the_first_value_seen() -> None:
    means = RunningMeans(0.95)
    assert means.known == [False] * 4
    means.update(torch.tensor([2.0, 4.0, 0.0, 0.0]), torch.tensor([True, True, False, False]))
    assert means.known == [True, True, False, False]
    torch.testing.assert_close(means.divisors(), torch.tensor([2.0, 4.0, 1.0, 1.0]))
    means.update(torch.tensor([4.0, 9.0, 6.0, 0.0]), torch.tensor([True, False, True, False]))
    torch.testing.assert_close(means.divisors(), torch.tensor([0.95 * 2 + 0.05 * 4, 4.0, 6.0, 1.0]))


def test_starting_leaves_known_means_alone() -> None:
    means = RunningMeans(0.5)
    means.update(torch.full((4,), 3.0), torch.tensor([True, False, False, False]))
    means.start(torch.full((4,), 7.0), torch.tensor([True, True, True, False]))
    torch.testing.assert_close(means.divisors(), torch.tensor([3.0, 7.0, 7.0, 1.0]))


def test_a_loss_of_zero_does_not_divide_by_zero() -> None:
    means = RunningMeans(0.95)
    means.update(torch.zeros(4), torch.ones(4, dtype=torch.bool))
    assert torch.isfinite(1 / means.divisors()).all()


def test_ramp_rises_from_zero_to_one() -> None:
    values = [ramp(p / 10) for p in range(11)]
    assert values[0] == 0
    assert values == sorted(values)
    assert values[3] == pytest.approx(2 / (1 + math.exp(-3)) - 1)
    assert values[10] == pytest.approx(1, abs=1e-3)


def test_coefficients_are_those_of_the_method() -> None:
    a = ramp(0.2)
    assert LossConfig().coefficients(0.2) == pytest.approx((1 / 3, 2 / 3, a / 3, a / 3))
    assert LossConfig(fe=0, au_semantic=2).coefficients(0.2) == pytest.approx((0, 2 / 3, a / 3, 2 * a / 3))
    with pytest.raises(ValidationError, match="greater than or equal to 0"):
        LossConfig(fe=-1)
