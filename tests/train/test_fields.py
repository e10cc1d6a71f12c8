"""Every field of a run changes something: each leaf is set to another value and must move what it is said to move.

The table names, for each field, another value and the observation that must change; a new field without a row fails.
`model.*` and `train.*` are handed on whole: that they are is tested here, what each of their fields does in
`test_model_fields.py` and `test_train_fields.py`.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import MagicMock

import numpy as np
import pytest
import ray.train
import ray.train.torch
import torch

from ssm import SSM
from ssm.training.collective import SingleProcess
from ssm_platform.base.overrides import describe_fields, override
from ssm_platform.base.storage import open_storage
from ssm_platform.data.clips import to_batches
from ssm_platform.data.feed import START, Start
from ssm_platform.data.shared import Shared
from ssm_platform.data.streams import ClipStream
from ssm_platform.records.manifest import Manifest
from ssm_platform.runs import preflight
from ssm_platform.runs.config import RunConfig
from ssm_platform.runs.preparation import load, plan_config, prepare, total_steps, training_plan
from ssm_platform.runs.recipes import tiny
from ssm_platform.runs.splits import Split
from ssm_platform.synthetic import PRESETS, write_corpus
from ssm_platform.train import checkpoints
from ssm_platform.train.building import make_step, run_reader, step_config
from ssm_platform.train.checkpoints import Attempt, CheckpointError, Checkpoints
from ssm_platform.train.opening import Run, open_run
from ssm_platform.train.place import Job, RunPlace
from ssm_platform.train.running import course, ray_trainer, scaling
from ssm_platform.train.tracking import Origin, Trackers
from ssm_platform.train.validation import validation_rows
from ssm_platform.train.worker import schedule, work

Observe = Callable[[RunConfig], Any]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> RunConfig:
    """`tiny` on corpora that are there; the model without its text tower, to be quick."""
    folder = tmp_path_factory.mktemp("fields")
    for name in ("bp4d", "dfew", "bp4d-other"):
        write_corpus(name.partition("-")[0], folder / name, PRESETS["tiny"], 2 if "other" in name else 1)
    load(tiny().corpus("bp4d").model_copy(update={"root": str(folder / "bp4d")})).write(folder / "bp4d.parquet")
    return override(
        tiny(),
        {
            "storage": str(folder),
            "data.corpora.bp4d.root": str(folder / "bp4d"),
            "data.corpora.dfew.root": str(folder / "dfew"),
            "data.corpora.bp4d.synthetic": None,
            "data.corpora.dfew.synthetic": None,
            "data.corpora.dfew.augmentation.flip": 0,
            "model.text.tower": None,
            "model.mapping.enabled": False,
        },
    )


def digest(*arrays: np.ndarray) -> str:
    return hashlib.sha256(b"".join(np.ascontiguousarray(array).tobytes() for array in arrays)).hexdigest()


def sides(config: RunConfig) -> Any:
    splits = prepare(config).splits.values()
    return [[one.train.fingerprint, one.validation.fingerprint, one.test.fingerprint] for one in splits]


def sources(config: RunConfig) -> Any:
    return [(corpus.name, load(corpus).root, load(corpus).fingerprint) for corpus in config.data.corpora]


def order(config: RunConfig) -> Any:
    plan = training_plan(config, prepare(config))
    return plan.fingerprint, total_steps(config, plan)


def pixels(config: RunConfig) -> Any:
    manifests = prepare(config).train
    rows = training_plan(config, prepare(config)).rows(0, 1)
    return digest(run_reader(config, manifests).read(rows.columns())["clip"])


def first_loss(config: RunConfig) -> Any:
    """Weights at the start, and the losses of the first step: preprocessing and seeds reach them."""
    torch.set_num_threads(1)
    prepared = prepare(config)
    plan = training_plan(config, prepared)
    step = make_step(config, torch.device("cpu"), SingleProcess())
    columns = run_reader(config, prepared.train).read(plan.rows(0, 1).columns())
    fe, au, va = to_batches(columns)
    return step(fe, au, 0, 10, va).floats()


def evaluated(config: RunConfig) -> Any:
    manifests = prepare(config).validation
    rows = validation_rows(config, manifests)
    return digest(run_reader(config, [], manifests).read(rows.columns())["clip"])


def decoder(config: RunConfig) -> Any:
    return run_reader(config, []).__reduce__()[1][2].decoder


def shipped(config: RunConfig) -> Any:
    """The columns that decode processes send."""
    none = {name: np.zeros(0, np.int64) for name in ("row", "task", "corpus", "record", "start", "seed")}
    return sorted(run_reader(config, []).read(none))


def when(config: RunConfig) -> Any:
    return schedule(Job(config, "/x", "", 100, []))


def ray_workers(config: RunConfig) -> Any:
    return scaling(config)


def budget(config: RunConfig) -> Any:
    return preflight.cpus_needed(config)


def kept(config: RunConfig) -> Any:
    folder = Path(config.storage) / f"kept-{config.checkpoint.keep}"
    written = Checkpoints(open_storage(folder), config.checkpoint.keep, config.checkpoint.deadline)
    for step in range(1, 5):
        written.write({}, step, "", None)
    return [marker.step for marker in written.complete()]


def trackers(config: RunConfig) -> Any:
    folder = Path(config.storage) / f"tensorboard-{config.tracking.tensorboard}"
    Trackers.of(config, folder, 0, Origin(str(folder), "")).close()
    return folder.exists()


def survived(config: RunConfig) -> Any:
    """What Ray Train is told of failures, of a run opened as the driver opens it."""
    run = open_run(override(config, {"name": f"survives-{config.scale.max_failures}"}))
    return ray_trainer(run, None, ()).run_config.failure_config.max_failures


@dataclass
class Shard:
    """A worker's share of the stream, at the boundary to Ray Data: real batches, and what was asked of it."""

    batches: list[Any]
    prefetched: int | None = None
    threads: int | None = None

    def iter_batches(self, *, prefetch_batches: int, **_: Any) -> Iterator[Any]:
        self.prefetched, self.threads = prefetch_batches, torch.get_num_threads()
        return iter(self.batches)


