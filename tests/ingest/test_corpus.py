"""Ingest: raw records to shards; faces cut out, owners' crops untouched, the bad set aside, a killed run continued."""

from __future__ import annotations

import csv
import errno
import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import cv2
import numpy as np
import pytest
from pydantic import ValidationError
from stamp import read_stamp, stamp

from ssm.labels.vocabulary import Vocabulary
from ssm_platform.corpora import corpora
from ssm_platform.faces.crop_sources import OWNERS_CROPS, CropSettings
from ssm_platform.faces.detectors import Detection, Detector
from ssm_platform.faces.settings import FaceSettings
from ssm_platform.ingest.corpus import (
    IngestRefused,
    IngestSettings,
    IngestSummary,
    ShardResult,
    ShardTask,
    assign,
    ingest_shard,
    read_manifest,
    run,
)
from ssm_platform.media.errors import UnreadableVideo
from ssm_platform.media.frames import open_frames
from ssm_platform.media.images import encode_jpeg, read_image
from ssm_platform.media.shards import FaceMark, ShardFrames
from ssm_platform.records.manifest import Manifest, Record

CORPUS = "raw"  # no row of the table of owners' crops
SIDE = 96
FAST = FaceSettings(detector="haar", every=2, max_gap=4, min_frames=2)


class Bright:
    """Finds the bright square that stands for a face."""

    def __call__(self, image: np.ndarray, near: Sequence[Detection] = ()) -> list[Detection]:
        rows, columns = np.nonzero(image[..., 0] > 200)
        if not len(rows):
            return []
        x, y = columns.min(), rows.min()
        return [Detection(float(x), float(y), float(columns.max() + 1 - x), float(rows.max() + 1 - y), 0.9)]


def here(detector: Detector) -> object:
    """A spread without Ray."""

    def spread(manifest: Manifest, out: str, settings: IngestSettings, tasks: list[ShardTask]) -> Iterator[ShardResult]:
        for task in tasks:
            yield ingest_shard(manifest, out, settings, task, detector)

    return spread


def scene(frame: int, visible: bool) -> np.ndarray:
    """A grey field with a bright square that wanders; its middle is red by the number of the frame."""
    image = np.full((120, 200, 3), 90, np.uint8)
    if visible:
        image[30:70, 40 + frame : 80 + frame] = 230
        image[45:55, 55 + frame : 65 + frame] = (255, 5 * frame, 5 * frame)
    return image


def write_folder(root: Path, name: str, length: int, hidden: range = range(0)) -> tuple[str, ...]:
    (root / name).mkdir(parents=True)
    files = tuple(f"{number}.png" for number in range(length))
    for number, file in enumerate(files):
        cv2.imwrite(str(root / name / file), scene(number, number not in hidden)[..., ::-1])
    return files


def au_manifest(root: Path, clips: dict[str, range], length: int = 24) -> Manifest:
    """Clips of `length` frames; the face is hidden in the frames named."""
    records = []
    for clip, hidden in clips.items():
        files = write_folder(root, clip, length, hidden)
        labels = np.arange(length, dtype=np.int8)[:, None] % 2 * np.ones((1, 2), np.int8)
        records.append(
            Record(clip, clip, "frames", 0, length, "S1", "P1", files, 25.0, None, labels.astype(np.int8), (6, 12))
        )
    return Manifest.build(root, CORPUS, "au", Vocabulary(aus=(6, 12)), records)


def settings(**changes: object) -> IngestSettings:
    values = {"size": SIDE, "faces": FAST, "frames_per_shard": 40, "margin": 0.5, "max_quarantined": 0.5}
    return IngestSettings.model_validate(values | changes)


def ingest(manifest: Manifest, out: Path | str, **changes: object) -> IngestSummary:
    return run(manifest, out, settings(**changes), here(Bright()))  # type: ignore[arg-type]


