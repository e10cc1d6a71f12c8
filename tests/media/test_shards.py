"""Shards: any window in one range read, never a wrong frame, on a folder and on an S3 server that misbehaves."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from faulty_s3 import Faulty
from stamp import read_stamp, stamp

from ssm.interface.preprocessing import Preprocessing
from ssm.labels.vocabulary import Vocabulary
from ssm_platform.base.storage import DamagedObject, Storage, StorageError, open_storage
from ssm_platform.data.clips import ClipConfig, ClipReader
from ssm_platform.data.plan import Plan, PlanConfig
from ssm_platform.media import shards
from ssm_platform.media.frames import open_frames
from ssm_platform.media.images import encode_jpeg
from ssm_platform.media.shards import FaceMark, ShardFrames, ShardWriter, StoredFrame
from ssm_platform.records.manifest import Manifest, Record

SIDE = 96
LENGTHS = {"first": 40, "second": 7, "third": 60}


def clip_frames(number: int, length: int) -> Iterator[StoredFrame]:
    noise = np.random.default_rng(number).integers(0, 256, (SIDE, SIDE, 3), np.uint8)
    for frame in range(length):
        data = encode_jpeg(stamp(noise, number, frame), 95)
        found = frame % 5 != 4
        yield StoredFrame(data, FaceMark.FOUND if found else FaceMark.NONE, (frame, 2, 30, 40) if found else None)


def write_shard(storage: Storage, name: str = "shards/00000", clips: dict[str, int] | None = None) -> Manifest:
    with ShardWriter(storage, name) as writer:
        records = []
        for number, (clip, length) in enumerate((clips or LENGTHS).items()):
            start, marks = writer.add(clip, clip_frames(number, length))
            assert len(marks) == length
            records.append(Record(clip, writer.source, "shard", start, length, expression="happiness"))
        manifest = Manifest.build(storage.uri, "test", "fe", Vocabulary(expressions=("happiness",)), records)
        writer.publish(manifest)
    return manifest


def read(manifest: Manifest, clip: int, indices: list[int]) -> list[int]:
    frames = open_frames(manifest[clip], manifest.root).read(indices)
    assert frames.shape == (len(indices), SIDE, SIDE, 3)
    stamps = [read_stamp(frame) for frame in frames]
    assert {one.clip for one in stamps} == {clip}
    return [one.frame for one in stamps]


def fresh_caches() -> None:
    shards._table.cache_clear()
    shards._storage.cache_clear()


@pytest.fixture(autouse=True)
def new_process() -> None:
    """No test sees what another one cached."""
    fresh_caches()


@pytest.fixture(params=["folder", "s3"])
def manifest(request: pytest.FixtureRequest, tmp_path: Path) -> Manifest:
    uri = tmp_path if request.param == "folder" else request.getfixturevalue("bucket")
    return write_shard(open_storage(uri))


def test_frames_come_back_by_number(manifest: Manifest) -> None:
    assert read(manifest, 0, [0, 39, 17, 17]) == [0, 39, 17, 17]
    assert read(manifest, 1, list(range(7))) == list(range(7))
    assert read(manifest, 2, [59, 3]) == [59, 3]
    with pytest.raises(ValueError, match=r"00000\.data: frame 7 is not in 0\.\.6 \(length 7\)"):
        read(manifest, 1, [7])


def test_the_manifest_is_stored_last_and_equal(manifest: Manifest) -> None:
    stored = Manifest.from_bytes(open_storage(manifest.root).read("shards/00000.parquet"))
    assert stored.fingerprint == manifest.fingerprint
    assert open_storage(manifest.root).list() == [f"shards/00000.{end}" for end in ("data", "frames", "parquet")]


def test_a_window_is_one_range_read(faulty: Faulty) -> None:
    manifest = write_shard(open_storage(faulty.uri))
    read(manifest, 0, [0])
    faulty.schedule()
    assert read(manifest, 2, list(range(20, 36))) == list(range(20, 36))
    assert faulty.requests("GET") == 1


def test_faces_are_marked_with_their_boxes(manifest: Manifest) -> None:
    marks, boxes = ShardFrames(manifest[1], manifest.root).faces()
    assert marks.tolist() == [1, 1, 1, 1, 0, 1, 1]
    assert boxes[3].tolist() == [3, 2, 30, 40]
    assert np.isnan(boxes[4]).all()


def test_a_clip_that_fails_midway_leaves_no_trace(tmp_path: Path) -> None:
    def broken() -> Iterator[StoredFrame]:
        yield from clip_frames(9, 3)
        raise ValueError("the disk of the camera was full")

    storage = open_storage(tmp_path)
    with ShardWriter(storage, "s") as writer:
        writer.add("first", clip_frames(0, 4))
        with pytest.raises(ValueError, match="camera"):
            writer.add("broken", broken())
        start, _ = writer.add("second", clip_frames(1, 4))
        records = [
            Record(clip, "s.data", "shard", at, 4, expression="fear") for clip, at in (("first", 0), ("second", start))
        ]
        built = Manifest.build(tmp_path, "test", "fe", Vocabulary(expressions=("fear",)), records)
        writer.publish(built)
    assert start == 4
    assert read(built, 0, [0, 3]) == [0, 3]
    assert read(built, 1, [0, 3]) == [0, 3]


def test_a_writer_that_is_left_publishes_nothing(tmp_path: Path) -> None:
    storage = open_storage(tmp_path)
    with ShardWriter(storage, "s") as writer:
        writer.add("first", clip_frames(0, 4))
    assert storage.list() == []
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_bytes_of_another_clip_or_version_never_pass(tmp_path: Path) -> None:
    manifest = write_shard(open_storage(tmp_path))
    other = replace(manifest[0], clip="renamed")
    with pytest.raises(StorageError, match=r"00000\.data: clip 'renamed', frame 3: checksum does not fit"):
        open_frames(other, tmp_path).read([3])
    moved = replace(manifest[0], start=1, length=39)
    with pytest.raises(StorageError, match="checksum does not fit"):
        open_frames(replace(moved, clip="second"), tmp_path).read([3])
    with pytest.raises(StorageError, match=r"needs frames 100\.\.139, the shard has 107"):
        open_frames(replace(manifest[0], start=100), tmp_path).read([0])
    write_shard(open_storage(tmp_path), clips={"second": 40, "first": 67})
    fresh_caches()  # a re-made shard, an old manifest
    with pytest.raises(StorageError, match="checksum does not fit"):
        read(manifest, 0, [0])


def test_a_remade_shard_is_read_anew(tmp_path: Path) -> None:
    assert read(write_shard(open_storage(tmp_path)), 0, [5]) == [5]
    again = write_shard(open_storage(tmp_path), clips={"first": 11, "second": 30})
    assert read(again, 1, [29]) == [29]


def test_damage_on_disk_is_an_error_that_names_clip_and_frame(tmp_path: Path) -> None:
    manifest = write_shard(open_storage(tmp_path))
    path = tmp_path / "shards" / "00000.data"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 4
    path.write_bytes(data)
    lengths, wrong = list(LENGTHS.values()), []
    for clip, length in enumerate(lengths):
        for frame in range(length):
            try:
                assert read(manifest, clip, [frame]) == [frame]
            except StorageError as error:
                wrong.append(str(error))
    assert len(wrong) == 1
    assert "checksum does not fit (3 reads)" in wrong[0]
    path.write_bytes(data[:500])
    with pytest.raises(StorageError, match=r"00000\.data: .*too short"):
        read(manifest, 2, [59])
    (tmp_path / "shards" / "00000.frames").write_bytes(b"something else")
    shards._table.cache_clear()
    with pytest.raises(StorageError, match=r"00000\.frames: not a frame table"):
        read(manifest, 0, [0])


@pytest.mark.parametrize("fault", ["error500", "truncated", "shorter", "damaged", "dropped"])
def test_an_s3_that_misbehaves_never_gives_a_wrong_clip(faulty: Faulty, fault: str) -> None:
    manifest = write_shard(open_storage(faulty.uri))
    for healthy in (0, 1):  # the fault hits the frame table, then the data
        shards._table.cache_clear()
        faulty.schedule(*["none"] * healthy, fault)
        assert read(manifest, 0, list(range(8, 24))) == list(range(8, 24))


def test_a_shard_that_is_gone_is_named(faulty: Faulty) -> None:
    manifest = write_shard(open_storage(faulty.uri))
    read(manifest, 0, [0])
    open_storage(faulty.uri).delete("shards/00000.data")
    with pytest.raises(StorageError, match=r"s3://shards/x/shards/00000\.data: no such object"):
        read(manifest, 0, [0])


def test_a_machine_asks_once_for_a_table_and_once_for_a_clip(faulty: Faulty) -> None:
    """128 tables in memory beside ten thousand shards made nearly every clip two requests, one after the other."""
    storage = open_storage(faulty.uri)
    manifests = [
        write_shard(storage, f"shards/{shard:05d}", {f"{shard}-{number}": 6 for number in range(20)})
        for shard in range(3)
    ]
    records = [record for manifest in manifests for record in manifest]
    manifest = Manifest.build(storage.uri, "test", "fe", manifests[0].labels, records)
    rows = Plan.of([manifest], PlanConfig(fe_batch=60, au_batch=0, frames=4)).rows(0, 1).columns()
    config = ClipConfig(frames=4, preprocessing=Preprocessing(image_size=64))
    faulty.schedule()
    for _ in range(2):  # processes of one machine: the second maps what the first has fetched
        fresh_caches()
        columns = ClipReader([manifest], manifest.labels, config).read(rows)
        assert not any(columns["problem"]), columns["problem"]
    assert faulty.requests("GET") / (2 * len(rows["row"])) <= 1.05


def test_a_copy_of_a_table_that_is_torn_or_dropped_is_fetched_anew(faulty: Faulty) -> None:
    manifest = write_shard(open_storage(faulty.uri))
    assert read(manifest, 0, [3]) == [3]
    copy = shards._copy(faulty.uri, "shards/00000.frames")
    assert copy is not None
    whole = copy.read_bytes()
    for torn in (b"", whole[:-1], None):
        fresh_caches()
        copy.unlink() if torn is None else copy.write_bytes(torn)
        assert read(manifest, 0, [3]) == [3]
        assert copy.read_bytes() == whole


def test_damage_that_stays_ends_with_the_key(faulty: Faulty) -> None:
    storage = open_storage(faulty.uri)
    manifest = write_shard(storage)
    read(manifest, 0, [0])
    data = storage.read("shards/00000.data")  # one bit of its every byte, for good: no answer is broken, the object is
    storage.write("shards/00000.data", bytes(byte ^ 1 for byte in data))
    with pytest.raises(DamagedObject, match=r"00000\.data: "):
        read(manifest, 0, [12])
    assert faulty.requests("GET") <= 10


def test_memory_of_readers_is_bounded(tmp_path: Path) -> None:
    storage = open_storage(tmp_path)
    manifests = [write_shard(storage, f"shards/{number:05d}", {"c": 2}) for number in range(150)]
    for manifest in manifests:
        open_frames(manifest[0], manifest.root).read([0])
    assert shards._table.cache_info().currsize <= 128
    open_files = [path for path in Path("/proc/self/fd").iterdir() if path.resolve().suffix == ".data"]
    assert len(open_files) <= 64
