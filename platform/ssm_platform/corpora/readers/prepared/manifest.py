"""A user's own corpus as one CSV or Parquet table; docs/corpora.md documents the columns.

An expression corpus has a row per clip (``source``, ``expression``), an AU corpus a row per frame (``source``,
``frame``, ``AU01``, ``AU12``, ...; the rows of a clip stand together). Optional: ``clip``, ``subject``, ``part``,
``rate``; for expression clips also ``start`` and ``length``. ``source``, a video or a folder of numbered images, is
below the root.
"""

from __future__ import annotations

import difflib
import os
import re
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path
from zipfile import BadZipFile

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import Field

from ssm.labels import ACTION_UNITS, EXPRESSIONS, Vocabulary
from ssm_platform.base import in_companion
from ssm_platform.corpora.base import Cause, Corpus, ReadOptions, Report
from ssm_platform.corpora.labels import Coding, LabelRows
from ssm_platform.corpora.lists import Resolver
from ssm_platform.corpora.sources import (
    Frames,
    Sequence,
    folder_frames,
    image_frames,
    labelled_records,
    video_frames,
    whole_record,
)
from ssm_platform.corpora.text import expression_of, integer, portable, read_csv, real
from ssm_platform.corpora.tree import entries, fold, saw
from ssm_platform.records import Record

_AU_COLUMN = re.compile(r"au_*0*(\d{1,4})(?:_c)?")
_SUFFIXES = (".csv", ".tsv", ".xlsx", ".parquet")
_MEANT = {
    "label": "expression", "emotion": "expression", "class": "expression", "path": "source", "file": "source",
    "filename": "source", "video": "source", "image": "source", "frame_number": "frame", "index": "frame",
    "person": "subject", "participant": "subject", "identity": "subject", "split": "part", "set": "part",
    "fold": "part", "fps": "rate", "name": "clip", "sequence": "clip", "frames": "length",
}  # fmt: skip
"""Columns met in others' tables, and ours that may be meant."""
_CODING = Coding(missing=(9, -1, 999))
_FASTEST = 10_000
_CLASSES = {name: name for name in EXPRESSIONS}
_NO_BOOK = (
    BadZipFile, zlib.error, OSError, EOFError, SyntaxError, ValueError, LookupError, TypeError, AttributeError,
    RuntimeError,
)  # fmt: skip
"""What openpyxl and the modules below it raise of a damaged workbook; a torn XML is a SyntaxError."""
_OWN = ("source", "frame", "expression", "clip", "subject", "part", "rate", "start", "length")


