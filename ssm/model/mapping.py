"""Dynamic prior mapping (DPM): two learned maps between AUs and expressions around a fixed prior (section 4).

    M1[e] = rowsum(P[e]) * softmax_AUs(log(P[e] + 1e-8) + D1[e])                                     AU -> FE
    M2[a] = (colsum(P)[a] - P[neutral, a]) * softmax_nonneutral(log(P[:, a] + 1e-8) + D2[a])         FE -> AU
    t_E' = norm(t_E + sigmoid(g1) M1 t_A),  t_A' = norm(t_A + sigmoid(g2) M2 t_E)

Neutral is never learned: its row of M1 and its column of M2 stay P. Letters: E expressions, A action units, D width.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from ssm.labels import NEUTRAL, Vocabulary, links
from ssm.model.config import MappingConfig
from ssm.model.precision import island

_LOG_FLOOR = 1e-8


@dataclass(frozen=True)
class Maps:
    """Both maps as they stand, without their gates."""

    au_to_fe: Tensor  # E A
    fe_to_au: Tensor  # A E


class PriorMapping(nn.Module):
    """The two maps and the fusion of prototypes through them."""

    prior: Tensor
    neutral: Tensor

    def __init__(self, config: MappingConfig, vocabulary: Vocabulary) -> None:
        super().__init__()
        prior = prior_matrix(config, vocabulary)
        rows, columns = prior.shape
        neutral = torch.zeros(rows, dtype=torch.bool)
        if vocabulary.neutral_index is not None:
            neutral[vocabulary.neutral_index] = True
        self.register_buffer("prior", prior)
        self.register_buffer("neutral", neutral, persistent=False)
        self.learn = config.learn
        self.delta_au_to_fe = nn.Parameter(torch.zeros(rows, columns))
        self.delta_fe_to_au = nn.Parameter(torch.zeros(columns, rows))
        start = math.log(config.gate / (1 - config.gate))
        self.gate_au_to_fe = nn.Parameter(torch.tensor(start))
        self.gate_fe_to_au = nn.Parameter(torch.tensor(start))
        # A direction that is off must not be a trainable parameter: DDP would wait for its gradient.
        self.delta_au_to_fe.requires_grad_(self.learn in ("both", "au_to_fe"))
        self.delta_fe_to_au.requires_grad_(self.learn in ("both", "fe_to_au"))
        self.gate_au_to_fe.requires_grad_(self.learn != "fe_to_au")
        self.gate_fe_to_au.requires_grad_(self.learn != "au_to_fe")

    def forward(self) -> Maps:
        """M1 and M2."""
        return Maps(self.au_to_fe(), self.fe_to_au())

    def au_to_fe(self) -> Tensor:
        """M1 (E A)."""
        scores = (self.prior + _LOG_FLOOR).log() + self.delta_au_to_fe
        learned = self.prior.sum(1, keepdim=True) * scores.softmax(-1)
        return torch.where(self.neutral[:, None], self.prior, learned)

    def fe_to_au(self) -> Tensor:
        """M2 (A E)."""
        prior = self.prior.T
        scores = (prior + _LOG_FLOOR).log() + self.delta_fe_to_au
        mass = prior.masked_fill(self.neutral, 0.0).sum(1, keepdim=True)
        return torch.where(self.neutral, prior, mass * _masked_softmax(scores, ~self.neutral))

    def fuse(self, t_E: Tensor, t_A: Tensor, maps: Maps) -> tuple[Tensor, Tensor]:
        """Fused, normalised prototypes (E D) and (A D)."""
        fused_E, fused_A = t_E, t_A
        with island(t_E):
            if self.learn != "fe_to_au":
                fused_E = _normalise(t_E + self.gate_au_to_fe.sigmoid() * (maps.au_to_fe @ t_A))
            if self.learn != "au_to_fe":
                fused_A = _normalise(t_A + self.gate_fe_to_au.sigmoid() * (maps.fe_to_au @ t_E))
        return fused_E, fused_A


def prior_matrix(config: MappingConfig, vocabulary: Vocabulary) -> Tensor:
    """P, float32 (E A), as the configuration asks."""
    if config.matrix is not None:
        return torch.tensor(config.matrix, dtype=torch.float32)
    if config.prior == "uniform":
        return _uniform(config, vocabulary)
    table = links("emfacs" if config.prior == "scrambled" else config.prior, vocabulary)
    matrix = torch.tensor(
        [[config.on if au in table[name] else config.off for au in vocabulary.aus] for name in vocabulary.expressions]
    )
    if config.prior == "scrambled":
        order = torch.randperm(len(vocabulary.aus), generator=torch.Generator().manual_seed(config.seed))
        matrix = matrix[:, order]
    return matrix


def _uniform(config: MappingConfig, vocabulary: Vocabulary) -> Tensor:
    """EMFACS's total mass spread evenly over the non-neutral cells: the same pull, no information."""
    matrix = prior_matrix(config.model_copy(update={"prior": "emfacs"}), vocabulary)
    learned = torch.tensor([name != NEUTRAL for name in vocabulary.expressions])
    if learned.any():
        matrix[learned] = matrix[learned].mean()
    return matrix


def _masked_softmax(scores: Tensor, mask: Tensor) -> Tensor:
    """Softmax over the last axis within `mask`; zero elsewhere, also where a row has no cell at all."""
    lowest = torch.finfo(scores.dtype).min
    return scores.masked_fill(~mask, lowest).softmax(-1).masked_fill(~mask, 0.0)


def _normalise(rows: Tensor) -> Tensor:
    return functional.normalize(rows, dim=-1)
