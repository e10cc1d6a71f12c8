"""Mixup: a pure draw over the global batch, and targets that use every label of either clip and nothing else."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from ssm.training.mixup import draw_mix, mix_clips, mix_targets


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 40), st.integers(0, 2**32), st.integers(0, 10**6))
def test_draw_is_a_permutation_and_a_function_of_seed_and_step(size: int, seed: int, step: int) -> None:
    mix = draw_mix(size, 0.4, seed, step)
    again = draw_mix(size, 0.4, seed, step)
    assert sorted(mix.partners.tolist()) == list(range(size))
    assert mix.share == again.share
    assert 0 <= mix.share <= 1
    assert torch.equal(mix.partners, again.partners)


def test_shares_follow_their_beta_distribution() -> None:
    shares = np.array([draw_mix(2, 0.4, 1, step).share for step in range(4000)])
    assert abs(shares.mean() - 0.5) < 0.02
    assert abs(shares.var() - 1 / (4 * (2 * 0.4 + 1))) < 0.01


def test_mixed_loss_is_the_weighted_loss_of_both_labellings() -> None:
    torch.manual_seed(0)
    logits = torch.randn(3, 4, 5, dtype=torch.float64)
    targets, others = (torch.randint(0, 2, (3, 4, 5)).float() for _ in range(2))
    mask, other_mask = (torch.rand(3, 4, 5) > 0.4 for _ in range(2))
    share = 0.3
    mixed, weights = mix_targets(targets, mask, others, other_mask, share)
    loss = (F.binary_cross_entropy_with_logits(logits, mixed.double(), reduction="none") * weights).sum()
    own = F.binary_cross_entropy_with_logits(logits[mask], targets[mask].double(), reduction="sum")
    other = F.binary_cross_entropy_with_logits(logits[other_mask], others[other_mask].double(), reduction="sum")
    torch.testing.assert_close(loss, share * own + (1 - share) * other, rtol=1e-5, atol=1e-6)
    assert (weights[~mask & ~other_mask] == 0).all()


def test_what_stands_for_an_unknown_target_does_not_matter() -> None:
    targets = torch.tensor([[[1.0, torch.nan]]])
    mask = torch.tensor([[[True, False]]])
    mixed, weights = mix_targets(targets, mask, targets, mask, 0.25)
    assert mixed.tolist() == [[[1.0, 0.0]]]
    assert weights.tolist() == [[[1.0, 0.0]]]


def test_clips_mix_in_proportion() -> None:
    clips, partners = torch.ones(1, 2, 3, 4, 4), torch.zeros(1, 2, 3, 4, 4)
    assert mix_clips(clips, partners, 0.3).allclose(torch.tensor(0.3))
    assert torch.equal(mix_clips(clips, partners, 1.0), clips)
