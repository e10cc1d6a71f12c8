"""What a run reads, turn by turn: training steps, and after each step that is validated the rounds of a validation.

All is arithmetic, so any turn is known without those before it, and a run that goes on somewhere reads what is left.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from ssm_platform.data.plan import Plan, Rows


@dataclass(frozen=True)
class Course:
    """What a run reads in all: its plan up to a step, and the clips it is validated on after every so many steps."""

    plan: Plan
    total: int  # steps
    validation: Rows | None = None  # rows of the reader that reads the plan
    every: int = 1  # steps between validations; one follows the last step

    @property
    def clips(self) -> int:
        """Clips of one validation."""
        return 0 if self.validation is None else len(self.validation)


class Turn(NamedTuple):
    """A step of training, or a round of the validation that follows the steps before it."""

    step: int | None
    round: int | None


@dataclass(frozen=True)
class Turns:
    """Steps first..total-1 with `rounds` of validation after every `every` steps and after the last."""

    first: int
    total: int
    every: int
    rounds: int

    def __len__(self) -> int:
        return self._begin(self.total) + self._last_rounds - self._begin(self.first)

    def at(self, number: int) -> Turn | None:
        """A turn, the first is 0; None past the end."""
        turn = self._begin(self.first) + number
        if (after := turn - self._begin(self.total)) >= 0:
            return Turn(None, after) if after < self._last_rounds else None
        period, place = divmod(turn, self.every + self.rounds)
        return Turn(period * self.every + place, None) if place < self.every else Turn(None, place - self.every)

    def _begin(self, step: int) -> int:
        """Turns before a step, counted from the first step of the run."""
        return step + step // self.every * self.rounds

    @property
    def _last_rounds(self) -> int:
        """Of the validation after the last step, where that is not one of the regular ones."""
        return self.rounds if self.total % self.every else 0