def test_shards_hold_the_faces_of_the_records_in_their_order(tmp_path: Path) -> None:
    manifest = au_manifest(tmp_path / "raw", {"a": range(0), "b": range(0), "c": range(0)})
    summary = ingest(manifest, tmp_path / "out")
    assert (summary.clips, summary.frames, summary.faceless, summary.quarantined) == (3, 72, 0, [])
    stored = read_manifest(tmp_path / "out")
    assert stored.column("clip").to_pylist() == ["a", "b", "c"]
    assert [(record.kind, record.source, record.start) for record in stored] == [
        ("shard", "shards/00000.data", 0),
        ("shard", "shards/00000.data", 24),
        ("shard", "shards/00001.data", 0),
    ]
    for before, after in zip(manifest, stored, strict=True):
        assert after.crop == "detected:haar:0.5:none", "what was cut, recorded for whoever trains on it"
        assert (after.subject, after.part, after.rate, after.aus) == ("S1", "P1", 25.0, (6, 12))
        assert np.array_equal(after.au_labels, before.au_labels)
        frames = open_frames(after, stored.root).read([0, 11, 23])
        assert frames.shape == (3, SIDE, SIDE, 3)
        middle = frames[:, SIDE // 2 - 4 : SIDE // 2 + 4, SIDE // 2 - 4 : SIDE // 2 + 4].mean(axis=(1, 2))
        assert np.abs(middle - [[255, 0, 0], [255, 55, 55], [255, 115, 115]]).max() < 30  # the face stays in the middle
        assert frames[0, 2, 2].max() < 120  # and has its margin


def test_frames_without_a_face_are_marked_and_lose_their_labels(tmp_path: Path) -> None:
    manifest = au_manifest(tmp_path / "raw", {"gone": range(8, 20), "blink": range(8, 10), "late": range(0, 5)})
    summary = ingest(manifest, tmp_path / "out", frames_per_shard=1000)
    stored = read_manifest(tmp_path / "out")
    gone, blink, late = stored
    marks, boxes = ShardFrames(gone, stored.root).faces()
    assert np.flatnonzero(marks == FaceMark.NONE).tolist() == list(range(8, 20))
    assert np.isnan(boxes[8:20]).all()
    assert not np.isnan(boxes[:8]).any()
    assert np.flatnonzero((gone.au_labels == -1).all(axis=1)).tolist() == list(range(8, 20))
    assert (ShardFrames(blink, stored.root).faces()[0] == FaceMark.FOUND).all()  # a short gap is bridged
    assert (blink.au_labels >= 0).all()
    assert (ShardFrames(late, stored.root).faces()[0] == FaceMark.NONE).tolist() == [True] * 5 + [False] * 19
    assert summary.faceless == 17
    assert open_frames(gone, stored.root).read(list(range(24))).shape == (24, SIDE, SIDE, 3)


def test_what_cannot_be_used_is_set_aside_with_path_and_reason(tmp_path: Path) -> None:
    root = tmp_path / "raw"
    manifest = au_manifest(root, {"good": range(0), "cut": range(0), "absent": range(0), "empty": range(24)})
    (root / "cut" / "7.png").write_bytes((root / "cut" / "7.png").read_bytes()[:90])
    (root / "absent" / "3.png").unlink()
    summary = ingest(manifest, tmp_path / "out", max_quarantined=0.75)
    assert read_manifest(tmp_path / "out").column("clip").to_pylist() == ["good"]
    reasons = {row.clip: (Path(row.path).name, row.reason) for row in summary.quarantined}
    assert reasons["cut"][0] == "7.png"
    assert reasons["absent"] == ("3.png", "No such file or directory")
    assert reasons["empty"] == ("empty", "a face in 0% of 24 frames; min_face_share is 0.25")
    with (tmp_path / "out" / "quarantine.csv").open() as file:
        assert [row["clip"] for row in csv.DictReader(file)] == ["cut", "absent", "empty"]


def test_a_disk_that_is_away_is_no_clips_fault(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    manifest = au_manifest(tmp_path / "raw", {"good": range(0), "other": range(0)})
    real = Path.read_bytes

    def stale(path: Path) -> bytes:
        if path.parent.name == "other":
            raise OSError(errno.ESTALE, "Stale file handle")
        return real(path)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "read_bytes", stale)
        with pytest.raises(UnreadableVideo, match="Stale file handle"):
            ingest(manifest, tmp_path / "out")
    summary = ingest(manifest, tmp_path / "out")
    assert (summary.clips, summary.quarantined) == (2, [])


def test_past_the_ceiling_the_job_refuses(tmp_path: Path) -> None:
    manifest = au_manifest(tmp_path / "raw", {"good": range(0), "empty": range(24)})
    with pytest.raises(IngestRefused, match=r"1 of 2 clips are in quarantine, over max_quarantined 0\.1.*\n  empty: "):
        ingest(manifest, tmp_path / "out", max_quarantined=0.1)
    assert not (tmp_path / "out" / "manifest.parquet").exists()
    assert (tmp_path / "out" / "quarantine.csv").read_text().count("\n") == 2
    assert ingest(manifest, tmp_path / "out", max_quarantined=0.5).clips == 1  # the ceiling alone may be changed


def crops_manifest(root: Path, sides: tuple[int, ...], corpus: str = "dfew") -> Manifest:
    records = []
    for number, side in enumerate(sides):
        folder = root / f"{number}"
        folder.mkdir(parents=True)
        for frame in range(3):
            image = stamp(np.full((side, side, 3), 120, np.uint8), number, frame)
            (folder / f"{frame}.jpg").write_bytes(encode_jpeg(image, 90))
        files = tuple(f"{frame}.jpg" for frame in range(3))
        records.append(Record(f"c{number}", f"{number}", "frames", 0, 3, files=files, expression="fear"))
    return Manifest.build(root, corpus, "fe", Vocabulary(expressions=("fear",)), records)


def test_owners_crops_keep_their_very_bytes(tmp_path: Path) -> None:
    manifest = crops_manifest(tmp_path / "crops", (64, SIDE))
    ingest(manifest, tmp_path / "out")
    stored = read_manifest(tmp_path / "out")
    for number, record in enumerate(stored):
        frames = open_frames(record, stored.root).read([2, 0])
        originals = [read_image(tmp_path / "crops" / f"{number}" / f"{frame}.jpg") for frame in (2, 0)]
        assert np.array_equal(frames, originals)
        assert (ShardFrames(record, stored.root).faces()[0] == FaceMark.DELIVERED).all()


def test_larger_crops_of_owners_are_only_shrunk(tmp_path: Path) -> None:
    manifest = crops_manifest(tmp_path / "crops", (160,))
    ingest(manifest, tmp_path / "out")
    (record,) = stored = read_manifest(tmp_path / "out")
    frames = open_frames(record, stored.root).read([0, 1, 2])
    assert frames.shape == (3, SIDE, SIDE, 3)
    assert [read_stamp(frame).frame for frame in frames] == [0, 1, 2]


def test_level_eyes_need_the_points_of_yunet(tmp_path: Path) -> None:
    manifest = au_manifest(tmp_path / "raw", {"a": range(0)})
    with pytest.raises(IngestRefused, match="'eyes' needs the points of YuNet"):
        ingest(manifest, tmp_path / "out", alignment="eyes")


def test_an_ingest_begun_before_alignment_came_goes_on(tmp_path: Path) -> None:
    manifest = au_manifest(tmp_path / "raw", {"a": range(0)})
    ingest(manifest, tmp_path / "out")
    claim = json.loads((tmp_path / "out" / "ingest.json").read_text())
    assert claim["faces"]["detector"] == "haar"
    assert not {"alignment", "embedding", "identity"} & {*claim, *claim["faces"]}
    ingest(manifest, tmp_path / "out")


def test_who_delivers_crops_is_a_table_and_a_setting(tmp_path: Path) -> None:
    manifest = crops_manifest(tmp_path / "crops", (64,), corpus="somebody")
    with pytest.raises(IngestRefused, match="a face in 0% of 3 frames"):  # looked for, and not found
        run(manifest, tmp_path / "never", settings(), here(lambda image, near=(): []))  # type: ignore[arg-type]
    assert ingest(manifest, tmp_path / "always", crops="always").clips == 1


def test_all_labels_of_a_record_travel_and_frames_without_a_face_become_unknown(tmp_path: Path) -> None:
    files = write_folder(tmp_path / "raw", "a", 24, range(10, 20))
    affect = np.linspace(-1, 1, 48, dtype=np.float32).reshape(24, 2)
    affect[3] = np.nan
    labels = Vocabulary(aus=(6, 12), expressions=("fear",), affect=("valence", "arousal"))
    record = Record(
        "a", "a", "frames", 0, 24, files=files, expression="fear", au_labels=np.ones((24, 2), np.int8), va_labels=affect
    )
    ingest(Manifest.build(tmp_path / "raw", CORPUS, "au", labels, [record]), tmp_path / "out")
    stored = read_manifest(tmp_path / "out")
    assert stored.tasks == ("au", "fe", "va")
    unseen = (stored.au_labels(0) < 0).all(1)
    assert 0 < unseen.sum() < 12
    unknown = np.isnan(stored.va_labels(0)).all(1)
    assert unknown[3]
    assert np.array_equal(np.delete(unknown, 3), np.delete(unseen, 3))
    assert np.array_equal(stored.va_labels(0)[~unknown], affect[~unknown])
    assert stored[0].expression == "fear"


def test_the_table_of_owners_crops_names_corpora_we_read() -> None:
    assert set(OWNERS_CROPS) <= set(corpora())


def test_frames_of_different_size_are_set_aside(tmp_path: Path) -> None:
    manifest = crops_manifest(tmp_path / "crops", (64, 64, 64))
    (tmp_path / "crops" / "1" / "2.jpg").write_bytes(encode_jpeg(np.zeros((64, 70, 3), np.uint8), 90))
    (row,) = ingest(manifest, tmp_path / "out").quarantined
    assert row.reason == "frames of one clip have one size; (64, 70) after (64, 64)"


def test_assignment_is_a_pure_function_and_covers_every_record_once(tmp_path: Path) -> None:
    records = [
        Record(f"c{number}", f"{number}.mp4", "video", 0, 1 + number * 7 % 60, expression="fear")
        for number in range(200)
    ]
    manifest = Manifest.build(tmp_path, "x", "fe", Vocabulary(expressions=("fear",)), records)
    tasks = assign(manifest, settings())
    assert tasks == assign(manifest, settings())
    assert [index for task in tasks for index in range(task.first, task.last)] == list(range(200))
    frames = [int(manifest.lengths[task.first : task.last].sum()) for task in tasks]
    assert all(count >= 40 for count in frames[:-1])
    assert max(frames) < 40 + 60
    assert len({task.name for task in tasks}) == len(tasks)


def test_a_run_that_was_ended_goes_on_and_repeats_nothing_finished(tmp_path: Path) -> None:
    manifest = au_manifest(tmp_path / "raw", {name: range(0) for name in "abcdef"})
    made: list[str] = []

    def dies_after(count: int) -> object:
        def spread(
            manifest: Manifest, out: str, chosen: IngestSettings, tasks: list[ShardTask]
        ) -> Iterator[ShardResult]:
            for task in tasks[:count]:
                made.append(task.name)
                yield ingest_shard(manifest, out, chosen, task, Bright())
            if len(tasks) > count:
                raise KeyboardInterrupt

        return spread

    with pytest.raises(KeyboardInterrupt):
        run(manifest, tmp_path / "out", settings(), dies_after(1))  # type: ignore[arg-type]
    assert not (tmp_path / "out" / "manifest.parquet").exists()
    (tmp_path / "out" / "shards" / "00001.data").write_bytes(b"half a shard")  # killed before its manifest
    summary = run(manifest, tmp_path / "out", settings(), dies_after(9))  # type: ignore[arg-type]
    assert made == ["shards/00000", "shards/00001", "shards/00002"]
    assert summary.clips == 6
    straight = ingest(manifest, tmp_path / "straight")
    ours, theirs = read_manifest(tmp_path / "out"), read_manifest(tmp_path / "straight")
    assert straight.frames == summary.frames
    assert ours.fingerprint == theirs.fingerprint
    for name in ("00000", "00001", "00002"):
        for end in ("data", "frames"):
            key = f"shards/{name}.{end}"
            assert (tmp_path / "out" / key).read_bytes() == (tmp_path / "straight" / key).read_bytes()


def test_another_ingest_in_the_same_place_is_refused(tmp_path: Path) -> None:
    manifest = au_manifest(tmp_path / "raw", {"a": range(0)})
    ingest(manifest, tmp_path / "out")
    with pytest.raises(IngestRefused, match="holds an ingest with another margin, size; choose another target"):
        ingest(manifest, tmp_path / "out", size=64, margin=0.1)
    with pytest.raises(IngestRefused, match="holds an ingest with another manifest"):
        ingest(au_manifest(tmp_path / "more", {"b": range(0)}), tmp_path / "out")


def test_shards_go_to_s3_too(tmp_path: Path, bucket: str) -> None:
    manifest = au_manifest(tmp_path / "raw", {"a": range(0), "b": range(5, 20)})
    summary = ingest(manifest, f"{bucket}/prepared")
    ingest(manifest, tmp_path / "local")
    assert summary.manifest == f"{bucket}/prepared/manifest.parquet"
    stored, local = read_manifest(f"{bucket}/prepared"), read_manifest(tmp_path / "local")
    assert stored.root == f"{bucket}/prepared"
    for ours, theirs in zip(stored, local, strict=True):
        frames = [open_frames(one, where.root).read(range(24)) for one, where in ((ours, stored), (theirs, local))]
        assert np.array_equal(*frames)


def test_settings_are_checked() -> None:
    with pytest.raises(ValidationError):
        CropSettings(decoder="ffmpeg")  # type: ignore[arg-type]
    with pytest.raises(ValidationError):
        IngestSettings(size=8)


def test_a_manifest_without_records_is_refused(tmp_path: Path) -> None:
    manifest = au_manifest(tmp_path / "raw", {"a": range(0)}).take([])
    with pytest.raises(IngestRefused, match="raw: no records to ingest"):
        ingest(manifest, tmp_path / "out")
