"""Clips: the right frames and labels for every row of a plan, read plainly and through Ray Data.

Frames carry their clip and frame number in the pixels, so that what arrives can be compared with what was asked for.
"""

from __future__ import annotations

import os
import pickle
import time
import warnings
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest
import ray
from stamp import read_stamp, stamp

from ssm.interface.preprocessing import Preprocessing
from ssm.labels.vocabulary import Vocabulary
from ssm.training.augmentation import Augmentation
from ssm.training.shares import PADDING
from ssm_platform.base.hashing import UNREAD
from ssm_platform.base.storage import DamagedObject, StorageError
from ssm_platform.data import clips
from ssm_platform.data.clips import ClipConfig, ClipReader, Columns, Quarantine, TooManyUnreadable, to_batches
from ssm_platform.data.feed import START, ResumingDataConfig
from ssm_platform.data.order import OrderHash, verify
from ssm_platform.data.plan import AU, FE, Plan, PlanConfig, Rows, evaluation_rows
from ssm_platform.data.sampling import segment_indices, window_indices
from ssm_platform.data.streams import ClipStream, batches, decoders
from ssm_platform.data.turns import Course
from ssm_platform.records.manifest import Manifest, Record
from ssm_platform.train.endings import may_pass

T, SIDE = 4, 64
VOCABULARY = Vocabulary(aus=(1, 2, 4, 12), expressions=("happiness", "neutral", "fear"))
FE_LABELS = Vocabulary(expressions=("fear", "happiness"))
AU_LABELS = Vocabulary(aus=(12, 1))
PLAIN = (Augmentation(), Augmentation())
PLAN_CONFIG = PlanConfig(fe_batch=8, au_batch=4, frames=T)


def write_frames(folder: Path, clip: int, length: int) -> tuple[str, ...]:
    folder.mkdir(parents=True)
    names = tuple(f"{frame}.png" for frame in range(length))
    for frame, name in enumerate(names):
        cv2.imwrite(str(folder / name), stamp(np.full((SIDE, SIDE, 3), 90, np.uint8), clip, frame))
    return names


def au_labels_of(clip: int, length: int) -> np.ndarray:
    """Every value is there: 1, 0 and -1."""
    values = (np.arange(length)[:, None] + np.arange(len(AU_LABELS.aus)) + clip) % 3 - 1
    return values.astype(np.int8)


@pytest.fixture(scope="module")
def manifests(tmp_path_factory: pytest.TempPathFactory) -> list[Manifest]:
    """Eleven expression clips of 2 to 12 frames, four AU records of 6 to 15: stamps 0..10 and 100..103."""
    root = tmp_path_factory.mktemp("stamped")
    fe = [
        Record(
            f"{i:05}",
            f"fe/{i}",
            "frames",
            0,
            length=2 + i,
            files=write_frames(root / f"fe/{i}", i, 2 + i),
            expression=FE_LABELS.expressions[i % 2],
        )
        for i in range(11)
    ]
    au = [
        Record(
            f"F00{i}",
            f"au/{i}",
            "frames",
            0,
            length=6 + 3 * i,
            files=write_frames(root / f"au/{i}", 100 + i, 6 + 3 * i),
            au_labels=au_labels_of(i, 6 + 3 * i),
        )
        for i in range(4)
    ]
    return [Manifest.build(root, "dfew", "fe", FE_LABELS, fe), Manifest.build(root, "bp4d", "au", AU_LABELS, au)]


def reader_of(manifests: list[Manifest], augmentation: tuple[Augmentation | None, ...] | None = PLAIN) -> ClipReader:
    preprocessing = Preprocessing(image_size=SIDE)
    config = ClipConfig(frames=T, preprocessing=preprocessing, augmentation=augmentation)
    return ClipReader(manifests, VOCABULARY, config)


def frames_asked_for(manifests: list[Manifest], rows: Rows, place: int, training: bool) -> list[int]:
    length = int(manifests[rows.corpus[place]].lengths[rows.record[place]])
    if rows.task[place] == AU:
        return window_indices(int(rows.start[place]), length, T).indices.tolist()
    return segment_indices(length, T, int(rows.seed[place]) if training else None).tolist()


