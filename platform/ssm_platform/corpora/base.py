"""What a corpus is to the platform: a row of a table (name, labels, options, published numbers) and one reading
function.

A reading function walks the owner's tree and yields `Record`; whatever it cannot use it tells the `Report`, with
path, line, value and rule, and goes on. It never raises for bad data: `registry.read_corpus` decides afterwards
whether too much was lost.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict, Field, field_validator

from ssm.labels import AFFECT, Vocabulary
from ssm_platform.records import Issue, Record, Severity, Task


class ReadOptions(BaseModel):
    """How to read a corpus, and how much damage to accept. Every corpus adds its own fields."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    max_issue_fraction: float = Field(
        default=0.05,
        ge=0,
        le=1,
        description="refuse the corpus when problems cost more than this fraction of label rows",
    )
    max_issues: int | None = Field(
        default=None, ge=0, description="refuse past this number of lost label rows; None: no limit"
    )
    allow_leaks: bool = Field(default=False, description="accept subjects or clips on both sides of a split")

    def vocabulary(self, root: Path) -> Vocabulary:
        """The label columns of the manifest under these options. AU columns make it an AU corpus."""
        return Vocabulary()


class AUOptions(ReadOptions):
    """Options of AU corpora: which AUs become label columns (the corpus's usual ones unless named)."""

    aus: tuple[int, ...] = Field(default=(), description="AU numbers to use as label columns, in this order")
    scored: ClassVar[tuple[int, ...]] = ()  # the AUs of a corpus whose label files cannot hold others; empty: any

    @field_validator("aus")
    @classmethod
    def _known(cls, aus: tuple[int, ...]) -> tuple[int, ...]:
        if not aus:
            raise ValueError("name at least one AU")
        for au in aus:
            if cls.scored and au not in cls.scored:
                raise ValueError(f"AU {au} is not scored here; scored: {', '.join(map(str, cls.scored))}")
        return Vocabulary(aus=aus).aus

    def vocabulary(self, root: Path) -> Vocabulary:
        """AU columns only."""
        return Vocabulary(aus=self.aus)


class AffectOptions(ReadOptions):
    """Options of corpora of valence and arousal."""

    def vocabulary(self, root: Path) -> Vocabulary:
        """Valence and arousal only."""
        return Vocabulary(affect=AFFECT)


@dataclass(frozen=True)
class Cause:
    """The line of a label file that asks for frames, and how many label rows are lost without them."""

    path: Path
    line: int | None = None
    rows: int = 1


class Report:
    """Collects the issues of one reading; paths are written relative to the corpus root."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.issues: list[Issue] = []
        self.rows = 0
        self._lost: set[tuple[Path, int]] = set()

    def lost_row(self, path: Path, line: int, value: object, rule: str, row: tuple[Path, int]) -> None:
        """Label row ``row`` is lost (file or folder, number in it): told as often as it is met, counted once."""
        self._add(path, line, value, rule, int(row not in self._lost), "problem")
        self._lost.add(row)

    def problem(self, path: Path, line: int | None, value: object, rule: str, count: int = 1) -> None:
        """``count`` label rows are lost."""
        self._add(path, line, value, rule, count, "problem")

    def note(self, path: Path, line: int | None, value: object, rule: str, count: int = 1) -> None:
        """Something a user should know that costs no label row."""
        self._add(path, line, value, rule, count, "note")

    def leak(self, path: Path, line: int | None, value: object, rule: str, count: int = 1) -> None:
        """The same subject or clip is on both sides of a split."""
        self._add(path, line, value, rule, count, "leak")

    def _add(self, path: Path, line: int | None, value: object, rule: str, count: int, severity: Severity) -> None:
        shown = path.relative_to(self.root) if path.is_relative_to(self.root) else path
        self.issues.append(Issue(shown.as_posix(), line, str(value)[:200], rule, count, severity))


ReadRecords = Callable[[Path, Any, Report], Iterator[Record]]

People = Callable[[Path], Mapping[str, Mapping[str, str]]]
"""Root to what the owner says of each subject ("Sex", "Age", ...), for figures per group."""


@dataclass(frozen=True)
class Corpus:
    """One row of the corpus table. ``read(root, options, report)`` gets an instance of ``options``."""

    name: str
    title: str
    task: Task | None  # None: the corpus's own table says which
    options: type[ReadOptions]
    read: ReadRecords
    layout: str  # the grammar in a few lines, shown when nothing was found
    prevalence: Mapping[int, float] = field(default_factory=dict)  # published, % of frames in which an AU is active
    counts: Mapping[str, int] = field(default_factory=dict)  # published number of clips per expression
    people: People | None = None  # None: the owner says nothing of anybody
