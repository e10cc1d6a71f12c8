"""The table of a video: columns named as OpenFace and py-feat name them, written as CSV or Parquet while it is made.

`frame, face_id, timestamp, confidence, success`, the face box, head pose and quality, `AU01_c` (0/1 by the fitted
rule, empty where the model's abstention withholds it) and `AU01` (probability) per AU, expressions by name, and where
the model has them `valence` and `arousal` in [-1, 1]; `AU01_u` on request. A frame without a face keeps its row, empty.
There is never a probability under `AU01_r`: that suffix means an intensity from 0 to 5. Files appear whole or not at
all. Knows rows, not models.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self

from ssm.labels import Vocabulary
from ssm_platform.base import part_path
from ssm_platform.faces import Look
from ssm_platform.read.windows import Row

Cell = int | float | None

FACE_COLUMNS = ("frame", "face_id", "timestamp", "confidence", "success")
BOX_COLUMNS = ("FaceRectX", "FaceRectY", "FaceRectWidth", "FaceRectHeight", "FaceScore")
LOOK_COLUMNS = ("Pitch", "Roll", "Yaw", "FaceSharpness", "FaceLight", "FaceQuality", "FaceUsable")
_ROW_GROUP = 4096
_COMMENTS = {
    "frame": "number of the frame, from 0",
    "face_id": "the same person while in view; empty where no face is",
    "timestamp": "seconds from the first frame",
    "confidence": "of the face detection, 0..1",
    "success": "1 where a face was found",
    "Pitch": "degrees, > 0 where the face looks down; empty where the detector tells no points",
    "Roll": "degrees, > 0 where the head leans to the right of the picture",
    "Yaw": "degrees, > 0 where the nose points to the right of the picture",
    "FaceSharpness": "0..1, 1 where sharpness is no drawback",
    "FaceLight": "0..1, 1 where light and contrast are no drawback",
    "FaceQuality": "0..1, the least of sharpness, light, size, pose and detector's score",
    "FaceUsable": "0 where the quality is below the least that was asked for",
}


def columns(vocabulary: Vocabulary, doubts: bool = False) -> list[str]:
    """The column names, in order; `doubts` adds `AU01_u`, the doubt of models that give evidence, at the end."""
    present = [f"{code}_c" for code in vocabulary.au_codes]
    labels = [*present, *vocabulary.au_codes, *vocabulary.expressions, *vocabulary.affect]
    known = [f"{code}_u" for code in vocabulary.au_codes if doubts]
    return [*FACE_COLUMNS, *BOX_COLUMNS, *LOOK_COLUMNS, *labels, *known]


def cells(row: Row, vocabulary: Vocabulary, doubts: bool = False) -> list[Cell]:
    """The values of a row under `columns(vocabulary, doubts)`; None is an empty cell."""
    if doubts:
        found = [None] * len(vocabulary.aus) if row.au_uncertainty is None else row.au_uncertainty
        return cells(row, vocabulary) + [_rounded(value, 5) for value in found]
    head: list[Cell] = [row.frame, row.face_id, _rounded(row.timestamp, 5), _rounded(row.score, 4), int(row.success)]
    if row.box is None or row.au_present is None or row.au_probability is None or row.expression is None:
        return head + [None] * (len(columns(vocabulary)) - len(head))
    head += [_rounded(value, 2) for value in row.box]
    head += [_rounded(row.score, 4), *_look(row.look)]
    hidden = [False] * len(row.au_present) if row.au_withheld is None else row.au_withheld
    head += [None if hide else int(flag) for flag, hide in zip(row.au_present, hidden, strict=True)]
    # float32 values rounded to five places print with their float32 noise unless rounded once more as doubles
    head += [round(float(value), 5) for value in row.au_probability]
    head += [round(float(value), 5) for value in row.expression]
    return head + [round(float(value), 5) for value in (() if row.affect is None else row.affect)]


def _look(look: Look | None) -> list[Cell]:
    """Angles to a hundredth of a degree, shares to four places, and the mark."""
    if look is None:
        return [None] * len(LOOK_COLUMNS)
    angles = [_rounded(value, 2) for value in look[:3]]
    return [*angles, *(_rounded(value, 4) for value in look[3:6]), int(look.usable)]


def record(row: Row, vocabulary: Vocabulary, doubts: bool = False) -> dict[str, Cell]:
    """A row by column name, as the JSON forms give it."""
    return dict(zip(columns(vocabulary, doubts), cells(row, vocabulary, doubts), strict=True))


def to_frame(rows: Iterable[Row], vocabulary: Vocabulary, doubts: bool = False) -> Any:
    """Rows as a pandas frame, as a notebook wants them."""
    import pandas as pd

    table = pd.DataFrame([cells(row, vocabulary, doubts) for row in rows], columns=columns(vocabulary, doubts))
    empty = [name for name in table.columns if table[name].dtype == object]  # cells that are all empty
    return table.astype(dict.fromkeys(empty, float))


def csv_header(vocabulary: Vocabulary, doubts: bool = False) -> str:
    """The first line of a CSV."""
    return ",".join(columns(vocabulary, doubts)) + "\n"


def csv_lines(rows: Iterable[Row], vocabulary: Vocabulary, doubts: bool = False) -> str:
    """Rows as CSV lines."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(cells(row, vocabulary, doubts) for row in rows)
    return text.getvalue()


