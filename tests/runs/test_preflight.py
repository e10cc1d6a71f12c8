"""What would hang or fail later is refused before it starts, and the refusal names the setting to change."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ssm.labels.vocabulary import Vocabulary
from ssm_platform.base.overrides import override
from ssm_platform.cluster.joining import ClusterSize, Node
from ssm_platform.records.manifest import Manifest, Record
from ssm_platform.runs import preflight
from ssm_platform.runs.config import RunConfig
from ssm_platform.runs.preflight import budget
from ssm_platform.runs.recipes import recipe, tiny
from ssm_platform.runs.splits import Split


def config(**changes: Any) -> RunConfig:
    return override(tiny(), {name.replace("__", "."): value for name, value in changes.items()})


def cluster(*cpus: float, gpus: float = 0) -> ClusterSize:
    return ClusterSize(tuple(Node(count, gpus) for count in cpus))


def settings(refusals: list[preflight.Refusal]) -> str:
    return "; ".join(map(str, refusals))


def au(*labels: int, count: int = 2) -> Manifest:
    table = np.array(labels, np.int8).reshape(-1, 1)
    records = [Record(f"c{i}", "x", "video", 0, len(table), subject=f"S{i}", au_labels=table) for i in range(count)]
    return Manifest.build("/x", "bp4d", "au", Vocabulary(aus=(1,)), records)


def fe(*classes: str) -> Manifest:
    records = [Record(f"c{i}", "x", "video", 0, 9, expression=name) for i, name in enumerate(classes)]
    return Manifest.build("/x", "dfew", "fe", Vocabulary(expressions=("anger", "fear")), records)


def sides(manifest: Manifest) -> Split:
    return Split(manifest, manifest, manifest)


GOOD = {"bp4d": sides(au(0, 1)), "dfew": sides(fe("anger", "fear"))}


def test_a_sound_run_is_not_refused(tmp_path: Path) -> None:
    sound = config(storage=str(tmp_path))
    assert preflight.check_config(sound) == []
    assert preflight.check_cluster(sound, cluster(4)) == []
    assert preflight.check_data(sound, GOOD) == []
    assert preflight.check_storage(sound, 1000) == []
    assert preflight.check_sources(sound) == []


@pytest.mark.parametrize("workers", [11, [1, 11]])
def test_more_workers_than_clips_cannot_share_a_batch(workers: Any) -> None:
    found = settings(preflight.check_config(config(scale__workers=workers)))
    assert "scale.workers: 11 workers cannot share data.fe_batch + data.au_batch = 10 clips" in found
    assert preflight.check_config(config(scale__workers=[1, 10])) == [], "any number up to the batch can"


def test_an_impossible_cpu_budget_would_hang() -> None:
    found = settings(preflight.check_cluster(config(scale__workers=2, scale__cpus_per_worker=1), cluster(2)))
    assert "2 x 1 CPUs for workers + 1 x 0.5 for decoding + 1 for reading = 3.5" in found
    assert "declares 2" in found


def test_a_group_that_would_grow_until_ray_data_has_no_cpu_is_refused_before() -> None:
    elastic = config(scale__workers=[1, 2], scale__cpus_per_worker=1)
    assert preflight.cpus_needed(elastic) == 3.5, "a cluster of its own holds the whole group"
    assert preflight.check_cluster(elastic, cluster(4)) == []
    found = settings(preflight.check_cluster(elastic, cluster(3)))
    assert "2 x 1 CPUs for workers" in found
    assert "at most 1 workers leave it enough" in found
    follows = override(elastic, {"data.decode_workers": 4, "scale.cpus_per_worker": 1.5})
    assert preflight.cpus_needed(follows) == 6, "four decode for two workers"
    assert preflight.check_cluster(follows, cluster(3.5)) != []
    assert "at most 1 workers" in settings(preflight.check_cluster(follows, cluster(3.5))), "two decode for one"
    of_one_per_node = config(scale__workers=[1, 2], scale__cpus_per_worker=1.55, data__decode_cpus=0.4)
    assert preflight.check_cluster(of_one_per_node, cluster(3)) == [], "the second one does not fit"


@pytest.mark.parametrize(
    ("changes", "nodes", "message"),
    [
        ({"scale__cpus_per_worker": 2}, (1, 1, 1, 1), "scale.cpus_per_worker: is 2, but no node declares more than 1"),
        ({"data__decode_cpus": 2}, (1, 1, 1, 1), "data.decode_cpus: is 2, but no node declares more than 1"),
        ({"scale__workers": 2, "scale__cpus_per_worker": 2}, (3, 1, 1, 1), "only 1 fit, each on one node"),
    ],
)
def test_what_fits_into_the_cluster_but_on_no_node(
    changes: dict[str, Any], nodes: tuple[float, ...], message: str
) -> None:
    assert message in settings(preflight.check_cluster(config(**changes), cluster(*nodes)))


def test_a_worker_wants_its_gpu_and_its_cpus_on_one_node() -> None:
    apart = ClusterSize((Node(8, 0), Node(0, 1)))
    greedy = config(scale__gpu=True)
    assert "0 fit, each on one node" in settings(preflight.check_cluster(greedy, apart))
    assert preflight.check_cluster(greedy, cluster(8, gpus=1)) == []


def test_a_gpu_that_is_not_there() -> None:
    assert "scale.gpu" in settings(preflight.check_cluster(config(scale__gpu=True), cluster(8)))


@pytest.mark.parametrize(
    ("splits", "message"),
    [
        ({**GOOD, "dfew": sides(fe())}, "data.corpora.dfew.test_parts: the train side is empty"),
        ({**GOOD, "dfew": Split(fe("anger", "fear"), fe(), fe())}, "validation_parts or holdout: the validation side"),
        ({**GOOD, "dfew": sides(fe("anger", "anger"))}, "one class only (anger)"),
        ({**GOOD, "bp4d": sides(au(-1, -1))}, "every frame is unknown"),
        ({**GOOD, "bp4d": sides(au(0, 0))}, "no AU is both present and absent"),
    ],
)
def test_data_that_would_train_half_a_model(splits: dict[str, Split], message: str) -> None:
    assert message in settings(preflight.check_data(config(), splits))


@pytest.mark.parametrize(
    ("test", "message"),
    [
        (fe(), "data.corpora.dfew.test_parts or holdout: the test side is empty"),
        (fe("anger", "anger"), "data.corpora.dfew: the test side has one class only"),
    ],
)
def test_a_test_side_that_gives_no_figures_is_refused_before_training(test: Manifest, message: str) -> None:
    splits = {**GOOD, "dfew": Split(fe("anger", "fear"), fe("anger", "fear"), test)}
    assert message in settings(preflight.check_data(config(), splits))
    left_out = config(protocol="lodo", data__corpora__bp4d__role="test", data__au_batch=0)
    assert preflight.check_data(left_out, {**splits, "bp4d": Split(au(count=0), au(count=0), au(0, 1))}) == []


def test_an_unlabelled_test_side_is_refused_before_training() -> None:
    splits = {**GOOD, "bp4d": Split(au(0, 1), au(0, 1), au(-1, -1))}
    assert "the test side has no AU labels" in settings(preflight.check_data(config(), splits))


@pytest.mark.parametrize("role", ["train", "test"])
def test_labels_that_the_model_has_not_are_refused_before_training(role: str) -> None:
    foreign = sides(Manifest.build("/x", "bp4d", "au", Vocabulary(aus=(1, 26)), []))
    found = settings(preflight.check_data(config(data__corpora__bp4d__role=role), {**GOOD, "bp4d": foreign}))
    assert "data.corpora.bp4d.options or model.vocabulary: labels AU26, which model.vocabulary has not" in found


@pytest.mark.parametrize(("workers", "share"), [(1, 4), ([1, 2], 2)])
def test_more_micro_batches_than_a_worker_has_clips(workers: Any, share: int) -> None:
    fitting = config(scale__workers=workers, train__accumulation=share)
    assert preflight.check_config(fitting) == []
    found = settings(preflight.check_config(override(fitting, {"train.accumulation": share + 1})))
    assert f"train.accumulation: is {share + 1}, but a worker's share of data.au_batch is {share} clips" in found
    assert preflight.check_config(override(fitting, {"train.accumulation": share + 1, "data.au_batch": 0})) == []


def test_a_task_without_its_corpus_and_a_corpus_without_its_task() -> None:
    assert "data.fe_batch: is 6, but no corpus" in settings(preflight.check_data(config(), {"bp4d": GOOD["bp4d"]}))
    assert "data.fe_batch: is 0, but dfew" in settings(preflight.check_data(config(data__fe_batch=0), GOOD))


def test_lodo_needs_a_corpus_to_leave_out() -> None:
    assert "role=test" in settings(preflight.check_config(config(protocol="lodo")))


def test_a_storage_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("")
    found = settings(preflight.check_storage(config(storage=str(tmp_path / "taken")), 1000))
    assert found.startswith("storage: ")


def test_a_disk_too_small_for_the_checkpoints(tmp_path: Path) -> None:
    found = settings(preflight.check_storage(config(storage=str(tmp_path)), parameters=10**15))
    assert "storage or checkpoint.keep" in found


def test_missing_data_names_the_field() -> None:
    gone = config(data__corpora__bp4d__root="/nowhere/bp4d", data__corpora__bp4d__synthetic=None)
    assert "data.corpora.bp4d.root: /nowhere/bp4d does not exist" in settings(preflight.check_sources(gone))


def test_owners_files_in_object_storage_are_sent_through_ingest() -> None:
    remote = config(data__corpora__bp4d__root="s3://b/bp4d", data__corpora__bp4d__synthetic=None)
    found = settings(preflight.check_sources(remote))
    assert found.startswith("data.corpora.bp4d.root: s3://b/bp4d: ")
    assert "jobs/ingest.py" in found


def test_a_tracker_that_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    tracked = config(tracking__mlflow="mlruns")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert "tracking.mlflow: the package mlflow is not installed: pip install 'ssm-platform[mlflow]'" in settings(
        preflight.check_tracking(tracked)
    )
    assert preflight.check_tracking(config()) == []
    monkeypatch.setattr("importlib.util.find_spec", lambda name: name)
    assert preflight.check_tracking(tracked) == []


def test_files_that_hide_packages(tmp_path: Path) -> None:
    (tmp_path / "platform").mkdir()
    (tmp_path / "platform" / "__init__.py").write_text("")
    (tmp_path / "serve.py").write_text("")
    found = settings(preflight.check_shadowing([str(tmp_path)]))
    assert "hides the standard library's platform" in found
    assert "hides the package serve" in found
    assert preflight.check_shadowing([str(tmp_path / "platform")]) == []


def test_all_refusals_are_told_at_once() -> None:
    with pytest.raises(preflight.PreflightError, match=r"(?s)first: .*second: "):
        preflight.require([preflight.Refusal("first", "a"), preflight.Refusal("second", "b")])


def test_the_object_store_is_sized_by_the_run_and_checked_against_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """A box of eight cards needs more than the 2 GiB that were the limit."""
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr(budget, "will_join", lambda: False)
    wide = {"data.fe_batch": 96, "data.au_batch": 64, "data.decode_workers": 40, "scale.workers": 8}
    box = override(recipe("published_bp4d_dfew"), wide)
    needed = preflight.store_bytes(box)
    clips = needed / (16 * 224 * 224 * 3)
    assert clips >= 2 * 160 + 2 * 40, "a step that is read and one after, and a clip in each decoder's hands, twice"
    assert needed > 8 * 2**30
    large, small = budget.Machine(512 * 2**30, 256 * 2**30), budget.Machine(16 * 2**30, 8 * 2**30)
    assert budget.check_store(box, large) == []
    assert "data.decode_workers" in settings(budget.check_store(box, small))
    told = override(box, {"scale.store_gib": 4})
    assert preflight.store_bytes(told) == 4 * 2**30
    assert budget.check_store(told, small) == []
    affect = recipe("tiny+va_only")  # a run of valence and arousal alone was divided by zero
    clips = preflight.store_bytes(affect) / (affect.model.frames * affect.model.backbone.image_size**2 * 3)
    assert clips >= 2 * affect.data.va_batch + 2 * affect.data.decode_workers
    monkeypatch.setattr(budget, "will_join", lambda: True)
    assert budget.check_store(box, small) == [], "a cluster that is there has its store already"
