"""What was wrong with an owner's files: an `Issue` is one line of a reader's report.

A `Reading` is a manifest with its issues. Which of them cost label rows decides whether a corpus is refused.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Literal

from ssm_platform.records.manifest import Manifest

Severity = Literal["note", "problem", "leak"]
SEVERITIES: tuple[Severity, ...] = ("leak", "problem", "note")


@dataclass(frozen=True, slots=True)
class Issue:
    """One line of a report: where (path below the root, line counted from 1), what was found, which rule it breaks.

    ``count`` is how many label rows the line stands for: 0 where an earlier line has counted its row. A "problem" loses
    rows and counts towards the ceiling, a "leak" refuses the corpus unless allowed, a "note" (a missing code, a class
    outside our vocabulary) costs nothing.
    """

    path: str
    line: int | None
    value: str
    rule: str
    count: int = 1
    severity: Severity = "problem"

    @property
    def where(self) -> str:
        """``path:line``, or the path alone."""
        return self.path if self.line is None else f"{self.path}:{self.line}"

    def __str__(self) -> str:
        times = f" (x{self.count})" if self.count > 1 else ""
        return f"{self.where}: {self.value!r}: {self.rule}{times}"


@dataclass(frozen=True, slots=True)
class Reading:
    """What reading a corpus gave: the usable records, every issue, and how many label rows were seen in all."""

    manifest: Manifest
    issues: list[Issue] = field(default_factory=list)
    rows: int = 0  # label rows in the owner's files: frames of AU corpora, clips of FE corpora

    @property
    def lost(self) -> int:
        """Label rows that problems made unusable."""
        return sum(issue.count for issue in self.issues if issue.severity == "problem")

    def summary(self) -> list[str]:
        """One line per severity and rule, worst first: how often, and where it was met first."""
        totals: Counter[tuple[Severity, str]] = Counter()
        firsts: dict[tuple[Severity, str], Issue] = {}
        for issue in self.issues:
            totals[issue.severity, issue.rule] += issue.count
            firsts.setdefault((issue.severity, issue.rule), issue)
        ranked = sorted(totals, key=lambda key: (SEVERITIES.index(key[0]), -totals[key]))
        return [
            f"{key[0]} x{totals[key]}: {key[1]} (first: {firsts[key].where}: {firsts[key].value!r})" for key in ranked
        ]

    @property
    def leaks(self) -> list[Issue]:
        """Issues that say the same subject or clip is on both sides of a split."""
        return [issue for issue in self.issues if issue.severity == "leak"]