def cut(block: dict[str, Any], size: int) -> list[dict[str, Any]]:
    """Batches of a block."""
    starts = range(0, len(block["row"]), size)
    return [{name: column[first : first + size] for name, column in block.items()} for first in starts]


def worked(config: RunConfig, folder: Path) -> Shard:
    """Ray Train's per-worker function, to the end of a run of one step; the cluster's side is made of plain values."""
    prepared = prepare(config)
    run = Run(Job(config, str(folder), "", 1, prepared.validation), prepared, training_plan(config, prepared))
    reader = run_reader(config, prepared.train, prepared.validation)
    layout = ClipStream(Shared(reader)).layout(Shared(course(run)), 0, 1)
    blocks = [reader.read(layout.rows(number).columns()) for number in range(layout.groups)]
    shard = Shard([part for block in blocks for part in cut(block, layout.shares.slots)])
    start = Start(Attempt(0, None), reader.config, layout.shares, layout.turns, 10**6)
    threads = torch.get_num_threads()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ray.train, "get_context", lambda: SimpleNamespace(get_world_size=lambda: 1))
        patch.setattr(ray.train, "get_dataset_shard", {"plan-0": shard, START: start}.get)
        patch.setattr(ray.train, "report", lambda _: None)
        patch.setattr(ray.train.torch, "get_device", lambda: torch.device("cpu"))
        patch.setattr(logging.getLogger(), "level", logging.WARNING)
        try:
            work(run.job)
        finally:
            torch.set_num_threads(threads)
    return shard


def threads(config: RunConfig) -> Any:
    return worked(config, Path(config.storage) / f"threads-{config.scale.threads_per_worker}").threads


def prefetched(config: RunConfig) -> Any:
    return worked(config, Path(config.storage) / f"prefetched-{config.data.prefetch_batches}").prefetched


def patience(config: RunConfig) -> Any:
    """Seconds, on a clock of its own, after which a worker gives up a storage that takes no checkpoint."""
    folder, clock = Path(config.storage) / f"full-{config.checkpoint.deadline}", [0.0]
    (folder / "checkpoints").mkdir(parents=True)
    (folder / "checkpoints" / "step-00000001").touch()  # in the way of the checkpoint's folder
    slept = SimpleNamespace(monotonic=lambda: clock[0], sleep=lambda seconds: clock.append(clock.pop() + seconds))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(checkpoints, "time", slept)
        with pytest.raises(CheckpointError, match=f"checkpoint.deadline={config.checkpoint.deadline:g} s"):
            worked(config, folder)
    return clock[0]


