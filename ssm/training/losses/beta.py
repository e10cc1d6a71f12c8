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

from ssm.model import Evidence, FocusConfig
from ssm.training.losses.asymmetric import asymmetric_loss
from ssm.training.losses.config import LossConfig
from ssm.training.losses.plain import au_loss

Form = Literal["expected", "type2"]


def beta_losses(evidence: Evidence, targets: Tensor, focus: FocusConfig, form: Form = "expected") -> Tensor:
    """The loss of each entry; targets in [0, 1] may be soft."""
    total = evidence.alpha + evidence.beta
    how = torch.digamma if form == "expected" else torch.log
    of_present, of_absent = how(total) - how(evidence.alpha), how(total) - how(evidence.beta)
    p = evidence.probability.detach()
    if focus.positive:
        of_present = (1 - p) ** focus.positive * of_present
    if focus.negative:
        of_absent = (p - focus.shift).clamp_min(0) ** focus.negative * of_absent
    return targets * of_present + (1 - targets) * of_absent


def beta_loss(
    evidence: Evidence, targets_BTA: Tensor, weights_BTA: Tensor, focus: FocusConfig, form: Form = "expected"
) -> Tensor:
    """Weighted sum over entries; weight 0 means unknown and has gradient exactly zero."""
    return (weights_BTA * beta_losses(evidence, targets_BTA, focus, form)).sum()


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
    return beta_loss(Evidence.of(evidence), targets, weights, focus, config.evidential.form)


def misleading(evidence: Evidence, targets: Tensor) -> Evidence:
    """The evidence against what is labelled."""
    return Evidence(targets + (1 - targets) * evidence.alpha, (1 - targets) + targets * evidence.beta)


def divergence_from_ignorance(evidence: Evidence) -> Tensor:
    """KL(Beta(alpha, beta) || Beta(1, 1)) of each entry."""
    a, b = evidence.alpha, evidence.beta
    constant = torch.lgamma(a + b) - torch.lgamma(a) - torch.lgamma(b)
    return constant + (a - 1) * torch.digamma(a) + (b - 1) * torch.digamma(b) - (a + b - 2) * torch.digamma(a + b)
