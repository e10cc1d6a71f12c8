"""Running means of the losses, by which a step divides them. Letters: L the losses of a run."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

_TINY = 1e-8  # a loss that is exactly zero must not divide by zero


class RunningMeans:
    """One mean per loss (L), kept on the device so that a step needs no synchronisation; nan until first seen.

    The mean a step divides by is that of the steps before it (of itself at the first): it is then known before the
    forward pass, so accumulation and workers need not wait for each other in the middle of a step.
    """

    def __init__(self, names: Sequence[str], momentum: float, device: torch.device | str = "cpu") -> None:
        self.names, self.momentum = tuple(names), momentum
        self.values = torch.full((len(self.names),), torch.nan, device=device)

    @property
    def known(self) -> list[bool]:
        """Which losses have been seen. Synchronises with the device."""
        return (~self.values.isnan()).tolist()

    def update(self, losses_L: Tensor, seen_L: Tensor) -> None:
        """Take in the losses of one step where `seen_L`; the first value starts the mean."""
        moved = self.values * self.momentum + losses_L * (1 - self.momentum)
        moved = torch.where(self.values.isnan(), losses_L, moved)
        self.values = torch.where(seen_L, moved, self.values)

    def start(self, losses_L: Tensor, seen_L: Tensor) -> None:
        """As `update`, but leaves the means that are known already as they are."""
        self.update(losses_L, seen_L & self.values.isnan())

    def divisors(self) -> Tensor:
        """L: what to divide by; 1 for a loss never seen, which is zero."""
        return torch.where(self.values.isnan(), 1.0, self.values.clamp_min(_TINY))

    def check(self, state: Any) -> None:
        """ValueError unless `state` holds exactly these losses' means."""
        names = _FIRST if isinstance(state, Tensor) else tuple(state)
        if set(names) != set(self.names):
            raise ValueError(f"running means of {', '.join(names)} do not fit this run, which has {self.names}")

    def state_dict(self) -> dict[str, Tensor]:
        """The means by the name of their loss (the live tensors)."""
        return dict(zip(self.names, self.values, strict=True))

    def load_state_dict(self, state: Any) -> None:
        """Take over saved means, by name; states of before the list was open hold one tensor of four."""
        self.check(state)
        by_name = dict(zip(_FIRST, state, strict=True)) if isinstance(state, Tensor) else state
        self.values = torch.stack([by_name[name] for name in self.names]).to(self.values.device, copy=True)


_FIRST = ("fe", "au", "fe_semantic", "au_semantic")
"""The losses, in order, of states that were written as one tensor."""
