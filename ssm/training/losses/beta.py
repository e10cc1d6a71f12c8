"""Losses of Beta evidence: expected cross-entropy, its asymmetric form and the regulariser (methods, 2).

    c+ = psi(S) - psi(alpha),  c- = psi(S) - psi(beta)          expectations of -log p and -log (1 - p) under the Beta
    l  = sg((1 - p)^g+) y c+ + sg(max(p - m, 0)^g-) (1 - y) c-  sg: without gradient; g+ = g- = 0 is the plain loss
    "type2": ln(S / alpha) and ln(S / beta) in the place of c+ and c-
    KL(Beta(a~, b~) || Beta(1, 1)),  a~ = y + (1 - y) alpha,  b~ = (1 - y) + y beta    misleading evidence alone

The log-loss and the ASL it comes from weigh probabilities alike, so what they do to p is undone alike
(`ssm.model.readers.evidence`). Letters: B clips, T frames, A action units.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from ssm.model import FocusConfig
from ssm.training.losses.asymmetric import asymmetric_loss
from ssm.training.losses.config import LossConfig
from ssm.training.losses.plain import au_loss

Form = Literal["expected", "type2"]


def beta_losses(pairs: Tensor, targets: Tensor, focus: FocusConfig, form: Form = "expected") -> Tensor:
    """The loss of each entry, of alpha and beta (..., 2); targets in [0, 1] may be soft."""
    how = torch.digamma if form == "expected" else torch.log
    total = pairs.sum(-1, keepdim=True)
    present, absent = targets, 1 - targets
    p = (pairs[..., 0] / total[..., 0]).detach()
    if focus.positive:
        present = present * (1 - p) ** focus.positive
    if focus.negative:
        absent = absent * (p - focus.shift).clamp_min(0) ** focus.negative
    return (torch.stack([present, absent], dim=-1) * (how(total) - how(pairs))).sum(-1)


def beta_loss(
    pairs_BTA2: Tensor, targets_BTA: Tensor, weights_BTA: Tensor, focus: FocusConfig, form: Form = "expected"
) -> Tensor:
    """Weighted sum over entries; weight 0 means unknown and has gradient exactly zero."""
    return (weights_BTA * beta_losses(pairs_BTA2, targets_BTA, focus, form)).sum()


def coded_loss(
    logits: Tensor,
    evidence: Tensor | None,
    targets: Tensor,
    weights: Tensor,
    focus: FocusConfig | None,
    config: LossConfig,
) -> Tensor:
    """L2 in the form of the reader: of Beta evidence (... 2) where it gives any, else of the logits."""
    if evidence is None or focus is None:
        if config.prevalence:
            return asymmetric_loss(logits, targets, weights, config.prevalence)
        return au_loss(logits, targets, weights)
    return beta_loss(evidence, targets, weights, focus, config.evidential.form)


def misleading(pairs: Tensor, targets: Tensor) -> Tensor:
    """The evidence against what is labelled, a~ and b~ (..., 2)."""
    return pairs.lerp(pairs.new_ones(()), torch.stack([targets, 1 - targets], dim=-1).to(pairs.dtype))


def divergence_from_ignorance(pairs: Tensor) -> Tensor:
    """KL(Beta(alpha, beta) || Beta(1, 1)) of each entry, of alpha and beta (..., 2)."""
    total = pairs.sum(-1)
    each = (pairs - 1) * torch.digamma(pairs) - torch.lgamma(pairs)
    return each.sum(-1) + torch.lgamma(total) - (total - 2) * torch.digamma(total)