class ManifestOptions(ReadOptions):
    """A user's own table: which file."""

    file: str | None = Field(
        default=None, description="the table, below the root; None: the one .csv, .tsv, .xlsx or .parquet there"
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
        return portable(self.cells.get("source", ""))

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
            rule = f"a column is documented in docs/corpora.md; this one is not read{_meant(column)}"
            report.note(path, 1, column, rule)
    rows = _named_rows(table.rows, path, report)
    resolver = Resolver(root, ".", report)
    yield from _read_frames(rows, aus, resolver, path, report) if aus else _read_clips(rows, resolver, path, report)


def _read_clips(rows: Iterable[_Row], resolver: Resolver, path: Path, report: Report) -> Iterator[Record]:
    for row in rows:
        expression = expression_of(row.cells.get("expression", ""), _CLASSES, path, row.line, report)
        frames = _frames(row, resolver, report, Cause(path, row.line)) if expression else None
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


def _read_frames(
    rows: Iterable[_Row], aus: dict[int, str], resolver: Resolver, path: Path, report: Report
) -> Iterator[Record]:
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
        frames = _frames(members[0], resolver, report, replace(labels.cause, line=members[0].line))
        if frames is not None:
            who = Sequence(clip, members[0].cells.get("subject") or None, members[0].cells.get("part") or None)
            yield from labelled_records(who, labels, frames, report, coded_part=True)


def _named_rows(rows: Iterable[_Row], path: Path, report: Report) -> Iterator[_Row]:
    for row in rows:
        report.rows += 1
        if in_companion(row.source.split("/")):
            report.note(path, row.line, row.source, "what a system leaves beside data is none; left out")
        elif row.source:
            yield row
        else:
            report.problem(path, row.line, "source is empty", "a row names its source")


def _frames(row: _Row, resolver: Resolver, report: Report, cause: Cause) -> Frames | None:
    """The source of a row: a folder of images, one image, or a video."""
    place = resolver.find(row.source, cause.path, row.line)
    if os.path.isdir(place):
        frames = folder_frames(place, report, cause)
    else:
        frames = image_frames(place, report, cause) or video_frames(place, report, cause)
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
        found = [path for path in entries(root) if path.name.lower().endswith(_SUFFIXES) and path.is_file()]
    if len(found) != 1:
        names = ", ".join(path.name for path in found) or "none"
        kinds = ", ".join(_SUFFIXES)
        raise ValueError(
            f"{root}: one table ({kinds}) is expected, found {names}; choose by option 'file'; saw\n{saw(root)}"
        )
    return found[0]


def _open(path: Path, report: Report) -> _Table:
    """The table's columns and rows; ValueError where it is neither an expression table nor an AU table."""
    kinds = {".parquet": _open_parquet, ".xlsx": _open_workbook}
    table = kinds.get(path.suffix.lower(), _open_csv)(path, report)
    needed = ("source", "frame") if _au_columns(table.columns) else ("source", "expression")
    absent = [name for name in needed if name not in table.columns]
    if absent:
        rule = "a table has source and expression (a row per clip), or source, frame and AU01, ... (a row per frame)"
        near = [name for name in table.columns if _MEANT.get(name) == absent[0] or _close(name) == absent[0]]
        hint = f"; is it {near[0]!r}? call it {absent[0]!r}" if near else ""
        told = "".join(f"; {issue}" for issue in report.issues)
        raise ValueError(
            f"{path}: no column {absent[0]!r} among {', '.join(table.columns) or 'none'}{hint}; {rule}{told}"
        )
    return table


def _open_csv(path: Path, report: Report) -> _Table:
    rows = read_csv(path, report)
    _, header = next(rows, (1, []))
    columns = _columns(header, path)
    return _Table(columns, (_csv_row(line, columns, cells) for line, cells in rows))


def _csv_row(line: int, columns: list[str], row: list[str]) -> _Row:
    return _Row(line, dict(zip(columns, row + [""] * (len(columns) - len(row)), strict=False)))


def _open_parquet(path: Path, report: Report) -> _Table:
    try:
        file = pq.ParquetFile(path)
    except (pa.ArrowException, OSError) as error:
        raise ValueError(f"{path}: not a Parquet file ({error})") from error
    columns = _columns(file.schema_arrow.names, path)
    return _Table(columns, _parquet_rows(file, columns, path, report))


def _parquet_rows(file: pq.ParquetFile, columns: list[str], path: Path, report: Report) -> Iterator[_Row]:
    """The rows up to the first that cannot be read; the others are counted as lost."""
    line = 0
    try:
        for batch in file.iter_batches():
            for row in zip(*(column.to_pylist() for column in batch.columns), strict=True):
                line += 1
                yield _Row(line, {name: _text(value) for name, value in zip(columns, row, strict=True)})
    except (pa.ArrowException, OSError, ValueError, OverflowError) as error:
        lost = max(file.metadata.num_rows - line, 1)
        report.rows += lost
        report.problem(path, line + 1, error, "a Parquet file is not damaged; the rest is not read", lost)


def _open_workbook(path: Path, report: Report) -> _Table:
    """The first sheet of an Excel workbook."""
    numbered = ((line, row) for line, row in enumerate(_sheet(path), 1) if any(row))
    _, header = next(numbered, (1, []))
    columns = _columns(header, path)
    return _Table(columns, (_csv_row(line, columns, row) for line, row in numbered))


def _sheet(path: Path) -> Iterator[list[str]]:
    """The rows of the first sheet; ValueError, before or between them, where openpyxl cannot go on."""
    try:
        import openpyxl
    except ImportError as error:
        raise ValueError(f"{path}: reading .xlsx needs openpyxl (pip install 'ssm-platform[platform]')") from error
    try:
        book = openpyxl.load_workbook(path, read_only=True, data_only=True)
        for row in book.worksheets[0].iter_rows(values_only=True):
            yield [_text(cell).strip() for cell in row]
    except _NO_BOOK as error:
        raise ValueError(f"{path}: not an Excel workbook, or a damaged one ({error})") from error


def _text(value: object) -> str:
    """A typed value as a CSV cell; null and NaN are empty."""
    return "" if value is None or value != value else str(value)


def _column(name: str) -> str:
    """A column's name as it is compared: small letters, no blanks."""
    return re.sub(r"[\s-]+", "_", fold(name.strip()))


def _columns(header: list[str], path: Path) -> list[str]:
    """The columns as they are compared; ValueError where two of a header are one of ours."""
    columns, written = [_column(name) for name in header], dict[str, str]()
    for column, name in zip(columns, header, strict=True):
        au = _AU_COLUMN.fullmatch(column)
        key = f"AU{int(au[1]):02d}" if au else column
        if key in written and (au or key in _OWN):
            raise ValueError(f"{path}: columns {written[key]!r} and {name!r} are both {key}; a column is there once")
        written[key] = name
    return columns


def _close(column: str) -> str | None:
    return next(iter(difflib.get_close_matches(column, _OWN, n=1, cutoff=0.7)), None)


def _meant(column: str) -> str:
    """The column of ours that this one may mean, as a question."""
    if re.fullmatch(r"au_*\d+_r", column):
        return "; it is an intensity: AU columns are 0 or 1"
    known = _MEANT.get(column) or _close(column)
    return f"; did you mean {known!r}?" if known else ""


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
labels.csv, .tsv, .xlsx, .parquet (option file) a row per clip: source,expression[,clip,subject,part,rate,start,length]
                                 or a row per frame: source,frame,AU01,AU12,...[,clip,subject,part,rate]""",
)
