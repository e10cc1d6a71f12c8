"""Clips: the right frames and labels for every row of a plan."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from stamped_clips import (
    FE_LABELS,
    PLAIN,
    PLAN_CONFIG,
    SIDE,
    VOCABULARY,
    T,
    assert_right_clips,
    reader_of,
    stamped_manifests,
)

from ssm.interface.preprocessing import Preprocessing
from ssm.labels.vocabulary import Vocabulary
from ssm.training.augmentation import Augmentation
from ssm_platform.base.hashing import UNREAD
from ssm_platform.data.clips import ClipConfig, ClipReader, Quarantine, TooManyUnreadable, to_batches
from ssm_platform.data.plan import AU, FE, Plan, PlanConfig, evaluation_rows
from ssm_platform.records.manifest import Manifest


@pytest.fixture(scope="module")
def manifests(tmp_path_factory: pytest.TempPathFactory) -> list[Manifest]:
    return stamped_manifests(tmp_path_factory.mktemp("stamped"))


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
