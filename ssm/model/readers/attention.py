"""Multi-head attention that starts at zero, and its form for few queries over many keys.

`MultiHead` is the usual one. `absorbed` gives the same numbers where queries are few and the same for every picture:
q . (W_k u) = (W_k^T q) . u and sum_p w_p W_v u_p = W_v sum_p w_p u_p, so the keys themselves are never projected.
Letters: L queries, S keys, D width, h heads, e = D / h.
"""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional


class MultiHead(nn.Module):
    """Queries (..., L, D) over keys (..., S, D) to (..., L, D); zero at the start of training."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.q, self.k, self.v = (nn.Linear(width, width, bias=False) for _ in range(3))
        self.out = nn.Linear(width, width)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)

    def forward(self, queries: Tensor, keys: Tensor) -> Tensor:
        """What each query gathers; leading axes are broadcast."""
        q, k, v = (self._by_head(rows) for rows in (self.q(queries), self.k(keys), self.v(keys)))
        mixed = functional.scaled_dot_product_attention(q, k, v).transpose(-3, -2)
        return cast(Tensor, self.out(mixed.flatten(-2)))

    def _by_head(self, rows: Tensor) -> Tensor:
        """(..., L, D) to (..., h, L, e)."""
        return rows.reshape(*rows.shape[:-1], self.heads, -1).transpose(-3, -2)

    def absorbed(self, queries_ALD: Tensor) -> Tensor:
        """W_k^T q / sqrt(e) of each head: (A, h, L, D), to be multiplied with the keys as they are."""
        q_AhLe = self._by_head(self.q(queries_ALD))
        w_heD = self.k.weight.view(self.heads, -1, self.k.in_features)
        scale: float = q_AhLe.shape[-1] ** -0.5
        return torch.einsum("ahle,hed->ahld", q_AhLe, w_heD.to(q_AhLe.dtype)) * scale

    def values(self, mixed_FAhLD: Tensor) -> Tensor:
        """W_v and the output projection of keys gathered by each head: (F, A, L, D)."""
        w_heD = self.v.weight.view(self.heads, -1, self.v.in_features).to(mixed_FAhLD.dtype)
        return cast(Tensor, self.out(torch.einsum("fahld,hed->falhe", mixed_FAhLD, w_heD).flatten(-2)))
