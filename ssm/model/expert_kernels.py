"""The arithmetic of routed experts: `y_i = sum_j w_ij * expert_{e_ij}(x_i)`, twice, for CPUs and for GPUs.

Routes are sorted by expert once. `segments` runs each expert over its own rows with buffers written in place and a
gradient by hand: on a CPU, copies and fresh pages would cost as much as a third of the products. `grouped` is one
kernel per linear map for all experts, never waits for the routing, and compiles. Both gather where autograd would
scatter, so gradients do not depend on the order of atomics.
Letters: N tokens, k routes per token, K experts, d width, h hidden width.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor
from torch.nn import functional

aten: Any = torch.ops.aten


@dataclass(frozen=True)
class Routes:
    """The k*N routes sorted by expert: where each comes from, where each token's went, how many each expert got."""

    order: Tensor  # k*N, positions in the flattened (N, k) table
    inverse: Tensor  # k*N, the inverse permutation
    experts: Tensor  # k*N, ascending
    counts: Tensor  # K
    top: int

    @classmethod
    def of(cls, experts_Nk: Tensor, count: int) -> Routes:
        """Sorts the routes of a table of expert numbers (N, k)."""
        flat = experts_Nk.flatten()
        order = flat.argsort(stable=True)
        inverse = torch.empty_like(order).scatter_(0, order, torch.arange(len(order), device=order.device))
        # Not `bincount`: the length of its result is data, which ends a compiled graph.
        counts = (flat[:, None] == torch.arange(count, device=flat.device)).sum(0)
        return cls(order, inverse, flat[order], counts, experts_Nk.shape[1])

    @property
    def tokens(self) -> Tensor:
        """The token of each sorted route."""
        return self.order // self.top


@dataclass(frozen=True)
class ExpertWeights:
    """All experts' parameters, multiplied from the right: (K, d, h), (K, h), (K, h, d), (K, d)."""

    w1: Tensor
    b1: Tensor
    w2: Tensor
    b2: Tensor

    def to(self, dtype: torch.dtype) -> ExpertWeights:
        """The same in another type; gradients go back to the original."""
        return ExpertWeights(self.w1.to(dtype), self.b1.to(dtype), self.w2.to(dtype), self.b2.to(dtype))


# The segments' lengths are data: compiled, there would be a graph per batch.
@torch.compiler.disable  # type: ignore[untyped-decorator]
def segments(x: Tensor, gates: Tensor, routes: Routes, weights: ExpertWeights) -> Tensor:
    """(N, d): each expert over its own contiguous rows; `gates` (N, k) weigh the routes."""
    sizes: list[int] = routes.counts.tolist()
    return cast(
        Tensor,
        _Segments.apply(x, gates, weights.w1, weights.b1, weights.w2, weights.b2, routes, sizes),
    )


def grouped(x: Tensor, gates: Tensor, routes: Routes, weights: ExpertWeights) -> Tensor:
    """The same by grouped products; widths must be multiples of 8 in bfloat16."""
    ends = routes.counts.cumsum(0).to(torch.int32)
    rows = _Spread.apply(x, routes.tokens, routes.inverse, routes.top)
    hidden = functional.gelu(functional.grouped_mm(rows, weights.w1, offs=ends) + weights.b1[routes.experts])
    out = functional.grouped_mm(hidden, weights.w2, offs=ends) + weights.b2[routes.experts]
    return cast(
        Tensor,
        _Collect.apply(out * gates.flatten()[routes.order, None], routes.tokens, routes.inverse, routes.top),
    )


