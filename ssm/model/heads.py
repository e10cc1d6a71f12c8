"""The two read-outs: a linear map, and the cosine to the fused prototypes (method, section 5).

`logits = Linear(x) + w * cos(x, t') / temperature`, in float32 whatever the pass is in.
Letters: D width, L labels of the head.
"""

from __future__ import annotations

from typing import cast

from torch import Tensor, nn
from torch.nn import functional

from ssm.model.precision import full, island


class SemanticHead(nn.Module):
    """Features (..., D) to logits (..., L)."""

    def __init__(self, width: int, labels: int, semantic_weight: float, temperature: float) -> None:
        super().__init__()
        self.linear = nn.Linear(width, labels)
        self.scale = semantic_weight / temperature

    def forward(self, features: Tensor, prototypes_LD: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Total logits and, where there are prototypes, the semantic part of them (already times w)."""
        return add_semantic(self.linear, self.scale, features, prototypes_LD)


def add_semantic(
    linear: nn.Linear, scale: float, features: Tensor, prototypes_LD: Tensor | None
) -> tuple[Tensor, Tensor | None]:
    """Total logits (..., L) and their semantic part."""
    with island(features):
        features = full(features)
        direct = cast(Tensor, linear(features))
        if prototypes_LD is None:
            return direct, None
        semantic = scale * cosine_scores(features, prototypes_LD)
        return direct + semantic, semantic


def cosine_scores(features: Tensor, prototypes_LD: Tensor) -> Tensor:
    """Cosines (..., L) of features (..., D) to normalised rows, in float32."""
    return functional.normalize(features, dim=-1) @ full(prototypes_LD).T
