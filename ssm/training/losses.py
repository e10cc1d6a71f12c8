"""The four losses of the method (section 6), their running means and the ramp.

L1 = CE(FE logits), L2 = BCE(AU logits), L3 = CE(w s_E), L4 = BCE(w s_A); each is divided by its own detached running
mean, and total = (L1 + 2 L2 + a (L3 + L4)) / 3 with a = 2 / (1 + exp(-10 p)) - 1 at training progress p in [0, 1].
The loss functions return weighted *sums*: who knows the global count divides by it, so that any split of a batch over
micro-batches or workers gives the same loss. Letters: B clips, T frames, A AUs, E expressions, L the four losses.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

LOSSES = ("fe", "au", "fe_semantic", "au_semantic")
"""Names of L1..L4 in the order of every vector of losses."""

_SCALE = 3.0  # the divisor of the total
_TINY = 1e-8  # a loss that is exactly zero must not divide by zero


class LossConfig(BaseModel):
    """How the four losses are weighed."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    fe: float = Field(default=1.0, ge=0, description="weight of L1, cross-entropy of the expression logits")
    au: float = Field(default=2.0, ge=0, description="weight of L2, binary cross-entropy of the AU logits")
    fe_semantic: float = Field(default=1.0, ge=0, description="weight of L3, as L1 on the semantic logits; ramped")
    au_semantic: float = Field(default=1.0, ge=0, description="weight of L4, as L2 on the semantic logits; ramped")
    map_evidence: float = Field(
        default=0.0, ge=0, description="weight of `ssm.training.evidence`, by which the maps learn; 0: as published"
    )
    ramp: float = Field(default=10.0, gt=0, description="steepness of the ramp on L3 and L4 over training progress")
    momentum: float = Field(
        default=0.95, ge=0, lt=1, description="momentum of the running mean each loss is divided by"
    )

    def coefficients(self, progress: float) -> tuple[float, ...]:
        """The factor of each normalised loss in the total at `progress` in [0, 1], in the order of `LOSSES`."""
        semantic = ramp(progress, self.ramp)
        weights = (self.fe, self.au, semantic * self.fe_semantic, semantic * self.au_semantic)
        return tuple(weight / _SCALE for weight in weights)


def ramp(progress: float, steepness: float = 10.0) -> float:
    """0 at the start of training, 1 (to 1e-4) at its end."""
    return 2 / (1 + math.exp(-steepness * progress)) - 1


def expression_losses(
    logits_BE: Tensor, labels_B: Tensor, class_mask_BE: Tensor, shares_BE: Tensor | None = None
) -> Tensor:
    """Cross-entropy of each clip (B) among the classes of its own corpus, to its label or to shares of the classes.

    A class outside the mask has probability and gradient exactly zero; a label outside it makes the loss infinite.
    A clip without any class (its pixels could not be read) has loss and gradient exactly zero.
    """
    known_B = class_mask_BE.any(1)
    logits = logits_BE.float().masked_fill(~class_mask_BE & known_B[:, None], -torch.inf)
    if shares_BE is None:
        return F.cross_entropy(logits, labels_B, reduction="none") * known_B
    logs = logits.log_softmax(1)
    return -(shares_BE * logs.masked_fill(shares_BE == 0, 0.0)).sum(1) * known_B  # 0 * -inf would be nan


def expression_loss(
    logits_BE: Tensor,
    labels_B: Tensor,
    class_mask_BE: Tensor,
    weights_B: Tensor | None,
    shares_BE: Tensor | None = None,
) -> Tensor:
    """Sum over clips of `expression_losses`, each times its weight where there are weights."""
    losses_B = expression_losses(logits_BE, labels_B, class_mask_BE, shares_BE)
    return losses_B.sum() if weights_B is None else (losses_B * weights_B).sum()


def au_loss(logits_BTA: Tensor, targets_BTA: Tensor, weights_BTA: Tensor) -> Tensor:
    """Sum of the binary cross-entropy over labelled entries; weight 0 means unknown and has gradient exactly zero."""
    return F.binary_cross_entropy_with_logits(logits_BTA.float(), targets_BTA, weight=weights_BTA, reduction="sum")


class RunningMeans:
    """One mean per loss (L), kept on the device so that a step needs no synchronisation; nan until first seen.

    The mean a step divides by is that of the steps before it (of itself at the first): it is then known before the
    forward pass, so accumulation and workers need not wait for each other in the middle of a step.
    """

    def __init__(self, momentum: float, device: torch.device | str = "cpu") -> None:
        self.momentum = momentum
        self.values = torch.full((len(LOSSES),), torch.nan, device=device)

    @property
    def known(self) -> list[bool]:
        """Which losses have been seen. Synchronises with the device."""
        return (~self.values.isnan()).tolist()

    def update(self, losses_L: Tensor, seen_L: Tensor) -> None:
        """Take in the losses of one step where `seen_L`; the first value starts the mean."""
        moved = self.values * self.momentum + losses_L * (1 - self.momentum)
        moved = torch.where(self.values.isnan(), losses_L, moved)
        self.values = torch.where(seen_L, moved, self.values)

    def start(self, losses_L: Tensor, seen_L: Tensor) -> None:
        """As `update`, but leaves the means that are known already as they are."""
        self.update(losses_L, seen_L & self.values.isnan())

    def divisors(self) -> Tensor:
        """L: what to divide by; 1 for a loss never seen, which is zero."""
        return torch.where(self.values.isnan(), 1.0, self.values.clamp_min(_TINY))
