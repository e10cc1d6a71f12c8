"""Manifests: exact through Parquet, columns agree with records, equal content has an equal fingerprint."""

from __future__ import annotations

import pickle
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from ssm.labels.vocabulary import BASIC_EXPRESSIONS, Vocabulary
from ssm_platform.records.manifest import Manifest, Record

AUS = Vocabulary(aus=(1, 12))
FACES = Vocabulary(expressions=BASIC_EXPRESSIONS)


def au_record(number: int, length: int = 5) -> Record:
    labels = np.random.default_rng(number).integers(-1, 2, (length, 2)).astype(np.int8)
    files = tuple(f"{frame:04d}.jpg" for frame in range(length))
    return Record(f"F{number}", f"x/F{number}", "frames", 0, length, f"S{number % 2}", "P1", files, 25.0, None, labels)


def fe_record(number: int) -> Record:
    expression = BASIC_EXPRESSIONS[number % 7]
    return Record(f"c{number}", f"c{number}.mp4", "video", 0, 8 + number, part=str(number % 3), expression=expression)


def au_manifest(lengths: tuple[int, ...] = (5, 1, 9)) -> Manifest:
    records = [au_record(number, length) for number, length in enumerate(lengths)]
    return Manifest.build("/data/x", "lab", "au", AUS, records)


def fe_manifest(count: int = 10) -> Manifest:
    return Manifest.build("/data/y", "wild", "fe", FACES, (fe_record(number) for number in range(count)))


def same(left: Record, right: Record) -> bool:
    fields = ("clip", "source", "kind", "start", "length", "subject", "part", "files", "rate", "expression")
    plain = all(getattr(left, name) == getattr(right, name) for name in fields)
    if left.au_labels is None or right.au_labels is None:
        return plain and left.au_labels is right.au_labels
    return plain and np.array_equal(left.au_labels, right.au_labels)


def test_records_survive_parquet_exactly(tmp_path: Path) -> None:
    for manifest, make in ((au_manifest(), au_record), (fe_manifest(), fe_record)):
        path = tmp_path / f"{manifest.corpus}.parquet"
        manifest.write(path)
        back = Manifest.read(path)
        assert back.fingerprint == manifest.fingerprint
        assert (back.root, back.corpus, back.task, back.labels) == (
            manifest.root,
            manifest.corpus,
            manifest.task,
            manifest.labels,
        )
        assert all(same(left, right) for left, right in zip(back, manifest, strict=True))
        assert same(back[1], make(1, 1) if manifest.task == "au" else make(1))
        assert [entry.name for entry in tmp_path.glob(".*")] == []


def test_a_moved_root_replaces_the_stored_one(tmp_path: Path) -> None:
    fe_manifest().write(tmp_path / "m.parquet")
    assert Manifest.read(tmp_path / "m.parquet", root="s3://bucket/wild").root == "s3://bucket/wild"
    assert Manifest.from_bytes(fe_manifest().to_bytes()).fingerprint == fe_manifest().fingerprint


def test_columns_agree_with_records() -> None:
    manifest = fe_manifest()
    codes, values = manifest.codes("part")
    assert [values[code] for code in codes] == [record.part for record in manifest]
    assert [manifest.labels.expressions[column] for column in manifest.expression_columns] == [
        record.expression for record in manifest
    ]
    assert manifest.lengths.tolist() == [record.length for record in manifest]
    assert manifest.codes("subject")[0].tolist() == [-1] * 10


def test_label_windows_are_the_rows_of_the_record() -> None:
    manifest = au_manifest().take([2, 0])
    whole = au_record(2, 9).au_labels
    assert whole is not None
    assert np.array_equal(manifest.au_labels(0, 3, 4), whole[3:7])
    assert manifest[0].aus == (1, 12)
    with pytest.raises(ValueError, match="has 9 frames, asked for 6"):
        manifest.au_labels(0, 6, 4)
    with pytest.raises(IndexError):
        manifest[2]


def test_fingerprint_follows_content_not_layout() -> None:
    manifest = au_manifest()
    assert manifest.take([0, 1, 2]).fingerprint == manifest.fingerprint
    assert manifest.filter(np.ones(3, bool)).fingerprint == manifest.fingerprint
    assert pickle.loads(pickle.dumps(manifest.take([1, 2]))).fingerprint == manifest.take([1, 2]).fingerprint
    others = [manifest.take([1, 0, 2]), manifest.take([0, 1]), manifest.take([]), au_manifest((5, 1, 8))]
    assert len({manifest.fingerprint, *(other.fingerprint for other in others)}) == 5


@pytest.mark.parametrize(
    ("change", "rule"),
    [
        ({"length": 0, "files": ()}, "at least one frame"),
        ({"kind": "film"}, "kind is one of"),
        ({"start": -1}, "start counts from 0"),
        ({"rate": 0.0}, "rate is positive"),
        ({"files": None}, "lists its files"),
        ({"files": ("a.jpg",)}, "one file per frame"),
        ({"au_labels": None}, "carry AU labels"),
        ({"au_labels": np.zeros((5, 3), np.int8)}, r"int8 \(5, 2\)"),
        ({"au_labels": np.full((5, 2), 9, np.int8)}, "1, 0 or -1"),
        ({"expression": "joy"}, "'joy' is not in"),
    ],
)
def test_broken_records_are_refused_by_name(change: dict[str, object], rule: str) -> None:
    with pytest.raises(ValueError, match=f"F0.*{rule}"):
        Manifest.build("/x", "lab", "au", AUS, [replace(au_record(0), **change)])  # type: ignore[arg-type]


def test_clip_names_are_unique() -> None:
    with pytest.raises(ValueError, match="'c1' is there twice"):
        Manifest.build("/x", "wild", "fe", FACES, [fe_record(1), fe_record(1)])


def test_a_foreign_file_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "x.parquet").write_text("not parquet")
    with pytest.raises(ValueError, match=r"x\.parquet"):
        Manifest.read(tmp_path / "x.parquet")


@pytest.mark.parametrize("place", ["absent.parquet", "."])
def test_what_is_no_file_is_refused_by_name(tmp_path: Path, place: str) -> None:
    with pytest.raises(ValueError, match=r"one Parquet file that can be read") as caught:
        Manifest.read(tmp_path / place)
    assert str(tmp_path / place) in str(caught.value)


def test_a_manifest_without_the_column_of_groups_is_the_same_manifest(tmp_path: Path) -> None:
    """As versions before groups wrote it: their runs and shards go on."""
    manifest = fe_manifest()
    manifest.write(tmp_path / "old.parquet")
    assert "group" not in pq.read_schema(tmp_path / "old.parquet").names
    assert Manifest.read(tmp_path / "old.parquet").fingerprint == manifest.fingerprint
    grouped = [replace(record, group="film") for record in manifest]
    again = Manifest.build(manifest.root, manifest.corpus, manifest.task, manifest.labels, grouped)
    assert again.fingerprint != manifest.fingerprint
    again.write(tmp_path / "new.parquet")
    assert [record.group for record in Manifest.read(tmp_path / "new.parquet")] == ["film"] * len(manifest)
