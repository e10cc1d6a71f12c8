"""The weighted asymmetric loss of ME-GraphAU (methods, 3) in the place of L2, for readers that give logits.

    l = -w_a [y log p + (1 - y) sg(p) log(1 - p)],  w_a = A (1 / r_a) / sum_b (1 / r_b)        sg: without gradient

r_a is the share of the training side's frames that show AU a. At a true rate pi the loss is least where pi / (1 - pi)
= p^2 / (1 - p), so p is not the rate. DEVIATION: the reader's logit z is taken for that of pi, and p is made of it; the
loss is least at the same p, and what is served, judged and smoothed over time is pi without any undoing:

    p = 2 / (1 + sqrt(1 + 4 exp(-z))),  log(1 - p) = 2 log p - z

Letters: A action units; ... any axes before them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

_LEAST = -60.0  # a logit below which exp(-z) leaves float32


def asymmetric_losses(logits: Tensor, targets: Tensor) -> Tensor:
    """The loss of each entry, unweighted; targets in [0, 1] may be soft."""
    z = logits.float().clamp_min(_LEAST)
    log_p = math.log(2) - (1 + (1 + 4 * (-z).exp()).sqrt()).log()
    return -(targets * log_p + (1 - targets) * log_p.detach().exp() * (2 * log_p - z))


def balance(prevalence: Sequence[float]) -> list[float]:
    """w_a, with mean 1."""
    rarity = [1 / share for share in prevalence]
    return [len(rarity) * one / sum(rarity) for one in rarity]


def asymmetric_loss(logits_A: Tensor, targets_A: Tensor, weights_A: Tensor, prevalence: Sequence[float]) -> Tensor:
    """Weighted sum over entries (..., A); weight 0 means unknown and has gradient exactly zero."""
    w_A = torch.tensor(balance(prevalence), device=logits_A.device)
    return (weights_A * w_A * asymmetric_losses(logits_A, targets_A)).sum()
