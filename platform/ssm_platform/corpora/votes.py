"""What several people said of one clip: counts per class to a distribution and the class that most of them named.

Counts that are no counts, votes that sum to zero and clips that most people could not name are reported. Of classes
with equal votes the first of the corpus's order is the label; the distribution keeps both.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ssm_platform.corpora.base import Report
from ssm_platform.corpora.text import integer
from ssm_platform.records import Record


@dataclass(frozen=True)
class Votes:
    """Cells of one row by class; `others` are choices that are no class (unknown, not a face)."""

    classes: Mapping[str, str]
    others: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Soft:
    """A clip's distribution (E) and its likeliest class."""

    shares: npt.NDArray[np.float32]
    expression: str

    def on(self, record: Record) -> Record:
        """The record with this distribution."""
        return replace(record, expression=self.expression, distribution=self.shares)


def soft(votes: Votes, order: Sequence[str], least: int, path: Path, line: int, report: Report) -> Soft | None:
    """The distribution over `order`; None, and reported, where the row gives none. Less than `least` votes are none."""
    cells = {**votes.classes, **votes.others}
    counts = {name: count for name, cell in cells.items() if (count := integer(cell)) is not None and count >= 0}
    if wrong := [f"{name}={cell}" for name, cell in cells.items() if name not in counts]:
        report.problem(path, line, ", ".join(wrong), "votes are whole numbers from 0")
        return None
    kept = {name: count if count >= least else 0 for name, count in counts.items()}
    named = np.array([kept[name] for name in order], np.float64)
    value = ", ".join(f"{name} {count}" for name, count in counts.items() if count) or "no vote"
    if any(kept[name] > named.max() for name in votes.others):
        report.note(path, line, value, "most people named no class; left out")
        return None
    if not named.sum():
        report.problem(path, line, value, "votes on a clip sum to more than 0")
        return None
    return Soft((named / named.sum()).astype(np.float32), order[int(named.argmax())])
