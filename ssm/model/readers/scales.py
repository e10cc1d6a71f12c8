"""An AU's features at three scales of space and time (methods, 4; the bands are MDHR's).

    s1: what a learned query of the AU gathers over the patches; s2: the mean of the AU's band of rows (upper 0-3/7,
    middle 2/7-5/7, lower 4/7-1); s3: the mean of the face. Each over a window of frames, centred:
    h_{s,a} = ReLU(LN(Linear_{s,a}[f; mean of f; mean of f_t - f_{t-1}]))

Letters: B clips, T frames, P patches, D width, A action units, H width of h, s scales.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

_BANDS = {"upper": (0, 3 / 7), "middle": (2 / 7, 5 / 7), "lower": (4 / 7, 1)}
_BAND = {1: "upper", 2: "upper", 4: "upper", 5: "upper", 7: "upper", 6: "middle", 9: "middle", 10: "middle"}
"""The band of each AU; those not named move the lower face."""


def band_shares(aus: Sequence[int], grid: tuple[int, int]) -> Tensor:
    """The share of each patch in the mean of each AU's band: (A, P). A band has at least one row."""
    down, across = grid
    shares = torch.zeros(len(aus), down, across)
    for place, number in enumerate(aus):
        first, last = (edge * down for edge in _BANDS[_BAND.get(number, "lower")])
        low = min(int(first), down - 1)
        shares[place, low : max(low + 1, math.ceil(last))] = 1
    shares = shares.flatten(1)
    return shares / shares.sum(1, keepdim=True)


def windowed(f_BTX: Tensor, window: int) -> Tensor:
    """The mean over the frames within half a window on both sides, of those that the clip has."""
    reach = window // 2
    padded = functional.pad(f_BTX, (0, 0, reach, reach))
    inside = functional.pad(f_BTX.new_ones(f_BTX.shape[1]), (reach, reach))
    total = padded.unfold(1, window, 1).sum(-1)
    return total / inside.unfold(0, window, 1).sum(-1)[:, None]


class Scales(nn.Module):
    """h of every scale and AU."""

    bands: Tensor

    def __init__(
        self, width: int, aus: Sequence[int], grid: tuple[int, int], hidden: int, windows: Sequence[int]
    ) -> None:
        super().__init__()
        self.windows, start = tuple(windows), math.sqrt(2 / (3 * width))
        self.queries = nn.Parameter(torch.randn(len(aus), width) * 0.02)
        self.weight = nn.Parameter(torch.randn(len(self.windows), len(aus), 3 * width, hidden) * start)
        self.bias = nn.Parameter(torch.zeros(len(self.windows), len(aus), hidden))
        self.norm = nn.LayerNorm(hidden)
        self.register_buffer("bands", band_shares(aus, grid), persistent=False)

    def forward(self, tokens_BTPD: Tensor) -> Tensor:
        """(s, B, T, A, H)."""
        scores = tokens_BTPD @ self.queries.T.to(tokens_BTPD.dtype) * tokens_BTPD.shape[-1] ** -0.5
        looked = scores.softmax(2).transpose(2, 3).to(tokens_BTPD.dtype) @ tokens_BTPD  # B T A D
        banded = self.bands.to(tokens_BTPD.dtype) @ tokens_BTPD
        whole = tokens_BTPD.mean(2, keepdim=True).expand_as(banded)
        return torch.stack([self._scale(number, f) for number, f in enumerate((looked, banded, whole))])

    def _scale(self, number: int, f_BTAD: Tensor) -> Tensor:
        flat = f_BTAD.flatten(2)
        change = torch.cat([torch.zeros_like(flat[:, :1]), flat[:, 1:] - flat[:, :-1]], dim=1)
        window = self.windows[number]
        parts = (flat, windowed(flat, window), windowed(change, window))
        joined = torch.cat([part.view_as(f_BTAD) for part in parts], dim=-1)
        mapped = torch.einsum("btac,ach->btah", joined, self.weight[number].to(joined.dtype)) + self.bias[number]
        return cast(Tensor, self.norm(mapped).relu())
