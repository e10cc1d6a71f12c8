"""Shared/private experts: `mlp(x) + alpha * sum_k w_k * expert_k(x)`, top-k routing per token (method, section 2).

Tokens are sorted by expert once, each expert multiplies its own contiguous segment, and the results are gathered
back, so the cost is that of the products and not of masks. Letters: F frames, N tokens of all frames, d width,
K experts, k experts per token, h hidden width.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from ssm import noise
from ssm.config import ExpertsConfig


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
        shared = self.shared(x)
        channels_last = x.permute(0, 2, 3, 1) if self.channels_first else x
        private = self.private(channels_last.flatten(1, -2)).view(channels_last.shape)
        if self.channels_first:
            private = private.permute(0, 3, 1, 2)
        return torch.addcmul(shared, private, self.alpha.to(private.dtype))

    def private(self, x_FLd: Tensor) -> Tensor:
        """The weighted sum of each token's experts, (N, d), before alpha."""
        weights, experts = self.route(x_FLd)
        order = experts.flatten().argsort(stable=True)
        inverse = torch.empty_like(order).scatter_(0, order, torch.arange(len(order), device=order.device))
        counts = torch.bincount(experts.flatten(), minlength=self.config.count)
        x = x_FLd.flatten(0, 1).to(_compute_dtype(x_FLd))
        hidden_in = _Spread.apply(x, order, inverse, self.config.top)
        out = self._segments(hidden_in, counts, weights.flatten()[order].to(x.dtype))
        return cast(Tensor, _Collect.apply(out, order, inverse, self.config.top))

    def route(self, x_FLd: Tensor) -> tuple[Tensor, Tensor]:
        """Gate weights (N, k), softmax over all experts and not renormalised, and expert numbers (N, k)."""
        logits = self.gate(x_FLd).float()
        if self.training and self.config.noise > 0:
            logits = logits + self.config.noise * self._noise(logits)
        weights, experts = logits.softmax(-1).topk(self.config.top, dim=-1)
        if self.released:
            experts = _scrambled(experts)
        return weights.flatten(0, 1), experts.flatten(0, 1)

    def _noise(self, logits: Tensor) -> Tensor:
        if self.routing.seeds is None:
            return torch.randn_like(logits)
        return noise.normal(self.routing.seeds, self.block, logits.shape[1], self.config.count)

    def _segments(self, x: Tensor, counts: Tensor, weights: Tensor) -> Tensor:
        """Each expert over its own rows of `x` (k*N, d), sorted by expert; rows come back scaled by `weights`."""
        aligned = not (self.w1.shape[1] % 8 or self.w1.shape[2] % 8)  # the kernel reads 16 bytes at a time
        if x.is_cuda and x.dtype == torch.bfloat16 and aligned:
            return self._grouped(x, counts, weights)
        sizes = counts.tolist()
        rows_of_each, weights_of_each = torch.split(x, sizes), torch.split(weights, sizes)
        parameters = (self.w1.unbind(), self.b1.unbind(), self.w2.unbind(), self.b2.unbind())
        return torch.cat([
            torch.addmm(b2, functional.gelu(torch.addmm(b1, rows, w1)), w2) * weight[:, None]
            for rows, weight, w1, b1, w2, b2 in zip(rows_of_each, weights_of_each, *parameters, strict=True)
        ])  # fmt: skip

    def _grouped(self, x: Tensor, counts: Tensor, weights: Tensor) -> Tensor:
        """The same as one kernel per linear map: no wait for the counts, so it compiles and never syncs."""
        ends = counts.cumsum(0).to(torch.int32)
        rows = torch.repeat_interleave(counts, output_size=len(x))
        w1, b1, w2, b2 = (p.to(x.dtype) for p in (self.w1, self.b1, self.w2, self.b2))
        hidden = functional.gelu(functional.grouped_mm(x, w1, offs=ends) + b1[rows])
        return (functional.grouped_mm(hidden, w2, offs=ends) + b2[rows]) * weights[:, None]


class _Spread(torch.autograd.Function):
    """Rows of x (N, d) in the order of the sorted routes (k*N, d).

    Both directions gather (autograd would scatter with atomics), which is faster and deterministic.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, order: Tensor, inverse: Tensor, top: int) -> Tensor:
        ctx.save_for_backward(inverse)
        ctx.top = top
        return x.index_select(0, order // top)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None, None]:
        (inverse,) = ctx.saved_tensors
        return _sum_routes(grads[0], inverse, ctx.top), None, None, None


class _Collect(torch.autograd.Function):
    """The transpose of `_Spread`: sums each token's sorted routes (k*N, d) into (N, d)."""

    @staticmethod
    def forward(ctx: Any, routed: Tensor, order: Tensor, inverse: Tensor, top: int) -> Tensor:
        ctx.save_for_backward(order)
        ctx.top = top
        return _sum_routes(routed, inverse, top)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None, None]:
        (order,) = ctx.saved_tensors
        return grads[0].index_select(0, order // ctx.top), None, None, None


def _scrambled(experts_FLk: Tensor) -> Tensor:
    """The released code's expert table: cut into k pieces of length N, so pass j sends token i to flat j*N + i.

    DEVIATION: only to reproduce released checkpoints (section 8 b). Its tokens are numbered position first, frames
    second, as OpenAI's CLIP lays them out; found by matching the reference outputs.
    """
    frames, positions, top = experts_FLk.shape
    table = experts_FLk.transpose(0, 1).reshape(top, positions, frames)
    return table.permute(2, 1, 0)


def _sum_routes(routed: Tensor, inverse: Tensor, top: int) -> Tensor:
    return routed.index_select(0, inverse).view(-1, top, routed.shape[-1]).sum(1)


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