def assert_right_clips(manifests: list[Manifest], rows: Rows, columns: Columns, training: bool = True) -> None:
    np.testing.assert_array_equal(columns["row"], rows.row)
    for place in range(len(rows)):
        stamps = [read_stamp(frame) for frame in columns["clip"][place]]
        clip = int(rows.record[place]) + (100 if rows.task[place] == AU else 0)
        assert [s.clip for s in stamps] == [clip] * T
        assert [s.frame for s in stamps] == frames_asked_for(manifests, rows, place, training)


def test_a_training_clip_holds_the_frames_and_labels_of_its_row(manifests: list[Manifest]) -> None:
    rows = Plan.of(manifests, PLAN_CONFIG).rows(0, 4)
    columns = reader_of(manifests).read(rows.columns())
    assert_right_clips(manifests, rows, columns)
    for place in range(len(rows)):
        record = manifests[rows.corpus[place]][int(rows.record[place])]
        if rows.task[place] == FE:
            assert VOCABULARY.expressions[columns["fe_label"][place]] == record.expression
            assert columns["fe_classes"][place].tolist() == [1, 0, 1]
            assert not columns["au_mask"][place].any()
            continue
        assert not columns["fe_classes"][place].any()
        start = int(rows.start[place])
        for frame in range(T):
            known = record.au_labels[start + frame] if start + frame < record.length else [-1, -1]
            assert columns["au_mask"][place, frame].tolist() == [int(known[1] >= 0), 0, 0, int(known[0] >= 0)]
            assert columns["au_target"][place, frame].tolist() == [int(known[1] == 1), 0, 0, int(known[0] == 1)]


def test_evaluation_takes_segment_centres_and_scores_every_labelled_frame_once(manifests: list[Manifest]) -> None:
    rows = evaluation_rows(manifests, T)
    columns = reader_of(manifests, augmentation=None).read(rows.columns())
    assert_right_clips(manifests, rows, columns, training=False)
    labelled = sum(int((record.au_labels >= 0).sum()) for record in manifests[1])
    assert int(columns["au_mask"].sum()) == labelled


def test_a_clip_depends_on_its_row_alone(manifests: list[Manifest]) -> None:
    warp = Augmentation(scale=(0.3, 1.0), flip=0.5, brightness=0.3, rotation=10)
    reader = reader_of(manifests, (warp, warp))
    rows = Plan.of(manifests, PLAN_CONFIG).rows(0, 2)
    together, twins = reader.read(rows.columns()), reader.read(rows.columns())
    np.testing.assert_array_equal(together["clip"], twins["clip"])
    alone = reader_of(manifests, (warp, warp)).read(rows[slice(17, 18)].columns())
    np.testing.assert_array_equal(alone["clip"][0], together["clip"][17])
    assert alone["sample"][0] == together["sample"][17]


def test_typed_batches_hold_their_task_only_and_own_their_memory(manifests: list[Manifest]) -> None:
    rows = Plan.of(manifests, PLAN_CONFIG).rows(0, 1)
    columns = reader_of(manifests).read(rows.columns())
    for column in columns.values():
        column.flags.writeable = False
    fe, au, _ = to_batches(columns)
    assert fe is not None
    assert au is not None
    assert fe.clips.shape == (8, T, SIDE, SIDE, 3)
    assert au.targets.shape == au.mask.shape == (4, T, 4)
    assert fe.row_ids.tolist() == rows.row[rows.task == FE].tolist()
    assert au.row_ids.tolist() == rows.row[rows.task == AU].tolist()
    fe.clips[0] = 7  # a read-only view would warn here, or write into Ray's object store
    assert columns["clip"][0, 0, 0, 0, 0] != 7


def test_one_task_alone_gives_one_batch_and_no_columns_of_the_other(manifests: list[Manifest]) -> None:
    plan = Plan.of(manifests[:1], PlanConfig(fe_batch=4, au_batch=0, frames=T))
    config = ClipConfig(frames=T, preprocessing=Preprocessing(image_size=SIDE), augmentation=PLAIN[:1])
    reader = ClipReader(manifests[:1], Vocabulary(expressions=VOCABULARY.expressions), config)
    columns = reader.read(plan.rows(0, 1).columns())
    assert "au_target" not in columns
    fe, au, _ = to_batches(columns)
    assert au is None
    assert fe is not None
    assert fe.labels.tolist() == columns["fe_label"].tolist()


