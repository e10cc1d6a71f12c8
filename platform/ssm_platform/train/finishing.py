"""The end of a run: the averaged weights of its best checkpoint, saved as a model beside its curves and its proof."""

from __future__ import annotations

import json
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

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
    """Saves the best intact checkpoint's averaged weights as a model. `TrainingFailed` where the run has not ended."""
    checkpoints, storage = job.place.checkpoints, job.place.storage
    found = checkpoints.resume()
    if found is None or found[0].step < job.total:
        done = found[0].step if found else 0
        raise TrainingFailed(f"{job.folder}: the newest complete checkpoint is at step {done} of {job.total}")
    newest, last = found
    if (chosen := checkpoints.best_intact()) is None:
        raise TrainingFailed(f"{job.folder}: no intact checkpoint has a validation score, so none is the best")
    best, state = chosen
    curves = last["position"]["curves"]
    storage.write("curves.json", json.dumps(curves).encode())
    storage.write("order.json", json.dumps(last["position"]["order"]).encode())
    _save(averaged_model(job.config, state, job.crop), storage)
    return TrainingResult(job.folder, newest.step, best, curves)


def _save(model: SSM, storage: Storage) -> None:
    """Leaves a model with the same weights alone: an assessment has added its rule and figures to that."""
    if "://" not in storage.uri:
        if not _holds(Path(storage.uri) / "model", model):
            model.save_pretrained(Path(storage.uri) / "model")
        return
    with tempfile.TemporaryDirectory() as scratch:
        folder = download_model(storage, Path(scratch))
        if not _holds(folder, model):
            model.save_pretrained(folder)
            upload_model(folder, storage)


def _holds(folder: Path, model: SSM) -> bool:
    """Whether `model` is saved there, whole, whatever was found out about it since."""
    try:
        there = SSM.from_pretrained(folder)
    except ValueError:  # none, or a damaged one
        return False
    mine, theirs = model.state_dict(), there.state_dict()
    return (
        there.config.model_dump_json() == model.config.model_dump_json()
        and there.facts.preprocessing == model.facts.preprocessing
        and mine.keys() == theirs.keys()
        and all(torch.equal(tensor, theirs[name]) for name, tensor in mine.items())
    )


def download_model(storage: Storage, folder: Path) -> Path:
    """Copies a run's `model/`, as far as there is one, into `folder`; returns where it lies then."""
    for key in storage.list("model/"):
        path = folder / key
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(storage.read(key))
    return folder / "model"


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
