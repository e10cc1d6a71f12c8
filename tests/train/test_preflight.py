"""What would hang or fail later is refused before it starts, and the refusal names the setting to change."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ssm.vocabulary import Vocabulary
from ssm_platform import preflight
from ssm_platform.cli import override
from ssm_platform.cluster import ClusterSize
from ssm_platform.config import RunConfig
from ssm_platform.recipes import tiny
from ssm_platform.records import Manifest, Record
from ssm_platform.splits import Split


def config(**changes: Any) -> RunConfig:
    return override(tiny(), {name.replace("__", "."): value for name, value in changes.items()})


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
    assert preflight.check_cluster(sound, ClusterSize(4, 0, 1)) == []
    assert preflight.check_data(sound, GOOD) == []
    assert preflight.check_storage(sound, 1000) == []
    assert preflight.check_sources(sound) == []


@pytest.mark.parametrize("workers", [3, [1, 3], 4])
def test_workers_that_cannot_share_a_batch(workers: Any) -> None:
    found = settings(preflight.check_config(config(scale__workers=workers)))
    assert "scale.workers" in found
    assert "possible counts: 1, 2" in found


def test_an_impossible_cpu_budget_would_hang() -> None:
    found = settings(preflight.check_cluster(config(scale__workers=2, scale__cpus_per_worker=1), ClusterSize(2, 0, 1)))
    assert "2 x 1 CPUs for workers + 1 x 0.5 for decoding + 1 for reading = 3.5" in found
    assert "declares 2" in found


def test_a_gpu_that_is_not_there() -> None:
    assert "scale.gpu" in settings(preflight.check_cluster(config(scale__gpu=True), ClusterSize(8, 0, 1)))


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
