"""One reader, many workers: a checkpoint is read by the first worker and sent to the others, a tensor at a time.

What is not a tensor travels first, in one message; a tensor's place in it holds its shape and type. So memory stays at
one state on each worker, also where it goes through a GPU.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist


@dataclass(frozen=True)
class _Place:
    """Where a tensor belongs."""

    shape: torch.Size
    dtype: torch.dtype


def broadcast(value: Any, device: torch.device) -> Any:
    """The first worker's `value` on every worker, tensors on the CPU; the others hand in None. All call it together."""
    outline = [_outline(value) if dist.get_rank() == 0 else None]
    dist.broadcast_object_list(outline, src=0, device=device)
    tensors = _tensors(value) if dist.get_rank() == 0 else iter(())
    return _filled(outline[0], tensors, device)


def _outline(value: Any) -> Any:
    if isinstance(value, torch.Tensor):
        return _Place(value.shape, value.dtype)
    if isinstance(value, dict):
        return {key: _outline(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(_outline(item) for item in value)
    return value


def _tensors(value: Any) -> Iterator[torch.Tensor]:
    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, (dict, list, tuple)):
        for item in value.values() if isinstance(value, dict) else value:
            yield from _tensors(item)


def _filled(outline: Any, tensors: Iterator[torch.Tensor], device: torch.device) -> Any:
    if isinstance(outline, _Place):
        mine = next(tensors, None)
        sent = torch.empty(outline.shape, dtype=outline.dtype) if mine is None else mine
        sent = sent.to(device).contiguous().reshape(-1)
        dist.broadcast(sent.view(torch.uint8), src=0)  # as bytes: not every type of tensor can be sent
        return sent.cpu().reshape(outline.shape)
    if isinstance(outline, dict):
        return {key: _filled(item, tensors, device) for key, item in outline.items()}
    if isinstance(outline, (list, tuple)):
        return type(outline)(_filled(item, tensors, device) for item in outline)
    return outline
