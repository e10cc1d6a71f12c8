"""The plan: exact ratios, permutations, purity, apportionment, and the frames that sampling picks."""

from __future__ import annotations

import math
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ssm.labels.vocabulary import Vocabulary
from ssm.training.shares import PADDING
from ssm_platform.data.plan import AU, FE, Clips, Plan, PlanConfig, apportion, endless_passes, evaluation_rows
from ssm_platform.data.sampling import segment_indices, window_indices, windows
from ssm_platform.data.turns import Turn, Turns
from ssm_platform.records.manifest import Manifest, Record, Task
from ssm_platform.train.loop import Schedule

FAST = settings(max_examples=60, deadline=None)
LABELS = {"au": Vocabulary(aus=(1, 4, 12)), "fe": Vocabulary(expressions=("happiness", "fear"))}


def clips_of(name: str, task: Task, count: int) -> Clips:
    return Clips(name, task, np.arange(count, dtype=np.int32), np.zeros(count, np.int32))


def manifest_of(name: str, task: Task, labels: list[np.ndarray | int]) -> Manifest:
    """AU: one label array per record. FE: one length per record."""
    records = [
        Record(f"{name}{i}", "x.avi", "video", 0, len(item), au_labels=item)
        if isinstance(item, np.ndarray)
        else Record(f"{name}{i}", "x.avi", "video", 0, item, expression="fear")
        for i, item in enumerate(labels)
    ]
    return Manifest.build("/data", name, task, LABELS[task], records)


SIZES = st.lists(st.integers(1, 40), min_size=1, max_size=3)


@st.composite
def plans(draw: st.DrawFn) -> Plan:
    fe, au = draw(st.integers(0, 12)), draw(st.integers(0, 12))
    if fe + au == 0:
        fe = 1
    corpora = [clips_of(f"fe{i}", "fe", n) for i, n in enumerate(draw(SIZES)) if fe]
    corpora += [clips_of(f"au{i}", "au", n) for i, n in enumerate(draw(SIZES)) if au]
    return Plan(corpora, PlanConfig(fe_batch=fe, au_batch=au, seed=draw(st.integers(0, 2**31 - 1))))


@FAST
@given(plans(), st.data())
def test_any_number_of_workers_shares_a_batch_evenly_up_to_one_clip_of_each_side(
    plan: Plan, data: st.DataObject
) -> None:
    config, tasks = plan.config, plan.rows(0, 1).task
    world = data.draw(st.integers(1, config.global_batch))
    shares = config.shares(world)
    dealt = shares.places[shares.places != PADDING]
    assert sorted(dealt) == list(range(config.global_batch)), "every clip has one worker"
    assert (shares.tasks[shares.places != PADDING] == tasks[dealt]).all()
    for task in np.unique(tasks):
        each = ((shares.tasks == task) & (shares.places != PADDING)).sum(axis=1)
        assert each.max() - each.min() <= 1
        assert ((shares.tasks == task).sum(axis=1) == each.max()).all(), "filled up to one shape"
        mine = shares.places[shares.tasks == task]
        assert (np.diff(mine[mine != PADDING]) > 0).all(), "consecutive parts of the side"
    if math.gcd(config.fe_batch, config.au_batch) % world == 0:
        assert shares.places.ravel().tolist() == list(range(config.global_batch)), "as it always was"


@given(st.integers(0, 40), st.integers(1, 40), st.integers(1, 9), st.integers(0, 4))
def test_turns_are_the_steps_in_order_with_a_validation_where_the_loop_has_one(
    first: int, left: int, every: int, rounds: int
) -> None:
    total = first + left
    schedule = Schedule(total, 1, 1, every, 1)
    expected: list[Turn] = []
    for step in range(first, total):
        expected.append(Turn(step, None))
        if schedule.validates(step + 1):
            expected += [Turn(None, number) for number in range(rounds)]
    turns = Turns(first, total, every, rounds)
    assert [turns.at(number) for number in range(len(turns))] == expected
    assert turns.at(len(turns)) is None


@FAST
@given(plans())
def test_each_pass_over_a_corpus_is_a_permutation(plan: Plan) -> None:
    rows = plan.rows(0, 3 * plan.steps_per_epoch)
    for place, clips in enumerate(plan.corpora):
        drawn = rows.record[rows.corpus == place]
        for begin in range(0, len(drawn), len(clips)):
            one_pass = drawn[begin : begin + len(clips)]
            assert len(set(one_pass.tolist())) == len(one_pass)
        assert set(drawn.tolist()) <= set(range(len(clips)))


