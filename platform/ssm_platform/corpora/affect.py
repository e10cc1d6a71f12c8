"""Valence and arousal of frames as owners code them: pairs of numbers, with codes for frames that nobody labelled.

An `AffectCoding` turns two cells into values in [-1, 1]; a pair that is neither values nor codes is told and masked.
Both are unknown where either is. Legend: N label rows.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ssm_platform.corpora.base import Report
from ssm_platform.corpora.labels import FrameLabels
from ssm_platform.corpora.text import real

Pair = tuple[float, float]
UNLABELLED: Pair = (math.nan, math.nan)
"""Valence and arousal of a frame that nobody labelled."""


@dataclass(frozen=True)
class AffectCoding:
    """What the numbers in a label file mean: -``top``..``top``, divided by it; ``missing`` are codes."""

    top: float = 1.0
    missing: tuple[float, ...] = ()

    def pair(self, cells: Sequence[str]) -> Pair | None:
        """Valence and arousal in [-1, 1], `UNLABELLED` for a code or an empty cell, None for what is neither."""
        if len(cells) != 2:
            return None
        if any(not cell.strip() or real(cell) in self.missing for cell in cells):
            return UNLABELLED
        valence, arousal = real(cells[0]), real(cells[1])
        if valence is None or arousal is None or max(abs(valence), abs(arousal)) > self.top:
            return None
        return valence / self.top, arousal / self.top

    @property
    def rule(self) -> str:
        """What two cells may hold, in words."""
        codes = f" or a missing code ({', '.join(f'{code:g}' for code in self.missing)} or empty)"
        return f"valence and arousal are {-self.top:g}..{self.top:g}{codes if self.missing else ''}; masked"


class AffectRows:
    """Collects the rows of one label file, reports what is wrong with each, and gives `FrameLabels`."""

    def __init__(self, path: Path, coding: AffectCoding, report: Report) -> None:
        self._path, self._coding, self._report = path, coding, report
        self._rows: dict[int, tuple[int, Pair]] = {}
        self._missing: list[int] = []

    def add(self, line: int | None, number: int, cells: Sequence[str]) -> None:
        """One row: the frame's number and its two cells. ``line`` None: the file has no lines."""
        if number in self._rows:
            self._report.problem(self._path, line, number, "a frame has one label row; the first is used")
            return
        pair = self._coding.pair(cells)
        if pair is None:
            self._report.problem(self._path, line, f"frame {number}: {', '.join(cells)}", self._coding.rule)
        elif pair is UNLABELLED:
            self._missing.append(line or 0)
        self._rows[number] = (line or 0, pair or UNLABELLED)

    def pair(self, number: int) -> Pair:
        """Valence and arousal of a frame; `UNLABELLED` where it has none."""
        return self._rows[number][1] if number in self._rows else UNLABELLED

    def labels(self) -> FrameLabels:
        """All rows by frame number; frames with a missing-label code become one note."""
        self.tell_missing()
        numbers = sorted(self._rows)
        lines = np.array([self._rows[number][0] for number in numbers], np.int64)
        affect = np.array([self._rows[number][1] for number in numbers], np.float32).reshape(len(numbers), 2)
        none = np.zeros((len(numbers), 0), np.int8)
        return FrameLabels(self._path, np.array(numbers, np.int64), none, lines, affect)

    def tell_missing(self) -> None:
        """One note for all frames that carry a missing-label code."""
        if self._missing:
            rule = "a missing-label code is masked"
            first = self._missing[0] or None
            self._report.note(self._path, first, "valence, arousal", rule, len(self._missing))
