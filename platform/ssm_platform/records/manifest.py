"""Records: what every reader yields and everything downstream (ingest, plan, clips, evaluation) takes in.

A `Record` is one contiguous run of frames of one clip with its labels; a `Manifest` is all records of one corpus, held
as Arrow columns (a million records are a few buffers, not a million objects), stored as one Parquet file whose schema
metadata names corpus, task, root and label columns. Knows nothing of owners' layouts, pixels, Ray or training.

    manifest = Manifest.build(root, "bp4d", "au", Vocabulary(aus=BP4D_AUS), records)   # any iterable of Record, checked
    manifest.write(path); manifest = Manifest.read(path, root=None)                  # root=... where the data moved
    len(manifest); manifest[7] -> Record; for record in manifest: ...
    manifest.lengths (int32 N), .starts (int64 N), .expression_columns (int16 N, -1 none)
    manifest.au_labels(7, 16, 16) -> int8 (16, A), a view; manifest.va_labels(7, 16, 16) -> float32 (16, 2)
    manifest.tasks, manifest.of_task("va") -> the same records with the labels of one task alone
    manifest.codes("subject") -> (int32 N with -1 for none, distinct values); manifest.column("part") -> Arrow array
    manifest.take(rows), manifest.filter(mask) -> Manifest; manifest.fingerprint -> hex digest (root left out)

Legend: N records, L frames of one record, A action units.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from ssm.labels import AFFECT, Vocabulary
from ssm_platform.base import open_storage, part_path
from ssm_platform.records.columns import flat_list, logical_bytes, taken, view
from ssm_platform.records.record import LABELS, TASKS, UNKNOWN, Record, Task, check, tasks_of

SCHEMA = pa.schema(
    [
        pa.field("clip", pa.large_string(), nullable=False),
        pa.field("subject", pa.large_string()),
        pa.field("part", pa.large_string()),
        pa.field("source", pa.large_string(), nullable=False),
        pa.field("kind", pa.large_string(), nullable=False),
        pa.field("files", pa.large_list(pa.large_string())),
        pa.field("start", pa.int64(), nullable=False),
        pa.field("length", pa.int32(), nullable=False),
        pa.field("rate", pa.float32()),
        pa.field("expression", pa.large_string()),
        pa.field("group", pa.large_string()),
        pa.field("crop", pa.large_string()),
        pa.field("au_labels", pa.large_list(pa.int8())),
        pa.field("distribution", pa.large_list(pa.float32())),
        pa.field("va_labels", pa.large_list(pa.float32())),
    ]
)
"""The Parquet columns. Corpus, task, root and label columns are one for all rows: they live in metadata ``ssm``."""

_SOFT = "distribution"
"""The column that manifests of hard labels, and all that were written before it came, do not have on disk."""

_METADATA = b"ssm"
_ADDED = ("group", "crop", _SOFT, "va_labels")  # columns that manifests of earlier versions lack
_FLAT: Mapping[str, pa.DataType] = {"au_labels": pa.int8(), _SOFT: pa.float32(), "va_labels": pa.float32()}
"""Columns of arrays, and what each of their numbers is."""
_PART = "@"  # stands between a corpus and one of its tasks in a name
_BUILD_ROWS = 16384
_GROUP_ROWS, _GROUP_LABELS = 2**17, 2**20


@dataclass(frozen=True, eq=False)
class Manifest:
    """All records of one corpus as Arrow columns (`SCHEMA`). ``root`` is an absolute folder or an ``s3://`` prefix."""

    root: str
    corpus: str
    task: Task
    labels: Vocabulary
    table: pa.Table

    def __post_init__(self) -> None:
        if self.task not in TASKS:
            raise ValueError(f"{self.corpus}: task {self.task!r} is not one of {', '.join(TASKS)}")
        if not self.table.schema.remove_metadata().equals(SCHEMA):
            raise ValueError(f"{self.corpus}: table has columns {self.table.schema.names}, expected {SCHEMA.names}")
        object.__setattr__(self, "table", self.table.replace_schema_metadata(None).combine_chunks())

    def __reduce__(self) -> tuple[type[Manifest], tuple[Any, ...]]:
        return Manifest, (self.root, self.corpus, self.task, self.labels, self.table)

    @classmethod
    def build(
        cls, root: str | Path, corpus: str, task: Task, labels: Vocabulary, records: Iterable[Record]
    ) -> Manifest:
        """Check ``records`` one by one and lay them out as columns. ValueError names the record and the broken rule."""
        stream, seen, batches = iter(records), set[str](), []
        while chunk := list(islice(stream, _BUILD_ROWS)):
            for record in chunk:
                check(record, corpus, task, labels)
                if record.clip in seen:
                    raise ValueError(
                        f"{corpus}: clip {record.clip!r} is there twice; clip names are unique in a corpus"
                    )
                seen.add(record.clip)
            batches.append(_to_batch(chunk))
        return cls(_absolute(root), corpus, task, labels, pa.Table.from_batches(batches, schema=SCHEMA))

    @classmethod
    def read(cls, path: str | Path, root: str | Path | None = None) -> Manifest:
        """Read what `write` wrote, from a file or an ``s3://`` object; ``root`` replaces the stored one where the data
        moved. ValueError names the file and what is wrong with it.
        """
        place = str(path) if "://" in str(path) else str(Path(path).expanduser())
        try:
            if "://" in place:
                folder, _, name = place.rpartition("/")
                table = pq.read_table(pa.BufferReader(open_storage(folder).read(name)))
            else:
                with pa.OSFile(place) as file:  # a folder would be read as a data set: every shard's records once more
                    table = pq.read_table(file)
        except pa.ArrowInvalid as error:
            raise ValueError(f"{place}: not a Parquet manifest ({error})") from error
        except OSError as error:
            raise ValueError(f"{place}: a manifest is one Parquet file that can be read ({error})") from error
        return cls._from_table(table, place, root)

    @classmethod
    def from_bytes(cls, data: bytes, root: str | Path | None = None) -> Manifest:
        """The inverse of `to_bytes`: for manifests that lie in object storage."""
        return cls._from_table(pq.read_table(pa.BufferReader(data)), "<bytes>", root)

    def write(self, path: str | Path) -> None:
        """Write one Parquet file; readers see the old file or the new one, never half of it."""
        path = Path(path).expanduser()
        path.parent.mkdir(parents=True, exist_ok=True)
        scratch = part_path(path)
        try:
            pq.write_table(self._described(), scratch, compression="zstd", row_group_size=self._group_rows)
            os.replace(scratch, path)
        finally:
            scratch.unlink(missing_ok=True)

    def to_bytes(self) -> bytes:
        """The Parquet file as bytes."""
        sink = pa.BufferOutputStream()
        pq.write_table(self._described(), sink, compression="zstd", row_group_size=self._group_rows)
        return bytes(sink.getvalue())

    def __len__(self) -> int:
        return int(self.table.num_rows)

    def __getitem__(self, index: int) -> Record:
        """Record ``index`` (0 <= index < N; IndexError otherwise) as a typed view made on demand."""
        if not 0 <= index < len(self):
            raise IndexError(f"{self.corpus}: record {index} of {len(self)}")
        lists = (*_FLAT, "files")
        values = {name: self.column(name)[index].as_py() for name in SCHEMA.names if name not in lists}
        files = self.column("files")[index].as_py()
        return Record(
            **values,
            files=None if files is None else tuple(files),
            au_labels=self.au_labels(index) if "au" in self.tasks else None,
            aus=self.labels.aus,
            distribution=self.distribution(index),
            va_labels=self.va_labels(index) if "va" in self.tasks else None,
        )

    def __iter__(self) -> Iterator[Record]:
        return (self[index] for index in range(len(self)))

    @property
    def tasks(self) -> tuple[Task, ...]:
        """What its records are labelled for: `task`, and every other task that has label columns."""
        return tuple(task for task in TASKS if task == self.task or task in tasks_of(self.labels))

    def of_task(self, task: Task) -> Manifest:
        """The records with a label of `task`, as a manifest of that task alone.

        One of several tasks is then called `corpus@task`, since the parts of a run are known by their names.
        """
        if self.tasks == (task,):
            return self
        if task not in self.tasks:
            raise ValueError(f"{self.corpus}: no labels of task {task!r}; it has {', '.join(self.tasks)}")
        labels = Vocabulary(**{field: getattr(self.labels, field) if task == one else () for one, field in LABELS})
        table = self.table
        for other, columns in _COLUMNS.items():
            for name in columns if other != task else ():
                at = SCHEMA.get_field_index(name)
                table = table.set_column(at, SCHEMA.field(at), pa.nulls(len(table), SCHEMA.field(at).type))
        alone = Manifest(self.root, f"{self.corpus}{_PART}{task}", task, labels, table)
        return alone.filter(alone.labelled)

    @property
    def labelled(self) -> npt.NDArray[np.bool_]:
        """Which records (N) have any label of the manifest's task."""
        if self.task == "fe":
            return np.asarray(self.expression_columns >= 0)
        counts = np.concatenate([[0], np.cumsum(self.frames_labelled)])
        ends = np.cumsum(self.lengths, dtype=np.int64)
        return np.asarray(counts[ends] > counts[ends - self.lengths])

    @property
    def frames_labelled(self) -> npt.NDArray[np.bool_]:
        """Which frames of all records, one after the other, have any label of the manifest's frame-level task (F)."""
        if self.task == "va":
            return np.asarray(~np.isnan(self.frame_affect).all(axis=1))
        return np.asarray(self.frame_labels.max(axis=1, initial=UNKNOWN) > UNKNOWN)

    def column(self, name: str) -> pa.Array:
        """One column of `SCHEMA` as a single Arrow array of N values."""
        return self._columns[name]

    def codes(self, name: str) -> tuple[npt.NDArray[np.int32], list[str]]:
        """A text column as (codes N, distinct values in order of appearance); missing values have code -1."""
        encoded = self.column(name).dictionary_encode()
        codes = pc.fill_null(encoded.indices, UNKNOWN).to_numpy(zero_copy_only=False).astype(np.int32, copy=False)
        return codes, encoded.dictionary.to_pylist()

    @cached_property
    def lengths(self) -> npt.NDArray[np.int32]:
        """Frames of each record (N)."""
        return view(self.column("length"))

    @cached_property
    def starts(self) -> npt.NDArray[np.int64]:
        """First frame of each record in its source (N)."""
        return view(self.column("start"))

    @cached_property
    def expression_columns(self) -> npt.NDArray[np.int16]:
        """Column of each record's class in ``labels.expressions`` (N); -1 where it has none."""
        known = pa.array(self.labels.expressions, pa.large_string())
        return view(pc.fill_null(pc.index_in(self.column("expression"), known), UNKNOWN)).astype(np.int16)

    def au_labels(self, index: int, first: int = 0, length: int | None = None) -> npt.NDArray[np.int8]:
        """AU labels (length, A) of record ``index`` from its frame ``first``, read-only; ValueError past the end."""
        return self._cut("au_labels", len(self.labels.aus), index, first, length)

    def va_labels(self, index: int, first: int = 0, length: int | None = None) -> npt.NDArray[np.float32]:
        """Valence and arousal (length, 2) of record ``index``, as `au_labels` gives its AUs; nan: unknown."""
        return self._cut("va_labels", len(AFFECT), index, first, length)

    def _cut(self, column: str, width: int, index: int, first: int, length: int | None) -> npt.NDArray[Any]:
        frames = int(self.lengths[index])
        length = frames - first if length is None else length
        if first < 0 or length < 0 or first + length > frames:
            raise ValueError(
                f"{self.corpus}: record {index} has {frames} frames, asked for {first}..{first + length - 1}"
            )
        values, offsets = self._flat[column]
        begin = int(offsets[index]) + first * width
        return values[begin : begin + length * width].reshape(length, width)

    @property
    def frame_labels(self) -> npt.NDArray[np.int8]:
        """AU labels of all frames, one record after the other (F, A), read-only."""
        return self._whole("au_labels", len(self.labels.aus))

    @property
    def frame_affect(self) -> npt.NDArray[np.float32]:
        """Valence and arousal of all frames, likewise (F, 2)."""
        return self._whole("va_labels", len(AFFECT))

    def _whole(self, column: str, width: int) -> npt.NDArray[Any]:
        values, offsets = self._flat[column]
        return values[int(offsets[0]) : int(offsets[-1])].reshape(-1, width)

    @cached_property
    def soft(self) -> bool:
        """Whether any record has a distribution over the classes."""
        return int(self.column(_SOFT).null_count) < len(self)

    def distribution(self, index: int) -> npt.NDArray[np.float32] | None:
        """Shares (E) of the manifest's classes in the votes on record ``index``; None where its label is hard."""
        shares = self.column(_SOFT)[index].as_py() if self.soft else None
        return None if shares is None else np.array(shares, np.float32)

    def take(self, rows: Sequence[int] | npt.NDArray[np.integer[Any]]) -> Manifest:
        """The records ``rows``, in that order."""
        places = np.asarray(rows, dtype=np.int64)
        table = pa.table([taken(self.column(name), places) for name in SCHEMA.names], schema=SCHEMA)
        return Manifest(self.root, self.corpus, self.task, self.labels, table)

    def filter(self, mask: npt.NDArray[np.bool_]) -> Manifest:
        """The records where ``mask`` (N) is true, in their order."""
        return self.take(np.flatnonzero(mask))

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 over corpus, task, labels and every column: equal content gives an equal fingerprint."""
        digest = hashlib.sha256(json.dumps([self.corpus, self.task, self.labels.model_dump(mode="json")]).encode())
        for name in self._stored_names:
            for part in logical_bytes(self.column(name)):
                digest.update(part)
        return digest.hexdigest()

    @cached_property
    def _columns(self) -> dict[str, pa.Array]:
        empty = {name: pa.array([], SCHEMA.field(name).type) for name in SCHEMA.names}
        return {name: self.table[name].chunk(0) if len(self) else empty[name] for name in SCHEMA.names}

    @cached_property
    def _flat(self) -> dict[str, tuple[npt.NDArray[Any], npt.NDArray[np.int64]]]:
        """Values and offsets of the columns of frame-level labels."""
        arrays = {name: self.column(name) for name in ("au_labels", "va_labels")}
        return {name: (view(array.values), view(array.offsets)) for name, array in arrays.items()}

    @property
    def _group_rows(self) -> int:
        """Rows of a Parquet row group. A group is decoded whole, at 12 bytes a label: one group of 77 million labels
        took 1.2 GB and 5.9 s to read, groups of a million 0.3 GB and 1.4 s."""
        labels = int(self.lengths.sum()) * (len(self.labels.aus) + len(self.labels.affect))
        return max(1, min(_GROUP_ROWS, _GROUP_LABELS * len(self) // max(1, labels)))

    @property
    def _stored_names(self) -> list[str]:
        """What is written and hashed: a column that came later only where it says something, so that manifests without
        it give the files and fingerprints they gave before."""
        return [name for name in SCHEMA.names if name not in _ADDED or self.column(name).null_count < len(self)]

    def _described(self) -> pa.Table:
        about = {
            "root": self.root,
            "corpus": self.corpus,
            "task": self.task,
            "labels": self.labels.model_dump(mode="json"),
        }
        return self.table.select(self._stored_names).replace_schema_metadata({_METADATA: json.dumps(about).encode()})

    @classmethod
    def _from_table(cls, table: pa.Table, name: str, root: str | Path | None) -> Manifest:
        stored = (table.schema.metadata or {}).get(_METADATA)
        if stored is None:
            raise ValueError(
                f"{name}: no {_METADATA.decode()!r} metadata; not a manifest of ours (read it as corpus 'manifest')"
            )
        for name in _ADDED:
            if name not in table.schema.names:
                column = pa.nulls(len(table), SCHEMA.field(name).type)
                table = table.add_column(SCHEMA.get_field_index(name), SCHEMA.field(name), column)
        about = json.loads(stored)
        labels = Vocabulary(**about["labels"])
        return cls(_absolute(root or about["root"]), about["corpus"], about["task"], labels, table)


_COLUMNS: Mapping[Task, tuple[str, ...]] = {
    "au": ("au_labels",),
    "fe": ("expression", _SOFT),
    "va": ("va_labels",),
}
"""Where each task's labels lie in the table."""


def corpus_of(name: str) -> str:
    """The corpus that a manifest `corpus@task` is a part of; other names are their own."""
    return name.partition(_PART)[0]


def _to_batch(records: list[Record]) -> pa.RecordBatch:
    return pa.RecordBatch.from_arrays([_column(records, name) for name in SCHEMA.names], schema=SCHEMA)


def _column(records: list[Record], name: str) -> pa.Array:
    values = [getattr(record, name) for record in records]
    if name not in _FLAT or name == _SOFT:
        return pa.array(values, SCHEMA.field(name).type)
    return flat_list([None if value is None else value.reshape(-1) for value in values], _FLAT[name])


def _absolute(root: str | Path) -> str:
    return str(root) if "://" in str(root) else str(Path(root).absolute())
