"""Time: the expression side's transformer layer, the AU side's local attention and smoothing (method, section 5).

Letters: B clips, T frames, D width, h heads, A action units, n neighbours (2 radius + 1).
"""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from ssm.model.config import AUTimeConfig, ExpressionTimeConfig
from ssm.model.precision import full, island


class ExpressionTime(nn.Module):
    """One pre-norm transformer layer over `[cls; frames] + positions`; gives the clip's feature."""

    def __init__(self, width: int, frames: int, config: ExpressionTimeConfig) -> None:
        super().__init__()
        inner = config.heads * config.head_width
        self.heads, self.frames = config.heads, frames
        self.cls = nn.Parameter(torch.randn(1, 1, width))
        self.positions = nn.Parameter(torch.randn(1, frames + 1, width))
        self.norm1 = nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * inner, bias=False)
        self.out = nn.Linear(inner, width)
        self.norm2 = nn.LayerNorm(width)
        self.fc1 = nn.Linear(width, config.hidden)
        self.fc2 = nn.Linear(config.hidden, width)
        self.norm = nn.LayerNorm(width)
        self.residual = nn.Parameter(torch.ones(1))

    def forward(self, x_BTD: Tensor) -> Tensor:
        """Clip features (B, D): LayerNorm(out_cls + r * in_cls). At most `frames` frames."""
        clips, frames, _ = x_BTD.shape
        x = torch.cat([self.cls.expand(clips, -1, -1), x_BTD], dim=1) + self.positions[:, : frames + 1]
        in_cls = x[:, 0]
        # Only the cls row is read, so only it asks, and the feed-forward part runs over it alone.
        out_cls = in_cls + self._attend(self.norm1(x))
        hidden = functional.gelu(self.fc1(self.norm2(out_cls)), approximate="tanh")
        return cast(Tensor, self.norm(out_cls + self.fc2(hidden) + self.residual * in_cls))

    def _attend(self, x: Tensor) -> Tensor:
        """What the cls row (the first) gathers from all rows: (B, D)."""
        q, k, v = self.qkv(x).view(*x.shape[:2], 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        mixed = functional.scaled_dot_product_attention(q[:, :, :1], k, v)
        return cast(Tensor, self.out(mixed.flatten(1)))


class LocalFrameAttention(nn.Module):
    """Frames look at their neighbours' raw features; starts as the identity. Any number of frames, linear cost.

    `x + strength * tanh(c) * (context - x)` with one gate c per channel, starting at 0.
    """

    def __init__(self, width: int, config: AUTimeConfig) -> None:
        super().__init__()
        self.heads, self.radius, self.strength = config.heads, config.radius, config.strength
        self.norm = nn.LayerNorm(width)
        self.q = nn.Linear(width, width, bias=False)
        self.k = nn.Linear(width, width, bias=False)
        bias = torch.zeros(config.heads, 2 * config.radius + 1)
        bias[:, config.radius] = 1
        self.bias = nn.Parameter(bias)
        self.channel_gate = nn.Parameter(torch.zeros(width))
        nn.init.xavier_uniform_(self.q.weight, gain=0.5)
        with torch.no_grad():
            self.k.weight.copy_(self.q.weight)

    def forward(self, x_BTD: Tensor) -> Tensor:
        """Features (B, T, D) to features (B, T, D)."""
        normed = self.norm(x_BTD)
        by_head = (*x_BTD.shape[:2], self.heads, -1)
        q, k, values = self.q(normed).view(by_head), self.k(normed).view(by_head), x_BTD.reshape(by_head)
        scores = (q.unsqueeze(2) * self._neighbours(k)).sum(-1) * q.shape[-1] ** -0.5
        scores = scores + self.bias.T[None, None]
        weights = scores.masked_fill(~self._inside(x_BTD), float("-inf")).softmax(dim=2)
        context: Tensor = (weights[..., None] * self._neighbours(values)).sum(2).flatten(-2)
        share: Tensor = self.strength * self.channel_gate.tanh()
        return x_BTD + share * (context - x_BTD)

    def _neighbours(self, x_BThc: Tensor) -> Tensor:
        """(B, T, n, h, c): the frames i - radius .. i + radius of each frame i, zero outside the clip."""
        frames, reach = x_BThc.shape[1], self.radius
        padded = functional.pad(x_BThc, (0, 0, 0, 0, reach, reach))
        return torch.stack([padded[:, offset : offset + frames] for offset in range(2 * reach + 1)], dim=2)

    def _inside(self, x_BTD: Tensor) -> Tensor:
        """(1, T, n, 1) bool: whether the neighbour exists."""
        frames = x_BTD.shape[1]
        offsets = torch.arange(-self.radius, self.radius + 1, device=x_BTD.device)
        neighbour = torch.arange(frames, device=x_BTD.device)[:, None] + offsets
        return ((neighbour >= 0) & (neighbour < frames))[None, :, :, None]


class AUSmoothing(nn.Module):
    """Learnable depthwise convolution of AU logits over the whole clip; edge frames are repeated.

    DEVIATION: the released code smooths groups of two frames with zero padding, which shrinks every logit and smooths
    nothing across pairs; `released=True` reproduces it. Ours keeps a constant signal constant, at the edges too.
    """

    def __init__(self, aus: int, config: AUTimeConfig, *, released: bool) -> None:
        super().__init__()
        self.released = released
        self.weight = nn.Parameter(torch.full((aus, 1, config.smoothing), 1 / config.smoothing))

    def forward(self, logits_BTA: Tensor) -> Tensor:
        """Logits (B, T, A) to logits (B, T, A), in float32."""
        with island(logits_BTA):
            return self._smooth(full(logits_BTA))

    def _smooth(self, logits_BTA: Tensor) -> Tensor:
        aus, reach = self.weight.shape[0], self.weight.shape[-1] // 2
        if self.released:
            if logits_BTA.shape[1] % 2:
                raise ValueError(f"the released smoothing takes an even number of frames; got {logits_BTA.shape[1]}")
            pairs = logits_BTA.reshape(-1, 2, aus).transpose(1, 2)
            smooth = functional.conv1d(pairs, self.weight, padding=reach, groups=aus)
            return smooth.transpose(1, 2).reshape(logits_BTA.shape)
        padded = functional.pad(logits_BTA.transpose(1, 2), (reach, reach), mode="replicate")
        return functional.conv1d(padded, self.weight, groups=aus).transpose(1, 2)
