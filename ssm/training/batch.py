"""Typed batches: what one training or evaluation step receives, one class per task.

Letters: B clips, T frames, H W pixels, A action units, E expressions. Clips travel as uint8 and are
normalised on the device (`ssm.interface.preprocessing.normalise`); labels are dense arrays beside a mask, never ragged.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class FEBatch:
    """Clips with one expression each. `class_mask` marks the classes of the clip's own corpus; none: no label."""

    clips: Tensor  # uint8 B T H W 3
    labels: Tensor  # int64 B, column of the vocabulary
    class_mask: Tensor  # bool B E, the softmax runs over these
    row_ids: Tensor  # int64 B, the row of the plan; seeds whatever is random about the clip in the model

    def to(self, device: torch.device) -> FEBatch:
        """The same batch on `device` (copies do not block the host where the source is pinned)."""
        return FEBatch(*_move((self.clips, self.labels, self.class_mask, self.row_ids), device))


@dataclass(frozen=True)
class AUBatch:
    """Clips with frame-level AU targets. Where `mask` is False the target is unknown and means nothing."""

    clips: Tensor  # uint8 B T H W 3
    targets: Tensor  # float32 B T A in [0, 1]
    mask: Tensor  # bool B T A
    row_ids: Tensor  # int64 B

    def to(self, device: torch.device) -> AUBatch:
        """The same batch on `device` (copies do not block the host where the source is pinned)."""
        return AUBatch(*_move((self.clips, self.targets, self.mask, self.row_ids), device))


def _move(tensors: tuple[Tensor, ...], device: torch.device) -> list[Tensor]:
    return [tensor.to(device, non_blocking=True) for tensor in tensors]
