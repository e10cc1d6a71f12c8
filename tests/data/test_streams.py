"""Clips through Ray Data: the plan's batches at any number of workers, after deaths, outages and resumes."""

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

import numpy as np
import pytest
import ray
from stamped_clips import (
    PLAIN,
    PLAN_CONFIG,
    T,
    assert_right_clips,
    reader_of,
    stamped_manifests,
)

from ssm.training.shares import PADDING
from ssm_platform.base.hashing import UNREAD
from ssm_platform.base.storage import DamagedObject, StorageError
from ssm_platform.data import clips
from ssm_platform.data.clips import ClipReader, Columns
from ssm_platform.data.feed import START, ResumingDataConfig
from ssm_platform.data.order import OrderHash, verify
from ssm_platform.data.plan import Plan, evaluation_rows
from ssm_platform.data.shared import Shared
from ssm_platform.data.streams import ClipStream, batches, decoders
from ssm_platform.data.turns import Course
from ssm_platform.records.manifest import Manifest
from ssm_platform.train.endings import may_pass


@pytest.fixture(scope="module")
def manifests(tmp_path_factory: pytest.TempPathFactory) -> list[Manifest]:
    return stamped_manifests(tmp_path_factory.mktemp("stamped"))


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
    stream = ClipStream(Shared(uneven(reader_of(manifests))), decode_workers=2, decode_cpus=0.5)
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

    stream = ClipStream(Shared(Mortal(*reader_of(manifests).__reduce__()[1])), decode_workers=1, decode_cpus=0.5)
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
    stream = ClipStream(Shared(reader), decode_workers=4, decode_cpus=0.1, group=8)
    looks = iter([first, total])  # a late checkpoint of a dying worker would answer the second look otherwise
    seen = evaluation_rows(manifests, T)
    course = Course(plan, total, replace(seen, corpus=seen.corpus + np.int16(2)), every=4)
    config = ResumingDataConfig(stream, course, lambda: SimpleNamespace(first=next(looks)))
    nodes = [node["NodeID"] for node in ray.nodes()] * 3
    monkeypatch.setattr("ssm_platform.data.feed._BLOCKS", 2)  # segments of two blocks for each worker, of a turn each
    starts = [told[START] for told in config.configure({START: None}, 3, None, nodes)]
    assert [start.begun.first for start in starts] == [first] * 3, "decided once, told to every worker"
    rounds = starts[0].shares.rounds(len(seen))
    segments = [name for name in config.names if name != START]
    assert len(segments) >= (total - first + 2 * rounds) / 2, "as many as there may be"
    ray.data.DataContext.get_current()  # the first one of a process warns of itself
    with warnings.catch_warnings():
        warnings.simplefilter("error", DeprecationWarning)  # of what Ray 2.64 takes away
        made = {name: config.configure({name: None}, 3, None, nodes) for name in segments[:6]}
    streams = [start.batches(lambda name, rank=rank: made[name][rank][name], 1) for rank, start in enumerate(starts)]
    got = [put_together(list(parts)) for parts in zip(*together([partial(list, one) for one in streams]), strict=True)]
    for name in segments[: -(-len(got) // starts[0].segment) - 1]:
        with pytest.raises(ray.exceptions.RayActorError):  # read by all, and ended with the memory it held
            ray.get(made[name][0][name]._coord_actor.__ray_ready__.remote(), timeout=20)
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
    plan, stream = Plan.of(manifests, PLAN_CONFIG), ClipStream(Shared(reader_of(manifests)))
    short, long = (stream.layout(Shared(Course(plan, last)), 3, 2) for last in (1_000, 1_000_000))
    sent = [len(pickle.dumps(replace(one, course=None))) for one in (short, long)]  # a course lies in the store, once
    assert sent[0] == pytest.approx(sent[1], abs=16)
    held = [1] * 8 + [short.together] * 3  # turns
    ends = np.cumsum(held)
    every = plan.rows(3, 3 + int(ends[-1]))
    shares = np.arange(len(every)).reshape(int(ends[-1]), 2, -1)
    for number in range(2 * len(held)):
        group, rank = divmod(number, 2)
        mine = shares[ends[group] - held[group] : ends[group], rank].ravel()
        for name, column in every.columns().items():
            np.testing.assert_array_equal(long.rows(number).columns()[name], column[mine], err_msg=name)
    for turns in range(500):
        groups = long.needed(turns)
        assert long.reach(groups) >= turns > (long.reach(groups - 1) if groups else -1)
    for total in (1_000, 1_000_000):
        segments = ResumingDataConfig(stream, Course(plan, total), lambda: SimpleNamespace(first=0)).names
        assert len(segments) <= 2 + total / 10_000