@FAST
@given(plans(), st.data())
def test_any_range_of_steps_equals_that_part_of_the_whole(plan: Plan, data: st.DataObject) -> None:
    steps = 2 * plan.steps_per_epoch + 1
    first = data.draw(st.integers(0, steps))
    last = data.draw(st.integers(first, steps))
    size = plan.config.global_batch
    whole, part = plan.rows(0, steps), Plan(plan.corpora, plan.config).rows(first, last)
    for name, column in part.columns().items():
        np.testing.assert_array_equal(column, whole.columns()[name][first * size : last * size], err_msg=name)
    np.testing.assert_array_equal(part.row, np.arange(first * size, last * size))


def test_an_epoch_covers_the_longer_side_and_restarts_the_shorter_in_another_order() -> None:
    plan = Plan([clips_of("long", "fe", 120), clips_of("short", "au", 16)], PlanConfig(fe_batch=12, au_batch=8))
    assert plan.steps_per_epoch == 10
    rows = plan.epoch(0)
    assert Counter(rows.record[rows.task == FE].tolist()) == dict.fromkeys(range(120), 1)
    short = rows.record[rows.task == AU].reshape(5, 16)
    assert len({tuple(one_pass) for one_pass in short.tolist()}) == 5
    assert len(set(rows.seed.tolist())) == len(rows)
    assert rows.seed.min() >= 0


def test_weights_share_the_rows_of_a_task_exactly_and_evenly() -> None:
    corpora = [clips_of("a", "au", 10), clips_of("b", "fe", 90), clips_of("c", "fe", 300)]
    plan = Plan(corpora, PlanConfig(fe_batch=12, au_batch=4, weights={"a": 1, "b": 3, "c": 1}))
    assert plan.steps_per_epoch == 33
    rows = plan.epoch(1)
    owners = rows.corpus[rows.task == FE]
    assert Counter(owners.tolist()) == {1: 297, 2: 99}
    per_batch = (owners.reshape(33, 12) == 1).sum(axis=1)
    assert set(per_batch.tolist()) <= {8, 9, 10}


def test_a_further_corpus_does_not_reorder_the_others() -> None:
    one = Plan([clips_of("a", "fe", 50)], PlanConfig(fe_batch=5, au_batch=0)).rows(0, 10)
    two = Plan([clips_of("a", "fe", 50), clips_of("b", "fe", 50)], PlanConfig(fe_batch=5, au_batch=0)).rows(0, 20)
    np.testing.assert_array_equal(two.record[two.corpus == 0], one.record)


@FAST
@given(st.lists(st.floats(1e-3, 1e3), min_size=1, max_size=6), st.integers(0, 10_000))
def test_apportionment_is_exact_and_within_one_of_the_quota(weights: list[float], total: int) -> None:
    shares = apportion(weights, total)
    assert sum(shares) == total
    for share, weight in zip(shares, weights, strict=True):
        assert abs(share - weight * total / sum(weights)) <= 1 + 1e-6


@FAST
@given(st.integers(1, 30), st.integers(0, 2**50), st.integers(0, 200), st.integers(0, 100))
def test_endless_passes_are_random_access(count: int, key: int, first: int, length: int) -> None:
    whole = endless_passes(count, key, 0, first + length)
    np.testing.assert_array_equal(endless_passes(count, key, first, length), whole[first:])


def test_the_order_of_a_plan_never_changes() -> None:
    """A golden value: stored runs are resumed by it, whatever the versions of the libraries."""
    plan = Plan([clips_of("dfew", "fe", 7), clips_of("bp4d", "au", 5)], PlanConfig(fe_batch=3, au_batch=1, seed=1))
    rows = plan.rows(0, 2)
    assert rows.record.tolist() == [2, 6, 0, 2, 1, 3, 4, 3]
    assert rows.seed[0] == 3395948882924712079
    assert plan.fingerprint == Plan(plan.corpora, plan.config).fingerprint
    assert plan.fingerprint != Plan(plan.corpora, plan.config.model_copy(update={"seed": 2})).fingerprint


