"""Frame-level AU labels as owners code them: occurrence tables, intensity files, lines in frame order.

A `Coding` turns a cell into 1, 0 or -1 (a missing-label code or an empty cell); a cell that is neither is reported
and becomes -1. `FrameLabels` is the result for one sequence, by the owner's frame number. Knows nothing of images or
videos. Legend: N label rows, A action units.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ssm_platform.corpora.base import Cause, Report
from ssm_platform.corpora.text import cells as cells_of
from ssm_platform.corpora.text import content, integer, read_csv, read_lines
from ssm_platform.records import UNKNOWN

_NUMBER = re.compile(r"(\d+)\D*$")
_LONGEST, _DIGITS = 64, 18  # characters looked at, digits that fit into 64 bits
_PAIR = re.compile(r"[,;\s]+")


@dataclass(frozen=True)
class Coding:
    """What the numbers in a label file mean: 0..``top`` is a score, active from ``threshold``; ``missing`` are
    codes.
    """

    top: int = 1
    threshold: int = 1
    missing: tuple[int, ...] = (9, -1)

    def label(self, cell: str) -> int | None:
        """1, 0 or -1, or None where the cell is no valid value."""
        return _label(self, cell)

    @property
    def rule(self) -> str:
        """What a cell may hold, in words."""
        return f"an AU cell is 0..{self.top} or a missing code ({', '.join(map(str, self.missing))} or empty)"


@lru_cache(maxsize=1024)
def _label(coding: Coding, cell: str) -> int | None:
    if not cell.strip():
        return UNKNOWN
    value = integer(cell)
    if value in coding.missing:
        return UNKNOWN
    return int(value >= coding.threshold) if value is not None and 0 <= value <= coding.top else None


@dataclass(frozen=True, eq=False)
class FrameLabels:
    """Labels of one sequence: frame ``numbers`` (N, ascending, distinct), ``values`` (N, A), ``lines`` (N) in
    ``path``.
    """

    path: Path
    numbers: npt.NDArray[np.int64]
    values: npt.NDArray[np.int8]  # no column where the sequence has no AU labels
    lines: npt.NDArray[np.int64]
    affect: npt.NDArray[np.float32] | None = None  # (N, 2); nan: unknown
    expressions: npt.NDArray[np.object_] | None = None  # (N), by name; None: unknown

    @property
    def cause(self) -> Cause:
        """Who asks for this sequence's frames."""
        return Cause(self.path, None, max(len(self.numbers), 1))


class LabelRows:
    """Collects the rows of one label file, reports what is wrong with each, and gives `FrameLabels`."""

    def __init__(
        self, path: Path, aus: Sequence[int], coding: Coding, report: Report, rows_of: Path | None = None
    ) -> None:
        """``rows_of``: what numbers the label rows, where several files share them; else each file has its own."""
        self._path, self._aus, self._coding, self._report = path, aus, coding, report
        self._rows_of = rows_of or path
        self._rows: dict[int, tuple[int, list[int]]] = {}
        self._missing: dict[tuple[int, str], list[int]] = {}

    def add(self, line: int, number: int, cells: Sequence[str | None]) -> None:
        """One row: the frame number and a cell per AU (None: the file has no such column)."""
        if number in self._rows:
            rule = "a frame has one label row; the first is used"
            self._report.problem(self._path, line, number, rule)
            return
        values = [self._value(line, number, au, cell) for au, cell in zip(self._aus, cells, strict=True)]
        self._rows[number] = (line, values)

    def labels(self) -> FrameLabels:
        """All rows by frame number; missing-label codes become one note per AU."""
        for (au, cell), lines in self._missing.items():
            value = f"AU{au:02d}={cell or 'empty'}"
            self._report.note(self._path, lines[0], value, "a missing-label code is masked", len(lines))
        numbers = sorted(self._rows)
        values = np.array([self._rows[number][1] for number in numbers], np.int8).reshape(len(numbers), len(self._aus))
        at = np.array([self._rows[number][0] for number in numbers], np.int64)
        return FrameLabels(self._path, np.array(numbers, np.int64), values, at)

    def _value(self, line: int, number: int, au: int, cell: str | None) -> int:
        if cell is None:
            return UNKNOWN
        label = self._coding.label(cell)
        if label is None:
            value, rule = f"AU{au:02d}={cell}", f"{self._coding.rule}; masked"
            self._report.lost_row(self._path, line, value, rule, (self._rows_of, number))
            return UNKNOWN
        if label == UNKNOWN:
            self._missing.setdefault((au, cell.strip()), []).append(line)
        return label