def test_an_unreadable_clip_keeps_its_place_without_labels_and_is_counted(
    manifests: list[Manifest], tmp_path: Path
) -> None:
    broken = [Manifest(str(tmp_path), m.corpus, m.task, m.labels, m.table) for m in manifests]
    rows = Plan.of(manifests, PLAN_CONFIG).rows(0, 2)
    good = reader_of(manifests).read(rows.columns())
    columns = reader_of([manifests[0], broken[1]]).read(rows.columns())
    lost = rows.task == AU
    assert [bool(problem) for problem in columns["problem"]] == lost.tolist()
    assert "bp4d: clip 'F00" in columns["problem"][lost][0]
    assert str(tmp_path) in columns["problem"][lost][0]
    assert not columns["au_mask"].any()
    assert not columns["clip"][lost].any()
    np.testing.assert_array_equal(columns["sample"], np.where(lost, UNREAD, good["sample"]))
    np.testing.assert_array_equal(columns["clip"][~lost], good["clip"][~lost])

    quarantine = Quarantine(ceiling=0.4, allowance=0)
    assert len(quarantine.check(columns)) == len(set(columns["problem"][lost]))
    assert quarantine.check(columns) == []
    assert (quarantine.seen, quarantine.unreadable) == (48, 16)
    with pytest.raises(TooManyUnreadable, match=r"8 of 24 clips .* ceiling of 30\.00% .*bp4d: clip"):
        Quarantine(ceiling=0.3, allowance=0).check(columns)
    Quarantine(ceiling=0.0, allowance=8).check(columns)


def test_a_reader_that_cannot_fit_its_manifests_is_refused(manifests: list[Manifest]) -> None:
    with pytest.raises(ValueError, match="1 augmentations for 2 manifests"):
        ClipReader(manifests, VOCABULARY, ClipConfig(frames=T, augmentation=PLAIN[:1]))
    with pytest.raises(ValueError, match="AU 12 is not in this vocabulary"):
        ClipReader(manifests, Vocabulary(aus=(1,), expressions=FE_LABELS.expressions), ClipConfig(frames=T))


# Through Ray Data ---------------------------------------------------------------------------------------------------


@ray.remote(num_cpus=0)
def consume(shard: Any, share: int, steps: int) -> list[Columns]:
    """What one worker gets: copies of its columns, `steps` batches or fewer."""
    taken: list[Columns] = []
    for columns in batches(shard, share):
        taken.append({name: np.array(column) for name, column in columns.items()})
        if len(taken) == steps:
            break
    return taken


def uneven(reader: ClipReader) -> ClipReader:
    """The same reader with decode times that have nothing to do with the order."""

    class Uneven(ClipReader):
        def __reduce__(self) -> tuple[type[ClipReader], tuple[Any, ...]]:
            return Uneven, super().__reduce__()[1]

        def read(self, rows: Any) -> Columns:
            time.sleep(0.15 * (int(rows["seed"][0]) % 3))
            return super().read(rows)

    return Uneven(*reader.__reduce__()[1])


def global_batches(shards: list[Any], plan: Plan, steps: int) -> list[Columns]:
    """Steps of what all workers got, put together in the order of the plan."""
    share = plan.config.shares(len(shards)).slots
    parts = ray.get([consume.remote(shard, share, steps) for shard in shards])
    assert {len(part) for part in parts} == {steps}
    return [put_together([part[step] for part in parts]) for step in range(steps)]


def put_together(parts: list[Columns]) -> Columns:
    """What the workers have of one turn, without what fills up, which is black and has no label."""
    whole = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    empty = whole["row"] == PADDING
    assert not any(whole[name][empty].any() for name in ("clip", "fe_classes", "au_mask"))
    order = np.argsort(np.where(empty, np.iinfo(np.int64).max, whole["row"]), kind="stable")[: (~empty).sum()]
    return {name: column[order] for name, column in whole.items()}


class Weather:
    """Frames whose storage is away while it storms."""

    storm = False

    def __init__(self, source: Any) -> None:
        self._source, self.length, self.close = source, source.length, source.close

    def read(self, indices: Any) -> Any:
        if Weather.storm:
            raise StorageError("s3://b/k", "gave up after 9 tries in 300 s")
        return self._source.read(indices)


