"""The arithmetic of routed experts: `y_i = sum_j w_ij * expert_{e_ij}(x_i)`, once for CPUs and once for GPUs.

`segments` sorts the routes by expert and runs each expert over its own rows, with buffers written in place and a
gradient by hand: on a CPU the operations decide, and copies and fresh pages would cost a third of them. `dense` takes
all experts as ONE feed-forward part whose hidden units are multiplied by the gates, zero where a token does not go: at
top 2 of 4 twice the experts' operations, 10 % of the whole net, for plain products without a sort, a gather or a wait
for the routing, with biases' gradients summed in float32. Joined with the block's own part into two products of width
5,120 it was slower on an H200 (a step took 1.18 times the plain ViT's instead of 1.09): compiled, the two activations
become one kernel that masks both over the whole width. Letters: N tokens, k routes per token, K experts,
d width, h hidden width.
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
    counts: list[int]  # K
    top: int

    @classmethod
    def of(cls, experts_Nk: Tensor, count: int) -> Routes:
        """Sorts the routes of a table of expert numbers (N, k)."""
        flat = experts_Nk.flatten()
        order = flat.argsort(stable=True)
        inverse = torch.empty_like(order).scatter_(0, order, torch.arange(len(order), device=order.device))
        return cls(order, inverse, torch.bincount(flat, minlength=count).tolist(), experts_Nk.shape[1])

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


def spread_gates(gates_Nk: Tensor, experts_Nk: Tensor, count: int) -> Tensor:
    """(N, K): each token's gate of every expert, zero where it does not go; summed where it goes twice."""
    chosen_NkK = experts_Nk[..., None] == torch.arange(count, device=experts_Nk.device)
    return (gates_Nk[..., None] * chosen_NkK).sum(1)


def greatest(values_NK: Tensor, top: int) -> Tensor:
    """The `top` greatest of each row, zero elsewhere, by comparing all pairs: a compiler fuses that, not a sort."""
    mine, others = values_NK[:, :, None], values_NK[:, None, :]
    places = torch.arange(values_NK.shape[1], device=values_NK.device)
    before = (others > mine) | ((others == mine) & (places < places[:, None]))
    return values_NK * (before.sum(-1) < top)


def dense(x: Tensor, gates_NK: Tensor, weights: ExpertWeights) -> Tensor:
    """(N, d): all experts over all rows as two products. In the autocast type where that is on."""
    before = functional.linear(x, weights.w1.transpose(1, 2).flatten(0, 1), weights.b1.flatten())
    gates_NK = gates_NK.to(before.dtype)
    # First: a product wants its operands in memory, and a compiler that has put the gates there does not work them out
    # again for each hidden unit.
    biases = gates_NK @ weights.b2
    hidden = functional.gelu(before).view(*gates_NK.shape, -1) * gates_NK[..., None]
    return functional.linear(hidden.flatten(-2), weights.w2.flatten(0, 1).T) + biases


def segments(x: Tensor, gates_Nk: Tensor, experts_Nk: Tensor, weights: ExpertWeights) -> Tensor:
    """(N, d): each expert over its own contiguous rows; `gates_Nk` weigh the routes to `experts_Nk`."""
    routes = Routes.of(experts_Nk, len(weights.w1))
    return cast(Tensor, _Segments.apply(x, gates_Nk, weights.w1, weights.b1, weights.w2, weights.b2, routes))


class _Segments(torch.autograd.Function):
    """`segments` and its gradient. It gathers where autograd would scatter: no order of atomics to depend on."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, gates: Tensor, w1: Tensor, b1: Tensor, w2: Tensor, b2: Tensor, routes: Routes
    ) -> Tensor:
        sizes = routes.counts
        rows = x.index_select(0, routes.tokens)
        before = rows.new_empty(len(rows), w1.shape[2])
        for n, (row, out) in enumerate(_split(sizes, rows, before)):
            torch.addmm(b1[n], row, w1[n], out=out)
        hidden = functional.gelu(before)
        routed = torch.empty_like(rows)
        for n, (row, out) in enumerate(_split(sizes, hidden, routed)):
            torch.addmm(b2[n], row, w2[n], out=out)
        ctx.save_for_backward(rows, before, hidden, gates, w1, w2, b2)
        ctx.routes = routes
        return _gather_sum(routed, routes, gates)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        rows, before, hidden, gates, w1, w2, b2 = ctx.saved_tensors
        routes, sizes = ctx.routes, ctx.routes.counts
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
        d_x = _gather_sum(routed, routes, None)
        return d_x, d_gates[routes.inverse].view_as(gates), d_w1, d_b1, d_w2, d_b2, None


def _gather_sum(routed: Tensor, routes: Routes, gates: Tensor | None) -> Tensor:
    """(N, d): each token's k routes, weighed and summed; an embedding bag does it without a copy of them."""
    places = routes.inverse.view(-1, routes.top)
    return functional.embedding_bag(places, routed, mode="sum", per_sample_weights=gates)


def _split(sizes: list[int], *tensors: Tensor) -> zip[tuple[Tensor, ...]]:
    return zip(*(torch.split(tensor, sizes) for tensor in tensors), strict=True)
