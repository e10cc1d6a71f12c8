"""A third task in a run: three sides in the exact ratio, corpora of several tasks, what is refused before it starts."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from ssm.interface import Preprocessing
from ssm.labels import AFFECT, Vocabulary
from ssm_platform.base.overrides import override
from ssm_platform.corpora import read_corpus
from ssm_platform.data.clips import ClipConfig, ClipReader, to_batches
from ssm_platform.data.plan import AU, FE, VA, Plan, PlanConfig
from ssm_platform.data.shares import PADDING, Shares
from ssm_platform.records import Manifest, Record, groups_of
from ssm_platform.runs.config import CorpusConfig, RunConfig
from ssm_platform.runs.preflight.data import check_data, label_problem
from ssm_platform.runs.preparation import prepare_corpora
from ssm_platform.runs.recipes import recipe
from ssm_platform.synthetic import LabSpec, SyntheticSpec, write_corpus

SPEC = SyntheticSpec(size=64, lab=LabSpec(subjects=6, sequences=1, frames=40))


@pytest.fixture(scope="module")
def mtl(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_corpus("affwild2_mtl", tmp_path_factory.mktemp("mtl") / "c", SPEC, 3)


def corpus(root: Path, **changes: object) -> CorpusConfig:
    return CorpusConfig(name="affwild2_mtl", root=str(root), test_parts=("validation",), **changes)


def affect_manifest(values: list[list[float]]) -> Manifest:
    files = tuple(f"{number}.jpg" for number in range(len(values)))
    record = Record("v", "v", "frames", 0, len(values), files=files, va_labels=np.array(values, np.float32))
    return Manifest.build("/nowhere", "affwild2_va", "va", Vocabulary(affect=AFFECT), [record])


def test_a_corpus_of_three_tasks_stands_on_one_split_and_feeds_three_sides_in_the_exact_ratio(mtl: Path) -> None:
    prepared = prepare_corpora([corpus(mtl)], "clean", 1, ("fe", "au", "va"))
    assert list(prepared.splits) == [f"affwild2_mtl@{task}" for task in ("au", "fe", "va")]
    sides = [{name: set(groups_of(getattr(one, name))[1]) for name in ("train", "validation", "test")}
             for one in prepared.splits.values()]  # fmt: skip
    assert sides[0]["train"] == sides[2]["train"]
    assert sides[1]["train"] <= sides[0]["train"]
    assert not sides[0]["train"] & (sides[0]["validation"] | sides[0]["test"])
    config = PlanConfig(fe_batch=4, au_batch=2, va_batch=6, frames=4)
    plan = Plan.of(prepared.train, config)
    rows = plan.rows(0, 3)
    for first in range(0, len(rows), config.global_batch):
        step = rows.task[first : first + config.global_batch]
        assert Counter(step.tolist()) == {FE: 4, AU: 2, VA: 6}
        shares = Shares.of(step, 2)
        for places, tasks in zip(shares.places, shares.tasks, strict=True):
            assert Counter(tasks[places != PADDING].tolist()) == {FE: 2, AU: 1, VA: 3}
    vocabulary = Vocabulary.union(one.test.labels for one in prepared.splits.values())
    clips = ClipConfig(frames=4, preprocessing=Preprocessing(image_size=32), augmentation=None)
    columns = ClipReader(prepared.train, vocabulary, clips).read(plan.rows(0, 1).columns())
    fe, au, va = to_batches(columns)
    assert fe is not None
    assert au is not None
    assert va is not None
    assert (len(fe.clips), len(au.clips), len(va.clips)) == (4, 2, 6)
    row = int(np.flatnonzero(columns["task"] == VA)[0])
    part = prepared.train[int(columns["corpus"][row])]
    labels = part.va_labels(int(columns["record"][row]), int(columns["start"][row]))[:4]
    known = ~np.isnan(labels)
    assert va.targets[0][: len(labels)].numpy()[known] == pytest.approx(labels[known])
    assert va.mask[0][: len(labels)].numpy().tolist() == known.tolist()


def test_a_plan_without_affect_is_hashed_as_before_there_was_any(tiny_corpora: Path) -> None:
    manifests = [read_corpus(name, tiny_corpora / name).manifest for name in ("bp4d", "dfew")]
    plan = Plan.of(manifests, PlanConfig(fe_batch=6, au_batch=4, frames=4))
    settings = '{"au_batch": 4, "fe_batch": 6, "frames": 4, "seed": 1, "weights": null}'
    digest = hashlib.sha256(settings.encode())
    for clips in plan.corpora:
        digest.update(json.dumps([clips.corpus, clips.task, len(clips)]).encode())
        digest.update(clips.record.tobytes())
        digest.update(clips.start.tobytes())
    assert plan.fingerprint == digest.hexdigest()
    config = recipe("tiny")
    assert not [path for path in config.mathematics() if "affect" in path or "va_batch" in path]
    assert "model.vocabulary.affect.0" in recipe("tiny+with_affect").mathematics()


def test_windows_without_a_label_of_affect_are_left_out() -> None:
    manifest = affect_manifest([[np.nan, np.nan]] * 4 + [[0.1, np.nan]] + [[np.nan, np.nan]] * 5)
    plan = Plan.of([manifest], PlanConfig(fe_batch=0, au_batch=0, va_batch=2, frames=4))
    assert plan.corpora[0].start.tolist() == [4]
    assert plan.corpora[0].unlabelled == 2


@pytest.mark.parametrize(
    ("values", "problem"),
    [
        ([[0.1, 0.2], [0.1, 0.2]], "has constant valence and arousal: there is nothing to learn"),
        ([[np.nan, np.nan]] * 3, "has no labels of valence and arousal: every frame is unknown"),
        ([[np.nan, np.nan], [0.3, 0.1]], "has constant valence and arousal: there is nothing to learn"),
        ([[0.2, 0.1], [0.3, 0.1]], None),
    ],
)
def test_a_side_that_teaches_no_affect_is_told(values: list[list[float]], problem: str | None) -> None:
    assert label_problem(affect_manifest(values)) == problem


def test_labels_that_the_vocabulary_lacks_and_sides_without_a_batch_are_refused(mtl: Path) -> None:
    base = recipe("tiny")
    config: RunConfig = override(base, {"data.va_batch": 0}).model_copy(
        update={"data": base.data.model_copy(update={"corpora": (corpus(mtl, options={"other": True}),)})}
    )
    prepared = prepare_corpora(config.data.corpora, "clean", 1, ("fe", "au", "va"))
    told = "\n".join(map(str, check_data(config, prepared.splits)))
    assert "labels other, which model.vocabulary has not" in told
    assert "labels valence, arousal, which model.vocabulary has not" in told
    assert "data.va_batch: is 0, but affwild2_mtl@va would train on it" in told