def test_an_outage_raises_and_later_gives_the_same_bits_while_damage_is_masked(
    manifests: list[Manifest], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A short fault became a black clip and changed training in silence, or twenty of them ended the run for good."""
    rows = Plan.of(manifests, PLAN_CONFIG).rows(0, 2).columns()
    opened = clips.open_frames
    monkeypatch.setattr(clips, "open_frames", lambda *args: Weather(opened(*args)))
    before, reader = reader_of(manifests).read(rows), reader_of(manifests)
    monkeypatch.setattr(Weather, "storm", True)
    with pytest.raises(StorageError, match="gave up") as caught:
        reader.read(rows)
    assert may_pass(caught.value), "the worker ends as one that may be started again"
    monkeypatch.setattr(Weather, "storm", False)
    after = reader.read(rows)
    for name, column in before.items():
        np.testing.assert_array_equal(after[name], column, err_msg=name)
    assert UNREAD not in before["sample"]

    def damaged(*_: Any) -> Any:
        raise DamagedObject("s3://b/k", "checksum does not fit")

    monkeypatch.setattr(clips, "open_frames", damaged)
    black = reader_of(manifests).read(rows)
    assert (black["sample"] == UNREAD).all()
    assert all("checksum" in problem for problem in black["problem"])
    assert not black["au_mask"].any()


@pytest.mark.ray
@pytest.mark.usefixtures("ray_cluster")
def test_global_batches_are_the_plan_row_for_row_at_any_worker_count_and_across_a_change(
    manifests: list[Manifest], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "ssm_platform.data.streams._BLOCK_CLIPS", 24
    )  # several blocks of several steps, each cut otherwise
    plan, steps, stop = Plan.of(manifests, PLAN_CONFIG), 12, 4
    stream = ClipStream(uneven(reader_of(manifests)), decode_workers=2, decode_cpus=0.5)
    expected = reader_of(manifests).read(plan.rows(0, steps).columns())
    rows = plan.rows(0, steps)

    def run(first: int, last: int, world: int) -> list[Columns]:
        shards = stream.split(plan, first, steps, world)
        return global_batches(shards, plan, last - first)

    straight = run(0, steps, 1)
    elastic = run(0, stop, 2) + run(stop, 6, 5) + run(6, steps, 4)  # five share neither side evenly
    for got in (straight, elastic):
        for name, column in expected.items():
            np.testing.assert_array_equal(np.concatenate([step[name] for step in got]), column, err_msg=name)
    assert_right_clips(manifests, rows, {name: np.concatenate([s[name] for s in elastic]) for name in expected})

    order = OrderHash()
    for step, columns in enumerate(elastic):
        state = order.update(step, columns["row"], columns["sample"])
    assert verify(plan, manifests, state).rows == len(rows)


@pytest.mark.ray
@pytest.mark.usefixtures("ray_cluster")
def test_a_decoder_killed_in_the_middle_loses_nothing(
    manifests: list[Manifest], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ssm_platform.data.streams._BLOCK_CLIPS", PLAN_CONFIG.global_batch)  # two steps for each worker
    plan, steps = Plan.of(manifests, PLAN_CONFIG), 6
    marker = tmp_path / "killed"

    class Mortal(ClipReader):
        def __reduce__(self) -> tuple[type[ClipReader], tuple[Any, ...]]:
            return Mortal, super().__reduce__()[1]

        def read(self, rows: Any) -> Columns:
            if int(rows["row"][0]) >= 2 * PLAN_CONFIG.global_batch and not marker.exists():
                marker.touch()
                os._exit(1)
            return super().read(rows)

    stream = ClipStream(Mortal(*reader_of(manifests).__reduce__()[1]), decode_workers=1, decode_cpus=0.5)
    shards = stream.split(plan, 0, steps, 2)
    got = global_batches(shards, plan, steps)
    assert marker.exists()
    everything = {name: np.concatenate([step[name] for step in got]) for name in got[0]}
    assert_right_clips(manifests, plan.rows(0, steps), everything)


@pytest.mark.ray
@pytest.mark.usefixtures("ray_cluster")
def test_ray_train_hands_out_the_plan_in_order_from_the_step_it_resumes_at(
    manifests: list[Manifest], monkeypatch: pytest.MonkeyPatch
) -> None:
    plan, first, total = Plan.of(manifests, PLAN_CONFIG), 2, 7
    reader = reader_of([*manifests, *manifests], (*PLAIN, None, None))
    stream = ClipStream(reader, decode_workers=4, decode_cpus=0.1, group=8)
    looks = iter([first, total])  # a late checkpoint of a dying worker would answer the second look otherwise
    seen = evaluation_rows(manifests, T)
    course = Course(plan, total, replace(seen, corpus=seen.corpus + np.int16(2)), every=4)
    config = ResumingDataConfig(stream, course, lambda: SimpleNamespace(first=next(looks)))
    nodes = [node["NodeID"] for node in ray.nodes()] * 3
    monkeypatch.setattr("ssm_platform.data.feed._BLOCKS", 1)  # segments of one block for each worker
    monkeypatch.setattr("ssm_platform.data.streams._BLOCK_CLIPS", 12)  # of two turns
    starts = [told[START] for told in config.configure({START: None}, 3, None, nodes)]
    assert [start.begun.first for start in starts] == [first] * 3, "decided once, told to every worker"
    rounds = starts[0].shares.rounds(len(seen))
    segments = [name for name in config.names if name != START]
    assert len(segments) >= (total - first + 2 * rounds) / 2, "as many as there may be"
    with warnings.catch_warnings():
        warnings.simplefilter("error", DeprecationWarning)  # of what Ray 2.64 takes away
        made = {name: config.configure({name: None}, 3, None, nodes) for name in segments[:6]}
    streams = [start.batches(lambda name, rank=rank: made[name][rank][name], 1) for rank, start in enumerate(starts)]
    got = [put_together(list(parts)) for parts in zip(*together([partial(list, one) for one in streams]), strict=True)]
    turns = [starts[0].turns.at(number) for number in range(len(got))]
    assert [turn.step for turn in turns] == [2, 3, *[None] * rounds, 4, 5, 6, *[None] * rounds]
    trained = [columns["row"] for columns, turn in zip(got, turns, strict=True) if turn.round is None]
    np.testing.assert_array_equal(np.concatenate(trained), plan.rows(first, total).row)
    validated = [columns for columns, turn in zip(got, turns, strict=True) if turn.round is not None]
    alone = reader_of(manifests, None).read(seen.columns())
    for half in (validated[:rounds], validated[rounds:]):
        for name in ("row", "clip", "fe_label", "au_target", "sample"):
            np.testing.assert_array_equal(np.concatenate([columns[name] for columns in half]), alone[name], name)
    with pytest.raises(ValueError, match="13 workers cannot share a batch of 12 clips"):
        config.configure({segments[0]: None}, 13, None, None)


def test_fewer_decode_for_a_smaller_group() -> None:
    assert [decoders(6, world, group=4) for world in (1, 2, 3, 4)] == [2, 3, 5, 6]
    assert decoders(1, 1, group=64) == 1


def together(calls: list[Any]) -> list[Any]:
    with ThreadPoolExecutor(len(calls)) as pool:
        return list(pool.map(lambda call: call(), calls))


def test_a_start_costs_the_same_however_long_the_run_is(manifests: list[Manifest]) -> None:
    """The rest of the run was laid out as rows at every start: 12 s for 3 epochs of a million clips."""
    plan, stream = Plan.of(manifests, PLAN_CONFIG), ClipStream(reader_of(manifests))
    short, long = (stream.layout(Course(plan, last), 3, 2) for last in (1_000, 1_000_000))
    assert len(pickle.dumps(short)) == pytest.approx(len(pickle.dumps(long)), abs=16)
    every = plan.rows(3, 3 + 4 * short.together)
    shares = np.arange(len(every)).reshape(4 * short.together, 2, -1)
    for number in (0, 1, 6, 7):
        group, rank = divmod(number, 2)
        mine = shares[group * short.together : (group + 1) * short.together, rank].ravel()
        for name, column in every.columns().items():
            np.testing.assert_array_equal(long.rows(number).columns()[name], column[mine], err_msg=name)
    for total in (1_000, 1_000_000):
        segments = ResumingDataConfig(stream, Course(plan, total), lambda: SimpleNamespace(first=0)).names
        assert len(segments) <= 2 + total / 10_000
