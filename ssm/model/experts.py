"""Shared/private experts: `mlp(x) + alpha * sum_k w_k * expert_k(x)`, top-k routing per token (method, section 2).

The shared expert is the block's own feed-forward part. What is computed here is who goes where;
`ssm.model.expert_kernels` multiplies. Letters: F frames, L positions of a frame, N = F L tokens, d width, K experts, k
experts per token.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn

from ssm.model import noise
from ssm.model.config import ExpertsConfig
from ssm.model.expert_kernels import ExpertWeights, dense, greatest, segments, spread_gates
from ssm.model.precision import full, island


@dataclass
class Routing:
    """What the model tells all its expert layers before a pass: the frames' noise seeds (F), or None for `randn`."""

    seeds: Tensor | None = None


class ExpertMlp(nn.Module):
    """A block's feed-forward part (the shared expert) with private experts beside it."""

    def __init__(
        self, shared: nn.Module, width: int, config: ExpertsConfig, block: int, routing: Routing, *, released: bool
    ) -> None:
        super().__init__()
        self.shared = shared
        if config.shared_activation == "gelu":
            shared.act = nn.GELU()
        self.channels_first = isinstance(next(_projections(shared)), nn.Conv2d)
        self.config, self.block, self.routing, self.released = config, block, routing, released
        self.gate = nn.Linear(width, config.count)
        self.w1 = nn.Parameter(torch.empty(config.count, width, config.hidden))
        self.b1 = nn.Parameter(torch.zeros(config.count, config.hidden))
        self.w2 = nn.Parameter(torch.empty(config.count, config.hidden, width))
        self.b2 = nn.Parameter(torch.zeros(config.count, width))
        self.alpha = nn.Parameter(torch.tensor(config.scale))
        self._start()

    @torch.no_grad()
    def _start(self) -> None:
        nn.init.xavier_uniform_(self.gate.weight, gain=self.config.gate_gain)
        nn.init.zeros_(self.gate.bias)
        for expert in range(self.config.count):
            nn.init.xavier_uniform_(self.w1[expert])
            nn.init.xavier_uniform_(self.w2[expert])

    def forward(self, x: Tensor) -> Tensor:
        """Frames' tokens (F, ..., d), or (F, d, H, W) in a convolutional block, to the same shape."""
        shared = cast(Tensor, self.shared(x))
        rows = x.permute(0, 2, 3, 1) if self.channels_first else x
        if _dense_pays(x) or torch.compiler.is_compiling():  # segments' lengths are data: a graph for every batch
            gates_NK = self.alpha * self.gates(rows.flatten(1, -2))
            return shared + self._laid_out(dense(rows.flatten(0, -2), gates_NK, self.weights), rows)
        private = self._laid_out(self.private(rows), rows)
        return torch.addcmul(shared, private, self.alpha.to(private.dtype))

    @property
    def weights(self) -> ExpertWeights:
        """The private experts' parameters."""
        return ExpertWeights(self.w1, self.b1, self.w2, self.b2)

    def private(self, x: Tensor) -> Tensor:
        """The weighted sum of each token's experts, (N, d), before alpha, for tokens (F, ..., d): as CPUs do it."""
        gates, experts = self.route(x.flatten(1, -2))
        rows = x.flatten(0, -2).to(_compute_dtype(x))
        return segments(rows, gates.to(rows.dtype), experts, self.weights.to(rows.dtype))

    def _laid_out(self, private: Tensor, rows: Tensor) -> Tensor:
        """Rows (N, d) in the order of the block's input."""
        private = private.view(rows.shape)
        return private.permute(0, 3, 1, 2) if self.channels_first else private

    def route(self, x_FLd: Tensor) -> tuple[Tensor, Tensor]:
        """Gate weights (N, k), softmax over all experts and not renormalised, and expert numbers (N, k)."""
        weights, experts = self._probabilities(x_FLd).topk(self.config.top, dim=-1)
        if self.released:
            experts = _scrambled(experts)
        return weights.flatten(0, 1), experts.flatten(0, 1)

    def gates(self, x_FLd: Tensor) -> Tensor:
        """The same as one table (N, K), zero where a token does not go."""
        if self.released:
            return spread_gates(*self.route(x_FLd), self.config.count)
        return greatest(self._probabilities(x_FLd).flatten(0, 1), self.config.top)

    def _probabilities(self, x_FLd: Tensor) -> Tensor:
        with island(x_FLd):
            logits = cast(Tensor, self.gate(full(x_FLd)))
        if self.training and self.config.noise > 0:
            logits = logits + self.config.noise * self._noise(logits)
        return logits.softmax(-1)

    def _noise(self, logits: Tensor) -> Tensor:
        if self.routing.seeds is None:
            return torch.randn_like(logits)
        return noise.normal(self.routing.seeds, self.block, logits.shape[1], self.config.count)


def _scrambled(experts_FLk: Tensor) -> Tensor:
    """The released code's expert table: cut into k pieces of length N, so pass j sends token i to flat j*N + i.

    DEVIATION: only to reproduce released checkpoints (section 8 b). Its tokens are numbered position first, frames
    second, as OpenAI's CLIP lays them out; found by matching the reference outputs.
    """
    frames, positions, top = experts_FLk.shape
    table = experts_FLk.transpose(0, 1).reshape(top, positions, frames)
    return table.permute(2, 1, 0)


def _dense_pays(x: Tensor) -> bool:
    """Whether all experts over all rows cost less than sorting the rows by expert."""
    return x.device.type != "cpu"


def _compute_dtype(x: Tensor) -> torch.dtype:
    """What a linear layer would multiply in here: the autocast type where it is on."""
    kind = x.device.type
    return torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else x.dtype


def _projections(mlp: nn.Module) -> Any:
    return (layer for layer in mlp.modules() if isinstance(layer, nn.Linear | nn.Conv2d))


def mlp_width(mlp: nn.Module) -> int:
    """Input width of a timm feed-forward part: that of its first linear map (1x1 convolution in some families)."""
    first = next(_projections(mlp), None)
    if first is None:
        raise ValueError(f"cannot put experts beside {type(mlp).__name__}: it holds no linear map to take the width of")
    return int(first.in_features if isinstance(first, nn.Linear) else first.in_channels)
