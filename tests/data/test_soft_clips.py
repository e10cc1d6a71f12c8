"""Soft labels and stills from records to batches: manifest columns, shards, clips."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pyarrow.parquet as pq
import pytest

from ssm.interface.preprocessing import Preprocessing
from ssm.labels.vocabulary import Vocabulary
from ssm.training.augmentation import Augmentation
from ssm_platform.base.storage import open_storage
from ssm_platform.corpora import read_corpus
from ssm_platform.data.clips import ClipConfig, ClipReader, to_batches
from ssm_platform.data.plan import evaluation_rows
from ssm_platform.ingest.corpus import IngestSettings, ShardResult, ingest_shard, read_manifest, run
from ssm_platform.media.frames import open_frames
from ssm_platform.media.shards import FaceMark, ShardWriter, StoredFrame
from ssm_platform.records.manifest import Manifest, Record

CLASSES = Vocabulary(expressions=("anger", "happiness", "neutral"))
MODEL = Vocabulary(aus=(12,), expressions=("happiness", "fear", "anger", "neutral"))
VOTES = np.array([0.25, 0.75, 0], np.float32)
T, SIDE = 4, 32


def record(root: Path, clip: str, length: int, expression: str, shares: np.ndarray | None = None) -> Record:
    (root / clip).mkdir(parents=True)
    names = tuple(f"{number}.png" for number in range(length))
    for number, name in enumerate(names):
        cv2.imwrite(str(root / clip / name), np.full((SIDE, SIDE, 3), 40 * number + 20, np.uint8))
    return Record(clip, clip, "frames", 0, length, files=names, expression=expression, distribution=shares)


@pytest.fixture
def soft(tmp_path: Path) -> Manifest:
    """A still with votes, a short clip and a long one with a label each."""
    records = [
        record(tmp_path, "still", 1, "happiness", VOTES),
        record(tmp_path, "short", 2, "neutral"),
        record(tmp_path, "long", 5, "anger"),
    ]
    return Manifest.build(tmp_path, "ferplus", "fe", CLASSES, records)


def hardened(manifest: Manifest) -> Manifest:
    records = [replace(one, distribution=None) for one in manifest]
    return Manifest.build(manifest.root, manifest.corpus, "fe", manifest.labels, records)


def test_a_distribution_survives_disk_and_choice(soft: Manifest, tmp_path: Path) -> None:
    soft.write(tmp_path / "soft.parquet")
    back = Manifest.read(tmp_path / "soft.parquet")
    assert back.fingerprint == soft.fingerprint != hardened(soft).fingerprint
    for manifest in (back, Manifest.from_bytes(soft.to_bytes()), back.take([2, 1, 0]).take([2, 1, 0])):
        assert [manifest.distribution(index) is None for index in range(3)] == [False, True, True]
        assert manifest[0].distribution is not None
        assert manifest[0].distribution.tolist() == VOTES.tolist()
    assert soft.soft
    assert not back.take([1, 2]).soft


def test_a_manifest_from_before_soft_labels_still_loads(soft: Manifest, tmp_path: Path) -> None:
    """Hard labels are written without the column, as they were then."""
    hard = hardened(soft)
    hard.write(tmp_path / "hard.parquet")
    assert "distribution" not in pq.read_schema(tmp_path / "hard.parquet").names
    back = Manifest.read(tmp_path / "hard.parquet")
    assert back.fingerprint == hard.fingerprint
    assert [one.distribution for one in back] == [None] * 3


@pytest.mark.parametrize(
    ("shares", "expression", "rule"),
    [
        ([0.5, 0.6, 0], "happiness", "sum to 1"),
        ([-0.5, 1.5, 0], "happiness", ">= 0"),
        ([0.5, 0.5], "happiness", "float32 \\(3,\\)"),
        ([0.25, 0.75, 0], "anger", "not the likeliest"),
    ],
)
def test_a_distribution_that_is_none_is_refused(
    tmp_path: Path, shares: list[float], expression: str, rule: str
) -> None:
    wrong = record(tmp_path, "c", 1, expression, np.array(shares, np.float32))
    with pytest.raises(ValueError, match=rule):
        Manifest.build(tmp_path, "ferplus", "fe", CLASSES, [wrong])


def test_batches_hold_shares_in_the_model_columns_and_count_what_differs(soft: Manifest) -> None:
    reader = ClipReader([soft], MODEL, ClipConfig(frames=T, preprocessing=Preprocessing(image_size=16)))
    fe, *_ = to_batches(reader.read(evaluation_rows([soft], T).columns()))
    assert fe is not None
    assert fe.shares is not None
    assert fe.distinct is not None
    assert fe.shares.tolist() == [[0.75, 0, 0.25, 0], [0, 0, 0, 1], [0, 0, 1, 0]]
    assert fe.labels.tolist() == [0, 3, 2]
    assert fe.distinct.tolist() == [1, 2, 4]
    frames = fe.clips[:, :, 0, 0, 0].tolist()
    assert frames[0] == [20] * 4
    assert frames[1] == [20, 60, 60, 60]
    assert len(set(frames[2])) == 4


def test_hard_corpora_of_full_clips_give_the_batches_they_gave(soft: Manifest) -> None:
    hard = hardened(soft).take([2])
    reader = ClipReader([hard], MODEL, ClipConfig(frames=T, preprocessing=Preprocessing(image_size=16)))
    columns = reader.read(evaluation_rows([hard], T).columns())
    fe, *_ = to_batches(columns)
    assert fe is not None
    assert (fe.shares, fe.distinct) == (None, None)
    assert "fe_shares" not in columns


def test_a_still_is_warped_once_and_alike(soft: Manifest) -> None:
    warped = Augmentation(scale=(0.3, 0.6), rotation=20, flip=0.5)
    config = ClipConfig(frames=T, preprocessing=Preprocessing(image_size=16), augmentation=(warped,))
    rows = evaluation_rows([soft], T)
    clips = ClipReader([soft], MODEL, config).read(rows.columns())["clip"]
    assert (clips[0] == clips[0, :1]).all()


def test_shards_keep_votes(soft: Manifest, tmp_path: Path) -> None:
    storage = open_storage(tmp_path / "shards")
    data = (tmp_path / "still" / "0.png").read_bytes()
    with ShardWriter(storage, "a") as writer:
        start, _ = writer.add("still", iter([StoredFrame(data, FaceMark.DELIVERED)]))
        stored = replace(soft[0], source=writer.source, kind="shard", start=start, files=None)
        writer.publish(Manifest.build(storage.uri, "ferplus", "fe", CLASSES, [stored]))
    back = Manifest.from_bytes(storage.read("a.parquet"), root=storage.uri)
    assert back[0].distribution is not None
    assert back[0].distribution.tolist() == VOTES.tolist()


def test_typed_pixels_and_votes_go_into_shards(tmp_path: Path) -> None:
    """Through ingest as a user runs it: the face is the owner's crop, nobody looks for one."""
    values = np.random.default_rng(0).integers(0, 256, (48, 48), dtype=np.uint8)
    typed = " ".join(map(str, values.reshape(-1)))
    root = tmp_path / "ferplus"
    root.mkdir()
    (root / "fer2013.csv").write_text(f"emotion,pixels,Usage\n3,{typed},Training\n")
    header = "Usage,Image name,neutral,happiness,surprise,sadness,anger,disgust,fear,contempt,unknown,NF"
    (root / "fer2013new.csv").write_text(f"{header}\nTraining,,2,8,0,0,0,0,0,0,0,0\n")
    manifest = read_corpus("ferplus", root).manifest
    settings = IngestSettings(quality=100)

    def alone(*job: Any) -> Iterator[ShardResult]:
        read, out, chosen, tasks = job
        return (ingest_shard(read, out, chosen, task, no_detector) for task in tasks)

    run(manifest, tmp_path / "shards", settings, alone)
    back = read_manifest(tmp_path / "shards")
    assert back[0].kind == "shard"
    assert back[0].distribution is not None
    assert sorted(back[0].distribution.tolist()) == pytest.approx([0] * 6 + [0.2, 0.8])
    image = open_frames(back[0], back.root).read([0])[0, ..., 0]
    assert np.abs(image.astype(int) - values).mean() < 2


def no_detector(*_: Any) -> Any:
    raise AssertionError("an owner's crop is not searched for a face")