def tracked(config: RunConfig) -> Any:
    """The MLflow server that a run turns to; the client's own work is in `test_tracking.py`."""
    mlflow = pytest.importorskip("mlflow.tracking", reason="mlflow is an extra of the platform")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(mlflow, "MlflowClient", client := MagicMock())
        Trackers.of(override(config, {"tracking.tensorboard": False}), Path("/x"), 0, Origin("/x", "")).close()
    return [call.kwargs["tracking_uri"] for call in client.call_args_list]


def cropped(config: RunConfig) -> Any:
    """What is refused of the corpus where nothing beside it says that its pictures are drawn faces."""
    manifest = load(config.corpus("bp4d"))
    elsewhere = Manifest("/elsewhere", manifest.corpus, manifest.task, manifest.labels, manifest.table)
    return preflight.check_crops(config, {"bp4d": Split(elsewhere, elsewhere, elsewhere)})


CORPUS = "data.corpora.bp4d"
FIELDS: dict[str, tuple[str, Any, Observe]] = {
    "name": ("name", "other", RunPlace.of),
    "seed": ("seed", 2, first_loss),
    "storage": ("storage", "/elsewhere", RunPlace.of),
    "protocol": ("protocol", "published", sides),
    "init_from": ("init_from", "model", first_loss),
    "epochs": ("epochs", 3, lambda config: order(override(config, {"steps": None}))),
    "steps": ("steps", 13, order),
    "validate_every": ("validate_every", 5, when),
    "validation_clips": ("validation_clips", 2, evaluated),
    "data.corpora": ("data.corpora", None, sides),
    "data.corpora.N.name": (f"{CORPUS}.name", "second", sources),
    "data.corpora.N.reader": (f"{CORPUS}.reader", "bp4d", sources),
    "data.corpora.N.root": (f"{CORPUS}.root", "bp4d-other", sources),
    "data.corpora.N.manifest": (f"{CORPUS}.manifest", "bp4d.parquet", sources),
    "data.corpora.N.crops": (f"{CORPUS}.crops", "always", cropped),
    "data.corpora.N.options": (f"{CORPUS}.options", {"aus": [1, 2]}, sources),
    "data.corpora.N.synthetic": (f"{CORPUS}.synthetic", "tiny", sources),
    "data.corpora.N.weight": (f"{CORPUS}.weight", 2.0, lambda config: order(config)),
    "data.corpora.N.augmentation.scale": (f"{CORPUS}.augmentation.scale", (0.3, 0.4), pixels),
    "data.corpora.N.augmentation.ratio": (f"{CORPUS}.augmentation.ratio", (0.5, 0.6), pixels),
    "data.corpora.N.augmentation.flip": ("data.corpora.dfew.augmentation.flip", 1.0, pixels),
    "data.corpora.N.augmentation.brightness": (f"{CORPUS}.augmentation.brightness", 0.9, pixels),
    "data.corpora.N.augmentation.rotation": (f"{CORPUS}.augmentation.rotation", 90, pixels),
    "data.corpora.N.augmentation.photograph.grey": (f"{CORPUS}.augmentation.photograph.grey", 1.0, pixels),
    "data.corpora.N.augmentation.photograph.colour": (f"{CORPUS}.augmentation.photograph.colour", 0.5, pixels),
    "data.corpora.N.augmentation.photograph.contrast": (f"{CORPUS}.augmentation.photograph.contrast", 0.5, pixels),
    "data.corpora.N.augmentation.photograph.blur": (f"{CORPUS}.augmentation.photograph.blur", 2.0, pixels),
    "data.corpora.N.augmentation.photograph.resolution": (
        f"{CORPUS}.augmentation.photograph.resolution",
        0.3,
        pixels,
    ),
    "data.corpora.N.augmentation.photograph.jpeg": (f"{CORPUS}.augmentation.photograph.jpeg", 20, pixels),
    "data.corpora.N.test_parts": (f"{CORPUS}.test_parts", ["P1"], sides),
    "data.corpora.N.validation_parts": (f"{CORPUS}.validation_parts", ["P1"], sides),
    "data.corpora.N.holdout": ("data.corpora.dfew.holdout", 0.5, sides),
    "data.corpora.N.role": (f"{CORPUS}.role", "test", sides),
    "data.fe_batch": ("data.fe_batch", 2, order),
    "data.au_batch": ("data.au_batch", 2, order),
    "data.va_batch": ("data.va_batch", 2, lambda config: plan_config(config, prepare(config).train).shares(1).slots),
    "data.decoder": ("data.decoder", "decord", decoder),
    "data.warp": ("data.warp", "worker", shipped),
    "data.decode_workers": ("data.decode_workers", 3, budget),
    "data.decode_cpus": ("data.decode_cpus", 2.0, budget),
    "data.resize": ("data.resize", 40, evaluated),
    "data.mean": ("data.mean", (0.0, 0.0, 0.0), first_loss),
    "data.std": ("data.std", (1.0, 1.0, 1.0), first_loss),
    "data.grey": ("data.grey", True, first_loss),
    "data.standardise": ("data.standardise", True, first_loss),
    "data.prefetch_batches": ("data.prefetch_batches", 5, prefetched),
    "scale.workers": ("scale.workers", (1, 2), ray_workers),
    "scale.cpus_per_worker": ("scale.cpus_per_worker", 3.0, ray_workers),
    "scale.threads_per_worker": ("scale.threads_per_worker", 2, threads),
    "scale.gpu": ("scale.gpu", True, ray_workers),
    "scale.store_gib": ("scale.store_gib", 3.5, preflight.store_bytes),
    "scale.max_failures": ("scale.max_failures", 9, survived),
    "scale.resize_interval": ("scale.resize_interval", 5.0, ray_workers),
    "checkpoint.every": ("checkpoint.every", 7, when),
    "checkpoint.keep": ("checkpoint.keep", 3, kept),
    "checkpoint.deadline": ("checkpoint.deadline", 1.0, patience),
    "tracking.tensorboard": ("tracking.tensorboard", False, trackers),
    "tracking.mlflow": ("tracking.mlflow", "sqlite:///mlflow.db", tracked),
    "tracking.every": ("tracking.every", 3, when),
}


