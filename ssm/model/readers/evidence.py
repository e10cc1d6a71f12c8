"""Beta evidence: what it says of probability and of not knowing, and the undoing of a loss's asymmetry (methods, 2).

    e+, e- = softplus(l+), softplus(l-);  alpha = 1 + e+, beta = 1 + e-, S = alpha + beta
    p = alpha / S,  vacuity u = 2 / S,  beliefs e+/S and e-/S (u and they sum to 1),  variance p (1 - p) / (S + 1)

An asymmetric loss (weights (1 - p)^g+ and max(p - m, 0)^g- without gradient) is least, at a true rate pi, where
pi / (1 - pi) = p max(p - m, 0)^g- / (1 - p)^(1 + g+); `untilted` is that, so what is served is pi again: exact for
log losses and the limit of much evidence for Beta ones. The same weights count evidence by less than it is: an absence
at p by p^g-, so the surer an absence the less evidence it has. `doubt` is u of the evidence counted whole:

    2 / (2 + e+ / (1 - p)^g+ + e- / max(p - m, 0)^g-)

DEVIATION: u as it stands orders answers worse than chance under such a loss (docs/methods.md, section 2).
Letters: B clips, T frames, A action units.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from ssm.model.config import FocusConfig

_LEAST_WEIGHT = 1e-3
"""Of 1 - p and p - m: without it, an absence that the shift hides from the loss would have no doubt at all."""


@dataclass(frozen=True)
class Evidence:
    """A Beta per AU and frame, float32."""

    alpha: Tensor  # ..., >= 1
    beta: Tensor  # ...

    @classmethod
    def of(cls, pairs: Tensor) -> Evidence:
        """Out of (..., 2), as a reading holds it."""
        return cls(pairs[..., 0], pairs[..., 1])

    @classmethod
    def from_scores(cls, positive: Tensor, negative: Tensor) -> Evidence:
        """Of l+ and l-."""
        return cls(1 + functional.softplus(positive), 1 + functional.softplus(negative))

    @property
    def pairs(self) -> Tensor:
        """(..., 2)."""
        return torch.stack([self.alpha, self.beta], dim=-1)

    @property
    def logit(self) -> Tensor:
        """Its sigmoid is `probability`."""
        return self.alpha.log() - self.beta.log()

    @property
    def probability(self) -> Tensor:
        """p, as the loss left it."""
        return self.alpha / (self.alpha + self.beta)

    @property
    def vacuity(self) -> Tensor:
        """u in (0, 1], as the loss left it: 1 where there is no evidence at all."""
        return 2 / (self.alpha + self.beta)

    def doubt(self, focus: FocusConfig) -> Tensor:
        """u in (0, 1] of the evidence counted whole, after training with this asymmetry."""
        p = self.probability
        present = (1 - p).clamp_min(_LEAST_WEIGHT) ** focus.positive
        absent = (p - focus.shift).clamp_min(_LEAST_WEIGHT) ** focus.negative
        return 2 / (2 + (self.alpha - 1) / present + (self.beta - 1) / absent)

    @property
    def beliefs(self) -> tuple[Tensor, Tensor]:
        """Of presence and of absence."""
        total = self.alpha + self.beta
        return (self.alpha - 1) / total, (self.beta - 1) / total

    @property
    def variance(self) -> Tensor:
        """Of the probability."""
        total = self.alpha + self.beta
        return self.alpha * self.beta / (total.square() * (total + 1))

    def untilted(self, focus: FocusConfig) -> Tensor:
        """The logit of pi, after training with this asymmetry."""
        return untilted(self.alpha.log() - (self.alpha + self.beta).log(), self.logit, focus)

    def averaged(self, dim: int) -> Evidence:
        """Mean evidence over an axis."""
        return Evidence(self.alpha.mean(dim), self.beta.mean(dim))


def untilted(log_p: Tensor, logit: Tensor, focus: FocusConfig) -> Tensor:
    """logit(p) + g- ln max(p - m, 0) - g+ ln(1 - p), with ln p given."""
    log_q = log_p - logit  # ln (1 - p)
    if focus.shift:
        tiny = torch.finfo(log_p.dtype).tiny
        log_p = (log_p.exp() - focus.shift).clamp_min(tiny).log()
    return logit + focus.negative * log_p - focus.positive * log_q
