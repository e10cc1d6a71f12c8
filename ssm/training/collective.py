"""What a training step asks of its peers: sums and row-wise concatenation over workers.

The step is written once against `Collective`; alone it gets `SingleProcess`, under DDP `ProcessGroup`.
"""

from __future__ import annotations

from typing import Protocol

import torch
import torch.distributed as dist
from torch import Tensor


class Collective(Protocol):
    """Workers that hold equal slices of a global batch, in rank order."""

    @property
    def world(self) -> int:
        """How many workers there are."""
        ...

    @property
    def rank(self) -> int:
        """This worker's place, from 0."""
        ...

    def sum(self, tensor: Tensor) -> Tensor:
        """The sum of every worker's tensor; the argument is left as it is."""
        ...

    def gather(self, tensor: Tensor) -> Tensor:
        """Every worker's tensor (equal shapes), concatenated along the first dimension in rank order."""
        ...


class SingleProcess:
    """One worker: both operations return their argument."""

    world = 1
    rank = 0

    def sum(self, tensor: Tensor) -> Tensor:
        """The tensor itself."""
        return tensor

    def gather(self, tensor: Tensor) -> Tensor:
        """The tensor itself."""
        return tensor


class ProcessGroup:
    """The workers of a `torch.distributed` group that has been initialised (gloo or NCCL)."""

    def __init__(self, group: dist.ProcessGroup | None = None) -> None:
        self._group = group
        self.world = dist.get_world_size(group)
        self.rank = dist.get_rank(group)

    def sum(self, tensor: Tensor) -> Tensor:
        """All-reduce of a copy."""
        total = tensor.clone()
        dist.all_reduce(total, group=self._group)
        return total

    def gather(self, tensor: Tensor) -> Tensor:
        """All-gather; bool travels as bytes, which every backend can carry."""
        source = tensor.to(torch.uint8) if tensor.dtype == torch.bool else tensor
        out = source.new_empty((self.world * len(source), *source.shape[1:]))
        dist.all_gather_into_tensor(out, source.contiguous(), group=self._group)
        return out.to(tensor.dtype)
