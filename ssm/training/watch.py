"""Notices a loss or gradient that is nan or infinite without making the host wait for a GPU at every step."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor


class TrainingDiverged(ValueError):
    """A loss or the gradient is nan or infinite. `step` is where; `values` what was found, by name."""

    def __init__(self, step: int, values: dict[str, float]) -> None:
        self.step, self.values = step, values
        broken = ", ".join(f"{name} = {value}" for name, value in values.items() if not math.isfinite(value))
        healthy = ", ".join(f"{name} = {value:.6g}" for name, value in values.items() if math.isfinite(value))
        super().__init__(f"training diverged at step {step}: {broken} (finite: {healthy or 'none'})")

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.step, self.values)


class Watch:
    """Looks at each step's numbers: on CPU at once, on a GPU when the next step has been queued."""

    def __init__(self) -> None:
        self._pending: tuple[int, list[str], Tensor, torch.cuda.Event | None] | None = None

    def look(self, step: int, values: dict[str, Tensor]) -> None:
        """Hand in the numbers of `step`; raises `TrainingDiverged` for them (CPU) or for the step before (GPU)."""
        together = torch.stack(list(values.values())).detach()
        event = None
        if together.is_cuda:
            self.flush()
            together = together.to("cpu", non_blocking=True)
            event = torch.cuda.Event()  # type: ignore[no-untyped-call]
            event.record()
        self._pending = (step, list(values), together, event)
        if event is None:
            self.flush()

    def flush(self) -> None:
        """Wait for what was handed in last and raise `TrainingDiverged` if it is not finite."""
        pending, self._pending = self._pending, None
        if pending is None:
            return
        step, names, together, event = pending
        if event is not None:
            event.synchronize()
        if not together.isfinite().all():
            raise TrainingDiverged(step, dict(zip(names, together.tolist(), strict=True)))