def read_occurrence_table(path: Path, aus: Sequence[int], coding: Coding, report: Report) -> FrameLabels | None:
    """A csv with AU numbers in its header and the frame number in its first column (BP4D, BP4D+). None where it has
    none.
    """
    numbered = list(read_csv(path, report))
    rows = [row for _, row in numbered]
    header = [integer(cell.upper().removeprefix("AU")) for cell in rows[0][1:]] if rows else []
    if not any(au in header for au in aus):
        report.problem(path, 1, ",".join(rows[0]) if rows else "empty file", "the header row names AU numbers")
        return None
    columns = {au: header.index(au) + 1 for au in aus if au in header}
    for au in sorted(set(aus) - set(columns)):
        report.note(path, 1, f"AU{au:02d}", "an AU without a column is masked", len(rows) - 1)
    table = LabelRows(path, aus, coding, report)
    for line, row in numbered[1:]:
        _add_table_row(table, path, line, row, [columns.get(au) for au in aus], len(header) + 1, report)
    return table.labels()


def _add_table_row(
    table: LabelRows, path: Path, line: int, row: list[str], columns: list[int | None], width: int, report: Report
) -> None:
    report.rows += 1
    number = integer(row[0])
    if number is None or len(row) != width:
        report.problem(path, line, ",".join(row), f"a row is a frame number and {width - 1} AU cells")
        return
    table.add(line, number, [None if column is None else row[column] for column in columns])


def read_intensity_files(
    files: Mapping[int, Path], aus: Sequence[int], coding: Coding, report: Report
) -> FrameLabels | None:
    """One file per AU with lines "frame intensity" (comma or blanks; "000.jpg  0" too), joined by frame (DISFA,
    DISFA+).
    """
    scores = {au: _read_pairs(files[au], au, coding, report) for au in aus if au in files}
    numbers = np.unique(np.concatenate([np.zeros(0, np.int64), *(score.numbers for score in scores.values())]))
    if not len(numbers):
        return None
    values = np.full((len(numbers), len(aus)), UNKNOWN, np.int8)
    lines = np.ones(len(numbers), np.int64)
    for au, score in scores.items():
        at = np.searchsorted(numbers, score.numbers)
        values[at, aus.index(au)] = score.values[:, 0]
        lines[at] = score.lines
        if len(at) < len(numbers):
            value, rule = (
                f"{len(at)} rows of {len(numbers)}",
                "the label files of one sequence score the same frames; masked",
            )
            report.note(score.path, None, value, rule, len(numbers) - len(at))
    report.rows += len(numbers)
    return FrameLabels(next(iter(scores.values())).path, numbers, values, lines)


def _read_pairs(path: Path, au: int, coding: Coding, report: Report) -> FrameLabels:
    """Lines "frame score"; header and # lines are passed over."""
    table, begun = LabelRows(path, [au], coding, report, path.parent), False
    for line, text in content(read_lines(path, report)):
        frame, *score = _PAIR.split(text, maxsplit=1)
        number = frame_number(frame)
        if text.startswith("#") or (number is None and not begun):
            continue
        begun = True
        if number is None or not score:
            row = (path, line) if number is None else (path.parent, number)
            report.lost_row(path, line, text, "a row is a frame and a score", row)
        else:
            table.add(line, number, score)
    return table.labels()


def read_label_lines(
    path: Path,
    lines: Iterable[tuple[int, str]],
    aus: Sequence[int],
    usual: Sequence[int],
    coding: Coding,
    report: Report,
) -> FrameLabels:
    """Row i (from 1) labels frame i: cells for the AUs ``usual``, of which ``aus`` are taken (Aff-Wild2)."""
    columns = [usual.index(au) for au in aus]
    table = LabelRows(path, aus, coding, report)
    for number, (line, text) in enumerate(lines, 1):
        cells = cells_of(text)
        report.rows += 1
        if not text:
            report.note(path, line, "blank line", "row i labels frame i; a blank row leaves its frame unlabelled")
        elif len(cells) == len(usual):
            table.add(line, number, [cells[column] for column in columns])
        else:
            report.problem(path, line, text, f"a row has {len(usual)} AU cells")
    return table.labels()


def frame_number(name: str) -> int | None:
    """The last whole number in a frame's name, without its suffix: "2440.jpg", "frame_1.jpg", "000012" -> 2440, 1,
    12.
    """
    found = _NUMBER.search(os.path.splitext(name)[0][-_LONGEST:])
    return int(found[1]) if found and len(found[1]) <= _DIGITS else None
