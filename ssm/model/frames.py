"""Reading frame by frame: small heads on the pooled features of an encoder, nothing over time.

The strong simple entry of the ABAW challenges (arXiv 2603.12693): frozen embeddings, e -> 128 -> K. What it lacks over
time, smoothing afterwards gives (`ssm.interface.smoothing`). Letters: B clips, T frames, D width, K labels of a head.
"""

from __future__ import annotations

from typing import cast

from torch import Tensor, nn

from ssm.model.precision import full, island


class FrameHead(nn.Module):
    """Features (..., D) to logits (..., K): D -> hidden, ReLU, -> K."""

    def __init__(self, width: int, hidden: int, labels: int) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(width, hidden), nn.ReLU(), nn.Linear(hidden, labels))

    def forward(self, features: Tensor, prototypes: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        """Logits; there is no semantic part, as of `SemanticHead`."""
        with island(features):
            return cast(Tensor, self.net(full(features))), None


class ClipOfFrames(FrameHead):
    """The same for a label of the whole clip: (B, T, D) to the mean (B, K) of its frames' log-probabilities."""

    def forward(self, features: Tensor, prototypes: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        """Logits (B, K)."""
        frames, _ = super().forward(features)
        return frames.log_softmax(-1).mean(1), None
