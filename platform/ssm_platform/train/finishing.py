"""The end of a run: the averaged weights of its best checkpoint, saved as a model beside its curves and its proof."""

from __future__ import annotations

import json
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ssm import SSM
from ssm.interface import FaceCrop
from ssm.saved import ModelFacts
from ssm_platform.base import Storage
from ssm_platform.runs import RunConfig
from ssm_platform.train.checkpoints import Marker
from ssm_platform.train.place import Job


class TrainingFailed(RuntimeError):
    """The run ended early: what no restart mends, or more worker failures than `scale.max_failures`.

    Says what is kept.
    """


@dataclass(frozen=True)
class TrainingResult:
    """What a finished run left behind."""

    folder: str
    steps: int
    best: Marker
    curves: list[dict[str, float]]


def finish(job: Job) -> TrainingResult:
    """Saves the best checkpoint's averaged weights as a model. `TrainingFailed` where the run has not ended."""
    checkpoints, storage = job.place.checkpoints, job.place.storage
    newest, best = checkpoints.newest(), checkpoints.best()
    if newest is None or best is None or newest.step < job.total:
        done = newest.step if newest else 0
        raise TrainingFailed(f"{job.folder}: the newest complete checkpoint is at step {done} of {job.total}")
    last = checkpoints.load(newest)
    curves = last["position"]["curves"]
    storage.write("curves.json", json.dumps(curves).encode())
    storage.write("order.json", json.dumps(last["position"]["order"]).encode())
    _save(averaged_model(job.config, checkpoints.load(best), job.crop), storage)
    return TrainingResult(job.folder, newest.step, best, curves)


def _save(model: SSM, storage: Storage) -> None:
    if "://" not in storage.uri:
        model.save_pretrained(Path(storage.uri) / "model")
        return
    with tempfile.TemporaryDirectory() as scratch:
        model.save_pretrained(Path(scratch) / "model")
        upload_model(Path(scratch) / "model", storage)


def upload_model(folder: Path, storage: Storage) -> None:
    """Copies a saved model to a run's `model/`; `config.json` comes last, since object stores cannot rename folders."""
    for file in sorted(folder.iterdir(), key=lambda path: path.name == "config.json"):
        storage.write(f"model/{file.name}", file.read_bytes())


def averaged_model(config: RunConfig, state: dict[str, Any], crop: FaceCrop | None) -> SSM:
    """The model of a checkpoint with its averaged weights, folded and with the facts that travel with it."""
    model = SSM(config.model)
    model.load_state_dict({**state["train"]["model"], **state["train"]["average"]}, strict=False)
    model.facts = ModelFacts(preprocessing=config.preprocessing.model_copy(update={"crop": crop}))
    return model.fold()