def test_the_table_has_a_row_for_every_field() -> None:
    paths = {field.path for field in describe_fields(RunConfig)}
    assert {path for path in paths if not path.startswith(("model.", "train."))} == set(FIELDS)


@pytest.mark.parametrize("field", sorted(FIELDS))
def test_a_field_changes_what_it_is_said_to_change(base: RunConfig, field: str) -> None:
    path, value, observe = FIELDS[field]
    start, changes = base, {path: value}
    if field == "data.corpora":  # a list of other corpora
        changes = {path: base.model_dump()["data"]["corpora"][:1], "data.fe_batch": 0}
    elif field == "data.corpora.N.name":
        changes = {f"{CORPUS}.reader": "bp4d", path: value}
    elif field == "data.corpora.N.reader":  # where the corpus's name is not that of a reader
        start = override(base, {"data.corpora.0.reader": "disfa", f"{CORPUS}.name": "mine"})
        with pytest.raises(ValueError, match=r"(?i)disfa"):
            observe(start)
        assert observe(override(start, {"data.corpora.mine.reader": "bp4d"}))
        return
    elif field == "data.corpora.N.root":
        changes = {path: str(Path(base.storage) / value)}
    elif field == "init_from":
        SSM(base.model).save_pretrained(Path(base.storage) / value)
        changes = {path: str(Path(base.storage) / value)}
    elif field == "data.corpora.N.manifest":
        changes = {path: str(Path(base.storage) / value), f"{CORPUS}.root": None}
        moved = override(base, {"data.corpora.bp4d.root": str(Path(base.storage) / "bp4d-other")})
        assert observe(override(base, changes)) != observe(moved)
        return
    elif field == "data.corpora.N.synthetic":
        fresh = {f"{CORPUS}.root": str(Path(base.storage) / "fresh"), path: None}
        with pytest.raises(ValueError, match="no such folder"):
            observe(override(base, fresh))
        assert observe(override(base, {**fresh, path: value}))
        return
    elif field == "data.corpora.N.role":
        changes["data.au_batch"] = 0
    assert observe(start) != observe(override(start, changes))


def test_model_and_train_are_handed_on_whole(base: RunConfig) -> None:
    step = make_step(base, torch.device("cpu"), SingleProcess())
    assert step.model.config == base.model
    assert step.config == step_config(base)
    assert step_config(base).model_copy(update={"seed": base.train.seed}) == base.train
    other = override(base, {"train.seed": 5})
    assert step_config(other).seed != step_config(base).seed
