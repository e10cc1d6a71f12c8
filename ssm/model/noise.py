"""Gate noise as a pure function of (key, row, frame, block, token, expert): any split of a batch draws the same.

A stateless integer hash (two rounds of a 32-bit multiply-xorshift per component) feeds Box-Muller on the tensors'
own device; no generator, no global state. Frames without a row of the plan fall back to `torch.randn`.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

_MASK = 0xFFFFFFFF
_ODD = 0x45D9F3B
_STEP = 0x9E3779B9


def mix(value: Tensor, salt: Tensor | int) -> Tensor:
    """Hash of two integer tensors (int64, broadcast against each other) into [0, 2**32)."""
    value = (value * _STEP + salt) & _MASK
    value = ((value ^ (value >> 16)) * _ODD) & _MASK
    value = ((value ^ (value >> 16)) * _ODD) & _MASK
    return value ^ (value >> 16)


def frame_seeds(row_ids: Tensor, frames: int, key: int | Tensor, side: int) -> Tensor:
    """One seed per frame, int64 (B*T), from the clips' global rows (int64 B); `side` keeps FE and AU rows apart."""
    times = torch.arange(frames, device=row_ids.device)
    row_seeds = mix(mix(row_ids & _MASK, key), row_ids >> 32)
    return mix(row_seeds[:, None], times[None] * 2 + side).flatten()


def normal(seeds: Tensor, block: int, tokens: int, experts: int) -> Tensor:
    """Standard normal draws, float32 (F, tokens, experts), for frames seeded by int64 `seeds` (F)."""
    cells = torch.arange(tokens * experts, device=seeds.device)
    base = mix(mix(seeds[:, None], block), cells[None])
    # 2**-32 keeps the first uniform above zero, where the logarithm would be infinite.
    radius = torch.sqrt(-2 * torch.log((base + 1).float() * 2.0**-32))
    angle = mix(base, 1).float() * (2 * math.pi * 2.0**-32)
    return (radius * torch.cos(angle)).float().view(-1, tokens, experts)
