"""A user's own corpus as one CSV or Parquet table; docs/corpora.md documents the columns.

An expression corpus has a row per clip (``source``, ``expression``), an AU corpus a row per frame (``source``,
``frame``, ``AU01``, ``AU12``, ...; the rows of a clip stand together). Optional: ``clip``, ``subject``, ``part``,
``rate``; for expression clips also ``start`` and ``length``. ``source``, a video or a folder of numbered images, is
below the root.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import Field

from ssm.labels import ACTION_UNITS, EXPRESSIONS, Vocabulary
from ssm_platform.corpora.base import Cause, Corpus, ReadOptions, Report
from ssm_platform.corpora.labels import Coding, LabelRows
from ssm_platform.corpora.sources import Frames, Sequence, folder_frames, labelled_records, video_frames, whole_record
from ssm_platform.corpora.text import expression_of, integer, read_csv, real
from ssm_platform.records import Record

_AU_COLUMN = re.compile(r"AU0*(\d+)(?:_c)?", re.IGNORECASE)
_CODING = Coding(missing=(9, -1, 999))
_FASTEST = 10_000
_CLASSES = {name: name for name in EXPRESSIONS}
_OWN = ("source", "frame", "expression", "clip", "subject", "part", "rate", "start", "length")


class ManifestOptions(ReadOptions):
    """A user's own table: which file."""

    file: str | None = Field(
        default=None, description="the table, below the root; None: the one .csv or .parquet there"
    )

    def vocabulary(self, root: Path) -> Vocabulary:
        """The AU columns of the table, or every expression where it has none."""
        aus = tuple(sorted(_au_columns(_open(_table_path(root, self.file), Report(root)).columns)))
        return Vocabulary(aus=aus) if aus else Vocabulary(expressions=EXPRESSIONS)


@dataclass(frozen=True)
class _Row:
    """One row as text, with its line in the file (row number in Parquet), both counted from 1."""

    line: int
    cells: dict[str, str]

    @property
    def source(self) -> str:
        return self.cells.get("source", "")

    @property
    def clip(self) -> str:
        return self.cells.get("clip") or self.source


@dataclass(frozen=True)
class _Table:
    columns: list[str]
    rows: Iterable[_Row]


def read(root: Path, options: ManifestOptions, report: Report) -> Iterator[Record]:
    """All clips of the table."""
    path = _table_path(root, options.file)
    table = _open(path, report)
    aus = _au_columns(table.columns)
    for column in table.columns:
        if column not in _OWN and column not in aus.values():
            report.note(path, 1, column, "a column is documented in docs/corpora.md; this one is not read")
    rows = _named_rows(table.rows, path, report)
    yield from _read_frames(rows, aus, path, report) if aus else _read_clips(rows, path, report)


def _read_clips(rows: Iterable[_Row], path: Path, report: Report) -> Iterator[Record]:
    for row in rows:
        expression = expression_of(row.cells.get("expression", ""), _CLASSES, path, row.line, report)
        frames = _frames(row, report, Cause(path, row.line)) if expression else None
        if expression is None or frames is None:
            continue
        whole = whole_record(row.clip, frames, expression, report, row.cells.get("part") or None)
        span = _span(row, whole.length)
        if span is None:
            value = f"start {row.cells.get('start')}, length {row.cells.get('length')}, {whole.length} frames"
            report.problem(path, row.line, value, "a clip lies inside its source")
            continue
        first, length = span
        files = None if whole.files is None else whole.files[first : first + length]
        start = first if files is None else 0
        yield replace(whole, start=start, length=length, files=files, subject=row.cells.get("subject") or None)


def _read_frames(rows: Iterable[_Row], aus: dict[int, str], path: Path, report: Report) -> Iterator[Record]:
    numbers = sorted(aus)
    for clip, group in groupby(rows, key=lambda row: row.clip):
        members = list(group)
        table = LabelRows(path, numbers, _CODING, report)
        for row in members:
            frame = integer(row.cells.get("frame", ""))
            if frame is None or frame < 0:
                report.problem(path, row.line, row.cells.get("frame", ""), "frame is a whole number from 0")
            else:
                table.add(row.line, frame, [row.cells[aus[number]] for number in numbers])
        labels = table.labels()
        frames = _frames(members[0], report, replace(labels.cause, line=members[0].line))
        if frames is not None:
            who = Sequence(clip, members[0].cells.get("subject") or None, members[0].cells.get("part") or None)
            yield from labelled_records(who, labels, frames, report, coded_part=True)


