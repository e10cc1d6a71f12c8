"""The losses: masks with gradients of exactly zero, running means, ramp, and the weighing of the total."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import pytest
import tiny_training as tiny
import torch
import torch.nn.functional as F
from pydantic import ValidationError
from torch import nn

from ssm.training.batch import MicroBatch
from ssm.training.losses import table
from ssm.training.losses.config import LossConfig, ramp
from ssm.training.losses.means import RunningMeans
from ssm.training.losses.plain import au_loss, expression_loss
from ssm.training.losses.table import LOSSES, Loss, Pass, losses_of
from ssm.training.step import TrainStep

FOUR = ("fe", "au", "fe_semantic", "au_semantic")


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
    means = RunningMeans(FOUR, 0.95)
    assert means.known == [False] * 4
    means.update(torch.tensor([2.0, 4.0, 0.0, 0.0]), torch.tensor([True, True, False, False]))
    assert means.known == [True, True, False, False]
    torch.testing.assert_close(means.divisors(), torch.tensor([2.0, 4.0, 1.0, 1.0]))
    means.update(torch.tensor([4.0, 9.0, 6.0, 0.0]), torch.tensor([True, False, True, False]))
    torch.testing.assert_close(means.divisors(), torch.tensor([0.95 * 2 + 0.05 * 4, 4.0, 6.0, 1.0]))


def test_starting_leaves_known_means_alone() -> None:
    means = RunningMeans(FOUR, 0.5)
    means.update(torch.full((4,), 3.0), torch.tensor([True, False, False, False]))
    means.start(torch.full((4,), 7.0), torch.tensor([True, True, True, False]))
    torch.testing.assert_close(means.divisors(), torch.tensor([3.0, 7.0, 7.0, 1.0]))


def test_a_loss_of_zero_does_not_divide_by_zero() -> None:
    means = RunningMeans(FOUR, 0.95)
    means.update(torch.zeros(4), torch.ones(4, dtype=torch.bool))
    assert torch.isfinite(1 / means.divisors()).all()


def test_ramp_rises_from_zero_to_one() -> None:
    values = [ramp(p / 10) for p in range(11)]
    assert values[0] == 0
    assert values == sorted(values)
    assert values[3] == pytest.approx(2 / (1 + math.exp(-3)) - 1)
    assert values[10] == pytest.approx(1, abs=1e-3)


def _weights(config: LossConfig, progress: float) -> tuple[float, ...]:
    return tuple(loss.weight(config, progress) for loss in losses_of(config, nn.Identity()))


def test_weights_are_those_of_the_method() -> None:
    a = ramp(0.2)
    assert _weights(LossConfig(), 0.2) == pytest.approx((1 / 3, 2 / 3, a / 3, a / 3))
    assert _weights(LossConfig(fe=0, au_semantic=2), 0.2) == pytest.approx((0, 2 / 3, a / 3, 2 * a / 3))
    with pytest.raises(ValidationError, match="greater than or equal to 0"):
        LossConfig(fe=-1)


def test_au_losses_may_arrive_later_and_rise() -> None:
    late = LossConfig(au_from=0.1, au_rise=0.2)
    for progress, share in ((0.0, 0.0), (0.0999, 0.0), (0.1, 0.0), (0.2, 0.5), (0.3, 1.0), (1.0, 1.0)):
        a = ramp(progress)
        assert _weights(late, progress) == pytest.approx((1 / 3, share * 2 / 3, a / 3, share * a / 3))
    assert _weights(LossConfig(au_from=0.1), 0.0999)[1] == 0
    assert _weights(LossConfig(au_from=0.1), 0.1)[1] == 2 / 3


def test_means_are_kept_by_name_and_those_of_before_are_read() -> None:
    means = RunningMeans(("au", "va", *FOUR[:1], *FOUR[2:]), 0.9)
    with pytest.raises(ValueError, match=r"running means of fe, au, fe_semantic, au_semantic do not fit"):
        means.load_state_dict(torch.arange(4.0))
    before = RunningMeans(FOUR, 0.9)
    before.load_state_dict(torch.tensor([1.0, 2.0, 3.0, torch.nan]))
    means.load_state_dict({**before.state_dict(), "va": torch.tensor(5.0)})
    torch.testing.assert_close(means.divisors(), torch.tensor([2.0, 5.0, 1.0, 3.0, 1.0]))


class _Scored(nn.Module):
    """The tiny model with two more outputs: losses of tasks that the platform does not have."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = tiny.tiny_model()
        self.own, self.other = (nn.Parameter(torch.full((3,), value)) for value in (2.0, 3.0))

    def forward(self, **inputs: Any) -> Any:
        return SimpleNamespace(**vars(self.inner(**inputs)), own=self.own, other=self.other)


def _added(name: str, divisor: str | None) -> Loss:
    def total(one: Pass) -> torch.Tensor | None:
        return None if one.part.au is None else getattr(one.output, name).sum() * len(one.part.au.clips)

    def count(part: MicroBatch) -> torch.Tensor | None:
        return None if part.au is None else torch.tensor(2.0 * len(part.au.clips))

    return Loss(name, total, count, lambda _, progress: 1 + progress, divisor=divisor)


@pytest.mark.parametrize("divisor", ["own", None, "other"])
def test_a_row_of_ones_own_has_its_sum_count_weight_and_mean(
    monkeypatch: pytest.MonkeyPatch, divisor: str | None
) -> None:
    """The loss is 3 * own / 2 = 3; its gradient on each of the three is 1/2, by weight and by whose mean it has."""
    rows = (*LOSSES, _added("own", divisor), _added("other", "own"))
    monkeypatch.setattr(table, "LOSSES", rows)
    step = TrainStep(_Scored(), tiny.fast_with(accumulation=2), device="cpu")
    gradients: list[torch.Tensor] = []
    step.model.get_parameter("own").register_post_accumulate_grad_hook(lambda p: gradients.append(p.grad.clone()))
    result = step(tiny.fe_batch(0), tiny.au_batch(0), 4, 10)
    assert float(result.losses["own"]) == 3.0
    mean = {"own": 3.0, "other": 4.5}[divisor] if divisor else 1.0
    torch.testing.assert_close(gradients[-1], torch.full((3,), 1.4 * 0.5 / mean))
    assert float(step.state_dict()["means"]["other"]) == 4.5
    assert bool(step.state_dict()["means"]["own"].isnan()) == (divisor != "own")
    assert "own" not in step(tiny.fe_batch(1), None, 5, 10).losses