def read_table(path: Path) -> Any:
    """A written table as a pandas frame."""
    import pandas as pd

    return pd.read_csv(path) if path.suffix == ".csv" else pd.read_parquet(path)


def iterate_table(path: Path) -> Iterator[dict[str, Any]]:
    """The rows of a written table by column name, a few in memory at a time; empty cells are None."""
    if path.suffix == ".csv":
        with path.open(encoding="utf-8", newline="") as file:
            for row in csv.DictReader(file):
                yield {name: float(text) if text else None for name, text in row.items()}
        return
    import pyarrow.parquet as pq

    with pq.ParquetFile(path) as file:
        for batch in file.iter_batches(_ROW_GROUP):
            yield from batch.to_pylist()


class TableWriter(Protocol):
    """An open table."""

    def write(self, rows: Iterable[Row]) -> None:
        """Append rows."""


@contextmanager
def open_table(path: Path, vocabulary: Vocabulary, doubts: bool = False) -> Iterator[TableWriter]:
    """A table to write to, CSV or Parquet by the ending of `path`; the file appears when the block ends well."""
    writers: dict[str, type[_CsvWriter | _ParquetWriter]] = {".csv": _CsvWriter, ".parquet": _ParquetWriter}
    if path.suffix not in writers:
        raise ValueError(f"{path}: a table ends in one of {', '.join(writers)}, not {path.suffix!r}")
    path.parent.mkdir(parents=True, exist_ok=True)
    part = part_path(path)
    try:
        with writers[path.suffix](part, vocabulary, doubts) as writer:
            yield writer
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


class _CsvWriter:
    def __init__(self, path: Path, vocabulary: Vocabulary, doubts: bool) -> None:
        self._vocabulary, self._doubts = vocabulary, doubts
        self._file = path.open("w", encoding="utf-8")
        self._file.write(csv_header(vocabulary, doubts))

    def write(self, rows: Iterable[Row]) -> None:
        self._file.write(csv_lines(rows, self._vocabulary, self._doubts))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._file.close()


class _ParquetWriter:
    def __init__(self, path: Path, vocabulary: Vocabulary, doubts: bool) -> None:
        import pyarrow.parquet as pq

        self._vocabulary, self._doubts = vocabulary, doubts
        self._schema = _schema(vocabulary, doubts)
        self._rows: list[list[Cell]] = []
        self._file = pq.ParquetWriter(path, self._schema)

    def write(self, rows: Iterable[Row]) -> None:
        self._rows += [cells(row, self._vocabulary, self._doubts) for row in rows]
        if len(self._rows) >= _ROW_GROUP:
            self._flush()

    def _flush(self) -> None:
        import pyarrow as pa

        if not self._rows:
            return
        arrays = [pa.array(column, field.type) for column, field in zip(zip(*self._rows), self._schema, strict=True)]  # noqa: B905
        self._file.write_table(pa.Table.from_arrays(arrays, schema=self._schema))
        self._rows = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if kind is None:
            self._flush()
        self._file.close()


def _schema(vocabulary: Vocabulary, doubts: bool = False) -> Any:
    """Arrow types: whole numbers for frame, face and flags, doubles for what is rounded to five places."""
    import pyarrow as pa

    whole = {"frame": pa.int64(), "face_id": pa.int32(), "success": pa.int8(), "FaceUsable": pa.int8()}
    present = {f"{code}_c": pa.int8() for code in vocabulary.au_codes}
    kinds = {**whole, **present}
    return pa.schema(
        [
            pa.field(name, kinds.get(name, pa.float64()), metadata=_comment(name, vocabulary))
            for name in columns(vocabulary, doubts)
        ]
    )


def _comment(name: str, vocabulary: Vocabulary) -> dict[str, str] | None:
    if name in vocabulary.expressions or name in vocabulary.au_codes:
        return {"comment": "probability"}
    if name.removesuffix("_u") in vocabulary.au_codes:
        return {"comment": "doubt, 0..1: 1 where there is no evidence"}
    if name.removesuffix("_c") in vocabulary.au_codes:
        return {"comment": "1 where the model's fitted rule finds the action unit present; empty where it abstains"}
    if name in vocabulary.affect:
        return {"comment": "from -1 to 1"}
    return {"comment": _COMMENTS[name]} if name in _COMMENTS else None


def _rounded(value: float | None, places: int) -> float | None:
    return None if value is None else round(float(value), places)
