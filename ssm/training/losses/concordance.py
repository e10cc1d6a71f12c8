"""The loss of valence and arousal: 1 - CCC over a whole global batch, exact over workers, as a sum over frames.

    1 - CCC = N / D,   N = mean (p - y)^2,   D = mean p^2 + mean y^2 - 2 mean p mean y

CCC is no sum of samples. But with N, D and mean y of the whole step as constants, the term of a frame

    l = (p - y)^2 / D - N (p^2 - 2 mean_y p) / D^2

has exactly CCC's gradient when averaged, and N / D is the average of (p - y)^2 / D: value and gradient are global sums
over global counts once the moments of the step are known. They are one all-reduce of 12 numbers between forward and
backward; where a step is cut into micro-batches nobody can wait for the last one, and the moments are running means of
the steps before (`Moments`). A dimension with fewer than 4 labelled frames or constant labels has value 1, as of a
prediction that knows nothing, and no gradient. Letters: B clips, T frames, K the two dimensions.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor

SUMS = ("n", "p", "y", "pp", "yy", "py")
"""What is summed over labelled frames, by weight, for each dimension."""

_GUARD = 1e-8
_LEAST = 4  # labelled frames of a dimension
_FLAT = 1e-10  # variance of labels that are constant


def moments(p_BTK: Tensor, y_BTK: Tensor, weights_BTK: Tensor) -> Tensor:
    """The sums of one pass (K 6), float64 and without gradient."""
    p, y, w = (tensor.detach().double() for tensor in (p_BTK, y_BTK, weights_BTK))
    terms = (torch.ones_like(p), p, y, p * p, y * y, p * y)
    return torch.stack([(w * term).sum((0, 1)) for term in terms], dim=1)


def concordance_loss(p_BTK: Tensor, y_BTK: Tensor, weights_BTK: Tensor, moments_K6: Tensor) -> Tensor:
    """Sum over labelled frames whose mean, over all workers, is the mean of 1 - CCC over the dimensions.

    `moments_K6` are those of the global batch, or running means of them: only ratios to their counts enter.
    """
    n, *sums = moments_K6.unbind(1)
    p_mean, y_mean, pp, yy, py = (total / n.clamp_min(_GUARD) for total in sums)
    error, spread = pp + yy - 2 * py, pp + yy - 2 * p_mean * y_mean + _GUARD
    learns = (n >= _LEAST) & (yy - y_mean**2 > _FLAT)
    p, y = p_BTK.double(), y_BTK.double()
    value = (p - y) ** 2 / spread
    slope = value - error * (p * p - 2 * y_mean * p) / spread**2
    exact = torch.where(learns, value.detach() + slope - slope.detach(), torch.ones_like(value))
    shares = n / n.sum().clamp_min(_GUARD)  # a frame counts for as much as its dimension has frames
    per_dimension = 1 / (shares.clamp_min(_GUARD) * (n > 0).sum().clamp_min(1))
    return (weights_BTK.double() * exact * per_dimension).sum().float()


class Moments:
    """The moments of the step for each loss that needs them, by name; running means of them where nobody waits."""

    def __init__(self, names: Iterable[str], momentum: float, waits: bool, add: Callable[[Tensor], Tensor]) -> None:
        """`waits`: a step is one pass, so its own moments are summed over the workers by `add` before its gradient."""
        self._momentum, self._waits, self._add = momentum, waits, add
        self._running: dict[str, Tensor | None] = dict.fromkeys(names)
        self._step: dict[str, Tensor] = {}

    def __call__(self, name: str, own_K6: Tensor) -> Tensor:
        """The moments to use in a pass whose own ones, on this worker, are these. All workers call it together."""
        if self._waits:
            return self._add(own_K6)
        self._step[name] = self._step[name] + own_K6 if name in self._step else own_K6
        running = self._running[name]
        return self._add(own_K6) if running is None else running

    def start(self) -> None:
        """As `settle`, but leaves the means that are known already as they are: of a pass that only looks."""
        self._step = {name: own for name, own in self._step.items() if self._running[name] is None}
        self.settle()

    def settle(self) -> None:
        """Takes the moments of all passes since the last call into the running means. All workers call it together."""
        for name, own in self._step.items():
            total, running = self._add(own), self._running[name]
            moved = total if running is None else running * self._momentum + total * (1 - self._momentum)
            self._running[name] = torch.where(total[:, :1] > 0, moved, total if running is None else running)
        self._step.clear()

    def state_dict(self) -> dict[str, Tensor]:
        """The running means that there are; none where a step waits."""
        return {name: running for name, running in self._running.items() if running is not None}

    def load_state_dict(self, state: dict[str, Any], device: torch.device) -> None:
        """Take over what `state_dict` gave."""
        self._running = {name: state[name].to(device, copy=True) if name in state else None for name in self._running}
        self._step.clear()