class _Segments(torch.autograd.Function):
    """`segments` and its gradient."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, gates: Tensor, w1: Tensor, b1: Tensor, w2: Tensor, b2: Tensor,
        routes: Routes, sizes: list[int],
    ) -> Tensor:  # fmt: skip
        rows = x.index_select(0, routes.tokens)
        before = rows.new_empty(len(rows), w1.shape[2])
        for n, (row, out) in enumerate(zip(torch.split(rows, sizes), torch.split(before, sizes), strict=True)):
            torch.addmm(b1[n], row, w1[n], out=out)
        hidden = functional.gelu(before)
        routed = torch.empty_like(rows)
        for n, (row, out) in enumerate(zip(torch.split(hidden, sizes), torch.split(routed, sizes), strict=True)):
            torch.addmm(b2[n], row, w2[n], out=out)
        ctx.save_for_backward(rows, before, hidden, gates, w1, w2, b2)
        ctx.routes, ctx.sizes = routes, sizes
        return _gather_sum(routed, routes.inverse, routes.top, gates)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        rows, before, hidden, gates, w1, w2, b2 = ctx.saved_tensors
        routes, sizes = ctx.routes, ctx.sizes
        routed = grads[0].index_select(0, routes.tokens)  # gradient of each route, before its gate
        d_hidden, d_gates = torch.empty_like(hidden), gates.new_empty(len(rows))
        for n, (row, out, gate) in enumerate(_split(sizes, routed, d_hidden, d_gates)):
            torch.mm(row, w2[n].T, out=out)
            torch.mv(row, b2[n], out=gate)
        d_gates += (d_hidden * hidden).sum(1)
        gate = gates.flatten()[routes.order, None]
        routed *= gate
        d_before = aten.gelu_backward(d_hidden.mul_(gate), before)
        d_w1, d_w2, d_b1, d_b2 = (torch.empty_like(p) for p in (w1, w2, w1[:, 0], b2))
        for n, (row, inner, d_out, d_in) in enumerate(_split(sizes, rows, hidden, routed, d_before)):
            torch.mm(inner.T, d_out, out=d_w2[n])
            torch.sum(d_out, 0, out=d_b2[n])
            torch.mm(row.T, d_in, out=d_w1[n])
            torch.sum(d_in, 0, out=d_b1[n])
            torch.mm(d_in, w1[n].T, out=d_out)  # `routed` is not needed any more: it becomes the rows' gradient
        d_x = _gather_sum(routed, routes.inverse, routes.top, None)
        return d_x, d_gates[routes.inverse].view_as(gates), d_w1, d_b1, d_w2, d_b2, None, None


class _Spread(torch.autograd.Function):
    """Rows of x (N, d) in the order of the sorted routes (k*N, d)."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, tokens: Tensor, inverse: Tensor, top: int) -> Tensor:
        ctx.save_for_backward(inverse)
        ctx.top = top
        return x.index_select(0, tokens)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None, None]:
        (inverse,) = ctx.saved_tensors
        return _gather_sum(grads[0], inverse, ctx.top, None), None, None, None


class _Collect(torch.autograd.Function):
    """The transpose of `_Spread`: sums each token's sorted routes (k*N, d) into (N, d)."""

    @staticmethod
    def forward(ctx: Any, routed: Tensor, tokens: Tensor, inverse: Tensor, top: int) -> Tensor:
        ctx.save_for_backward(tokens)
        return _gather_sum(routed, inverse, top, None)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None, None]:
        (tokens,) = ctx.saved_tensors
        return grads[0].index_select(0, tokens), None, None, None


def _gather_sum(routed: Tensor, inverse: Tensor, top: int, gates: Tensor | None) -> Tensor:
    """(N, d): each token's k routes, weighed and summed. An embedding bag does it on a CPU without a copy of them."""
    if routed.device.type == "cpu":
        return functional.embedding_bag(inverse.view(-1, top), routed, mode="sum", per_sample_weights=gates)
    rows = routed.index_select(0, inverse).view(-1, top, routed.shape[-1])
    return (rows if gates is None else rows * gates[..., None]).sum(1)


def _split(sizes: list[int], *tensors: Tensor) -> zip[tuple[Tensor, ...]]:
    return zip(*(torch.split(tensor, sizes) for tensor in tensors), strict=True)
