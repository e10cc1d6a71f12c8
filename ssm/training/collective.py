"""What a training step asks of its peers: sums, row-wise concatenation and exchange of rows over workers.

The step is written once against `Collective`; alone it gets `SingleProcess`, under DDP `ProcessGroup`.
"""

from __future__ import annotations

from typing import Protocol

import torch
import torch.distributed as dist
from torch import Tensor


class Collective(Protocol):
    """Workers that hold a global batch in rank order, in tensors of one shape (`shares`)."""

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

    def take(self, tensor: Tensor, rows: Tensor) -> Tensor:
        """This worker's part of `gather(tensor)[rows]`, for a permutation of all rows (int64, CPU, the same on all)."""
        ...


class SingleProcess:
    """One worker: what it has is all there is."""

    world = 1
    rank = 0

    def sum(self, tensor: Tensor) -> Tensor:
        """The tensor itself."""
        return tensor

    def gather(self, tensor: Tensor) -> Tensor:
        """The tensor itself."""
        return tensor

    def take(self, tensor: Tensor, rows: Tensor) -> Tensor:
        """Its rows."""
        return tensor[send(rows, tensor.device)]


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
        source = _carried(tensor)
        out = source.new_empty((self.world * len(source), *source.shape[1:]))
        dist.all_gather_into_tensor(out, source.contiguous(), group=self._group)
        return out.to(tensor.dtype)

    def take(self, tensor: Tensor, rows: Tensor) -> Tensor:
        """All-to-all: each row travels once, to the worker that asks for it, whatever the number of workers."""
        local = len(tensor)
        owner_WB, place_WB = (part.view(self.world, local) for part in (rows // local, rows % local))
        asked = [place[owner == self.rank] for owner, place in zip(owner_WB, place_WB, strict=True)]
        source = _carried(tensor)[send(torch.cat(asked), tensor.device)]
        found = torch.empty_like(source)
        counts = owner_WB[self.rank].bincount(minlength=self.world).tolist()
        dist.all_to_all_single(found, source, counts, [len(part) for part in asked], group=self._group)
        # They come in the order of their owners; each goes to its place.
        by_owner = owner_WB[self.rank].argsort(stable=True)
        return found[send(by_owner.argsort(), tensor.device)].to(tensor.dtype)


def send(tensor: Tensor, device: torch.device) -> Tensor:
    """The tensor on `device`, where the host does not wait for a GPU: by way of pinned memory."""
    if device.type == "cuda" and tensor.device.type == "cpu":
        tensor = tensor.pin_memory()
    return tensor.to(device, non_blocking=True)


def _carried(tensor: Tensor) -> Tensor:
    return tensor.to(torch.uint8) if tensor.dtype == torch.bool else tensor