@pytest.mark.parametrize(
    ("corpora", "config", "message"),
    [
        ([clips_of("a", "fe", 3)], PlanConfig(), "au_batch is 8, but no corpus"),
        ([clips_of("a", "fe", 3)], PlanConfig(fe_batch=0), "whose batch size is 0"),
        ([clips_of("a", "fe", 3)] * 2, PlanConfig(au_batch=0), "'a' is in the plan twice"),
        ([clips_of("a", "fe", 0)], PlanConfig(au_batch=0), "'a' has no clip"),
        ([clips_of("a", "fe", 3)], PlanConfig(au_batch=0, weights={"b": 1.0}), "weights are for"),
        (
            [clips_of("a", "fe", 3), clips_of("b", "fe", 3)],
            PlanConfig(au_batch=0, weights={"a": 1.0, "b": 1e-9}),
            "'b' gives it none",
        ),
    ],
)
def test_an_impossible_plan_is_refused_by_name(corpora: list[Clips], config: PlanConfig, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Plan(corpora, config)


def test_more_workers_than_clips_are_refused() -> None:
    assert PlanConfig(fe_batch=12, au_batch=8).shares(20).slots == 2
    with pytest.raises(ValueError, match="21 workers cannot share a batch of 20 clips: 1 to 20 can"):
        PlanConfig(fe_batch=12, au_batch=8).shares(21)


def test_windows_without_any_known_label_are_left_out_of_training_and_counted() -> None:
    labels = np.full((40, 3), -1, np.int8)
    labels[17, 1] = 0
    labels[36, 2] = 1
    unscored = np.full((8, 3), -1, np.int8)
    manifest = manifest_of("bp4d", "au", [unscored, labels, unscored])
    for part, record in ((manifest, 1), (manifest.take([2, 1]), 1), (manifest.take([1]), 0)):
        clips = Clips.of(part, 16)
        assert clips.record.tolist() == [record, record]
        assert clips.start.tolist() == [16, 32]
        assert clips.unlabelled == len(part)
    rows = evaluation_rows([manifest], 16)
    assert list(zip(rows.record.tolist(), rows.start.tolist(), strict=True)) == [
        (0, 0),
        (1, 0),
        (1, 16),
        (1, 32),
        (2, 0),
    ]


def test_evaluation_has_every_clip_once_in_order_over_all_manifests() -> None:
    fe = manifest_of("dfew", "fe", [5, 70])
    au = manifest_of("disfa", "au", [np.zeros((20, 3), np.int8)])
    rows = evaluation_rows([fe, au], 16)
    assert rows.row.tolist() == [0, 1, 2, 3]
    assert rows.task.tolist() == [FE, FE, AU, AU]
    assert rows.corpus.tolist() == [0, 0, 1, 1]
    assert rows.start.tolist() == [0, 0, 0, 16]


def test_a_plan_from_stored_manifests_equals_the_plan_from_those_in_memory(tmp_path: Path) -> None:
    fe, au = manifest_of("dfew", "fe", [5] * 9), manifest_of("disfa", "au", [np.zeros((50, 3), np.int8)])
    fe.write(tmp_path / "fe.parquet")
    au.write(tmp_path / "au.parquet")
    config = PlanConfig(fe_batch=2, au_batch=2)
    stored = [Manifest.read(tmp_path / "fe.parquet"), Manifest.read(tmp_path / "au.parquet")]
    assert Plan.of(stored, config).fingerprint == Plan.of([fe, au], config).fingerprint


@FAST
@given(st.integers(1, 200), st.integers(1, 32), st.integers(0, 2**62))
def test_segments_give_one_frame_each_and_short_records_repeat_their_last(length: int, count: int, seed: int) -> None:
    for indices in (segment_indices(length, count), segment_indices(length, count, seed)):
        assert len(indices) == count
        if length < count:
            assert indices.tolist() == [min(i, length - 1) for i in range(count)]
        else:
            for segment, frame in enumerate(indices.tolist()):
                assert segment * length // count <= frame < (segment + 1) * length // count


def test_segment_centres_are_the_middle_and_random_frames_reach_every_place() -> None:
    assert segment_indices(64, 16).tolist() == list(range(2, 64, 4))
    assert segment_indices(16, 16).tolist() == list(range(16))
    seen = {int(segment_indices(40, 4, seed)[2]) for seed in range(200)}
    assert seen == set(range(20, 30))


@FAST
@given(st.lists(st.integers(1, 60), max_size=6), st.integers(1, 20))
def test_every_frame_is_in_exactly_one_window_and_never_across_records(lengths: list[int], count: int) -> None:
    cut = windows(np.array(lengths, np.int32), count)
    frames = Counter[tuple[int, int]]()
    for record, start in zip(cut.record.tolist(), cut.start.tolist(), strict=True):
        window = window_indices(start, lengths[record], count)
        frames.update((record, int(frame)) for frame in window.indices[window.inside])
        assert window.indices[~window.inside].tolist() == [lengths[record] - 1] * int((~window.inside).sum())
    assert frames == {(record, frame): 1 for record, length in enumerate(lengths) for frame in range(length)}


def test_a_window_outside_its_record_is_refused() -> None:
    with pytest.raises(ValueError, match=r"starts at frame 20: must be in 0\.\.19"):
        window_indices(20, 20, 16)
    with pytest.raises(ValueError, match="length is 0"):
        segment_indices(0, 16)
