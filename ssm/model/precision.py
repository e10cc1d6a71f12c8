"""Islands of float32 in a pass under autocast: what is too delicate for bfloat16's 8 bits, in training and serving.

The gate (a rounded logit sends tokens elsewhere), the text's projection and the fusion, both heads (at a mean cosine of
0.87 rounding is 29 % of the spread between classes) and the smoothing. Their cost is nil.
"""

from __future__ import annotations

import torch
from torch import Tensor


def island(tensor: Tensor) -> torch.autocast:
    """A stretch of a pass on the tensor's device without autocast."""
    return torch.autocast(tensor.device.type, enabled=False)


def full(tensor: Tensor) -> Tensor:
    """The tensor in float32 where it is in a shorter type."""
    return tensor.float() if tensor.dtype in (torch.bfloat16, torch.float16) else tensor
