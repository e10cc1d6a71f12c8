"""Read-outs: a linear map and the cosine to the fused prototypes (method, section 5), or a small network a frame.

`logits = Linear(x) + w * cos(x, t') / temperature`; of single frames e -> hidden -> labels, the strong simple entry of
the ABAW challenges (arXiv 2603.12693). In float32 whatever the pass is in.
Letters: B clips, T frames, D width, L labels of a head.
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


class FrameHead(nn.Module):
    """Features (..., D) to logits (..., L): D -> hidden, ReLU, -> K."""

    def __init__(self, width: int, hidden: int, labels: int) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(width, hidden), nn.ReLU(), nn.Linear(hidden, labels))

    def forward(self, features: Tensor, prototypes: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        """Logits; there is no semantic part, as of `SemanticHead`."""
        with island(features):
            return cast(Tensor, self.net(full(features))), None


class ClipOfFrames(FrameHead):
    """The same for a label of the whole clip: (B, T, D) to the mean (B, L) of its frames' log-probabilities."""

    def forward(self, features: Tensor, prototypes: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        """Logits (B, L)."""
        frames, _ = super().forward(features)
        return frames.log_softmax(-1).mean(1), None


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
