"""AU nodes and the graph between them (methods, 3; the form is ME-GraphAU's, with LayerNorm for BatchNorm).

    U_a = ReLU(LN(X W_a + b_a)),  v_a = mean_p U_a
    N(a) = the b with S_ab >= the K-th largest of row a of S = v v^T (without gradient; ties stay)
    v'_a = ReLU(v_a + LN(mean_{b in N(a)} V v_b + U v_a))

Letters: F frames, P patches, D width, A action units, K neighbours.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from ssm.model.config import GraphConfig
from ssm.model.precision import full, island


class AUNodes(nn.Module):
    """A view of the patches for each AU."""

    def __init__(self, width: int, aus: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(aus, width, width) * math.sqrt(2 / width))
        self.bias = nn.Parameter(torch.zeros(aus, width))
        self.gain = nn.Parameter(torch.ones(aus, width))
        self.offset = nn.Parameter(torch.zeros(aus, width))

    def views(self, x_FPD: Tensor, first: int, last: int) -> Tensor:
        """U of the AUs `first` to `last`: (F, P, a, D)."""
        seen = torch.einsum("fpd,ade->fpae", x_FPD, self.weight[first:last].to(x_FPD.dtype)) + self.bias[first:last]
        normed = functional.layer_norm(seen, seen.shape[-1:])
        return (normed * self.gain[first:last] + self.offset[first:last]).relu()


class AUGraph(nn.Module):
    """Nodes hear from those that look alike in this frame."""

    def __init__(self, width: int, config: GraphConfig) -> None:
        super().__init__()
        self.neighbours, self.metric = config.neighbours, config.metric
        self.others = nn.Linear(width, width, bias=False)
        self.own = nn.Linear(width, width, bias=False)
        self.norm = nn.LayerNorm(width)
        for linear in (self.others, self.own):
            nn.init.normal_(linear.weight, std=math.sqrt(2 / width))

    def forward(self, v_FAD: Tensor) -> Tensor:
        """v' (F, A, D)."""
        heard: Tensor = self._shares(v_FAD).to(v_FAD.dtype) @ self.others(v_FAD)
        change: Tensor = self.norm(heard + self.own(v_FAD))
        return (v_FAD + change).relu()

    @torch.no_grad()
    def _shares(self, v_FAD: Tensor) -> Tensor:
        """1 / |N(a)| for each b in N(a), else 0: (F, A, A), in float32: a rounded likeness would choose others."""
        with island(v_FAD):
            alike = self._alike(full(v_FAD))
            least = alike.topk(self.neighbours, dim=-1).values[..., -1:]
            near = (alike >= least).float()
            return near / near.sum(-1, keepdim=True)

    def _alike(self, v_FAD: Tensor) -> Tensor:
        if self.metric == "l1":
            return -torch.cdist(v_FAD, v_FAD, p=1)
        rows = functional.normalize(v_FAD, dim=-1) if self.metric == "cosine" else v_FAD
        return rows @ rows.transpose(1, 2)