def _named_rows(rows: Iterable[_Row], path: Path, report: Report) -> Iterator[_Row]:
    for row in rows:
        report.rows += 1
        if row.source:
            yield row
        else:
            report.problem(path, row.line, "source is empty", "a row names its source")


def _frames(row: _Row, report: Report, cause: Cause) -> Frames | None:
    """The source of a row: a folder of images or a video."""
    place = report.root / row.source
    frames = folder_frames(place, report, cause) if os.path.isdir(place) else video_frames(place, report, cause)
    text = row.cells.get("rate", "")
    if frames is None or not text:
        return frames
    rate = real(text)
    if rate is None or not 0 < rate <= _FASTEST:
        report.note(cause.path, row.line, text, f"rate is frames per second, above 0, at most {_FASTEST}; not used")
        return frames
    return replace(frames, rate=rate)


def _span(row: _Row, frames: int) -> tuple[int, int] | None:
    """(first, length) of the clip in its source, or None where it does not lie inside."""
    start = integer(row.cells.get("start", "") or "0")
    length = integer(row.cells.get("length", "") or str(frames - (start or 0)))
    inside = start is not None and length is not None and start >= 0 and length >= 1 and start + length <= frames
    return (start or 0, length or 0) if inside else None


def _table_path(root: Path, name: str | None) -> Path:
    """The table of a corpus; ValueError where it is absent or not clear."""
    if name is not None:
        found = [root / name] if (root / name).is_file() else []
    else:
        found = sorted(path for path in root.iterdir() if path.suffix.lower() in (".csv", ".parquet"))
    if len(found) != 1:
        names = ", ".join(path.name for path in found) or "none"
        raise ValueError(f"{root}: one .csv or .parquet table is expected, found {names}; choose by option 'file'")
    return found[0]


def _open(path: Path, report: Report) -> _Table:
    """The table's columns and rows; ValueError where it is neither an expression table nor an AU table."""
    table = _open_parquet(path) if path.suffix.lower() == ".parquet" else _open_csv(path, report)
    needed = ("source", "frame") if _au_columns(table.columns) else ("source", "expression")
    absent = [name for name in needed if name not in table.columns]
    if absent:
        rule = "a table has source and expression (a row per clip), or source, frame and AU01, ... (a row per frame)"
        raise ValueError(f"{path}: no column {absent[0]!r} among {', '.join(table.columns) or 'none'}; {rule}")
    return table


def _open_csv(path: Path, report: Report) -> _Table:
    rows = read_csv(path, report)
    _, columns = next(rows, (1, []))
    return _Table(columns, (_csv_row(line, columns, cells) for line, cells in rows if any(cells)))


def _csv_row(line: int, columns: list[str], row: list[str]) -> _Row:
    return _Row(line, dict(zip(columns, row + [""] * (len(columns) - len(row)), strict=False)))


def _open_parquet(path: Path) -> _Table:
    try:
        file = pq.ParquetFile(path)
    except pa.ArrowInvalid as error:
        raise ValueError(f"{path}: not a Parquet file ({error})") from error
    return _Table(file.schema_arrow.names, _parquet_rows(file))


def _parquet_rows(file: pq.ParquetFile) -> Iterator[_Row]:
    line = 0
    for batch in file.iter_batches():
        for row in batch.to_pylist():
            line += 1
            yield _Row(line, {name: _text(value) for name, value in row.items()})


def _text(value: object) -> str:
    """A Parquet value as a CSV cell; null and NaN are empty."""
    return "" if value is None or value != value else str(value)


def _au_columns(columns: Iterable[str]) -> dict[int, str]:
    """AU number -> column, for the AUs of the vocabulary."""
    named = {name: _AU_COLUMN.fullmatch(name) for name in columns}
    numbers = {int(match[1]): name for name, match in named.items() if match}
    return {number: name for number, name in numbers.items() if number in ACTION_UNITS}


CORPUS = Corpus(
    name="manifest",
    title="Own table",
    task=None,
    options=ManifestOptions,
    read=read,
    layout="""\
labels.csv or labels.parquet     (option file) a row per clip: source,expression[,clip,subject,part,rate,start,length]
                                 or a row per frame: source,frame,AU01,AU12,...[,clip,subject,part,rate]""",
)
