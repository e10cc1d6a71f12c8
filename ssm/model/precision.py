"""In which type a pass multiplies, and its islands of float32: what is too delicate for bfloat16's 8 bits.

Islands: the gate (a rounded logit sends tokens elsewhere), the text's projection and the fusion, both heads (at a mean
cosine of 0.87 rounding is 29 % of the spread between classes) and the smoothing, on CPUs the patches; their cost is
nil. Training, evaluation and serving read through the same ones.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

Precision = Literal["float32", "bfloat16"]


def resolve(precision: Precision | Literal["auto"], device: torch.device) -> Precision:
    """What "auto" means on `device`: bfloat16 on a GPU that has it. ValueError for a GPU without what is asked for."""
    if precision not in ("auto", "float32", "bfloat16"):
        raise ValueError(f"precision is {precision!r}: must be auto, float32 or bfloat16")
    has_bfloat16 = device.type != "cuda" or torch.cuda.is_bf16_supported(including_emulation=False)
    if precision == "auto":
        return "bfloat16" if device.type == "cuda" and has_bfloat16 else "float32"
    if precision == "bfloat16" and not has_bfloat16:
        name = torch.cuda.get_device_name(device)
        raise ValueError(f"precision is 'bfloat16', which {name} does not have: use float32 or auto")
    return precision


def autocast(device: torch.device, precision: Precision) -> torch.autocast:
    """A pass in `precision`."""
    return torch.autocast(device.type, torch.bfloat16, enabled=precision == "bfloat16")


def island(tensor: Tensor) -> torch.autocast:
    """A stretch of a pass on the tensor's device without autocast."""
    return torch.autocast(tensor.device.type, enabled=False)


def full(tensor: Tensor) -> Tensor:
    """The tensor in float32 where it is in a shorter type."""
    return tensor.float() if tensor.dtype in (torch.bfloat16, torch.float16) else tensor
