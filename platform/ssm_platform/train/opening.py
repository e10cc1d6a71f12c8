"""Opening a run: everything that can be known before Ray starts, and the claim on the run's folder."""

from __future__ import annotations

import hashlib
import json
import logging
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ssm.interface import FaceCrop
from ssm.saved import read_config
from ssm_platform.data import Plan
from ssm_platform.runs import Prepared, RunConfig, learned_crop, preflight, prepare, total_steps, training_plan
from ssm_platform.train.building import start_digest, trained_weights
from ssm_platform.train.checkpoints import CheckpointError
from ssm_platform.train.place import Job, RunPlace

LOG = logging.getLogger(__name__)

RUN_FILE = "run.json"
"""What a run is: its config, mathematics and data fingerprints."""


@dataclass(frozen=True)
class Run:
    """A run that may start: its data, its plan, its place."""

    job: Job
    prepared: Prepared
    plan: Plan

    @property
    def ended(self) -> bool:
        """Whether the last step's checkpoint is complete and intact."""
        checkpoints, total = self.job.place.checkpoints, self.job.total
        if not any(marker.step >= total for marker in checkpoints.complete()):
            return False  # without reading any state
        newest = checkpoints.newest_intact()
        return newest is not None and newest.step >= total


def open_run(config: RunConfig) -> Run:
    """Everything that can be known before Ray starts; writes synthetic corpora and claims the run's folder."""
    config = config.anchored(Path.cwd())
    preflight.require(preflight.check_unopened(config))
    with ThreadPoolExecutor(1) as beside:
        weights = beside.submit(trained_weights, config)
        prepared = prepare(config)
        preflight.require(preflight.check_opened(config, prepared.splits, weights.result()))
    plan = training_plan(config, prepared)
    folder = RunPlace.of(config).folder
    start = start_digest(config)
    total = total_steps(config, plan)
    crop = learned_crop(config, prepared.train)
    _tell_crops(config, crop)
    job = Job(config, folder, _fingerprint(config, plan, start), total, prepared.validation, crop, start)
    run = Run(job, prepared, plan)
    _claim(run)
    return run


def _fingerprint(config: RunConfig, plan: Plan, start: str | None) -> str:
    """What decides the numbers of a run: mathematics, data, and the weights it starts from."""
    return hashlib.sha256(f"{config.fingerprint()}/{plan.fingerprint}{start or ''}".encode()).hexdigest()


def _tell_crops(config: RunConfig, crop: FaceCrop | None) -> None:
    """Say where the model that the run starts from learned from crops of another kind."""
    saved = None if config.init_from is None else read_config(Path(config.init_from)).facts.preprocessing
    if crop is not None and saved is not None and saved.crop is not None and not crop.alike(saved.crop):
        LOG.warning("%s learned from %s; this run trains on %s", config.init_from, saved.crop.words, crop.words)


def _claim(run: Run) -> None:
    """Writes the run's `run.json`; refuses the folder of a run with other mathematics or data, naming what differs."""
    job, storage = run.job, run.job.place.storage
    mine: dict[str, Any] = {
        "fingerprint": job.fingerprint,
        "steps": job.total,
        "mathematics": job.config.mathematics(),
        "data": {**run.prepared.fingerprints, **({"init_from": job.start} if job.start else {})},
        "config": job.config.model_dump(mode="json"),
    }
    newest = job.place.checkpoints.newest()
    if newest is not None and newest.fingerprint != job.fingerprint:
        theirs = json.loads(storage.read(RUN_FILE))
        differing = _differences({**theirs["mathematics"], **theirs["data"]}, {**mine["mathematics"], **mine["data"]})
        raise CheckpointError(
            f"{job.folder} holds a run with other settings or data ({'; '.join(differing) or 'another plan'}): "
            f"choose another name, or delete the folder"
        )
    storage.write(RUN_FILE, json.dumps(mine, indent=1).encode())


def _differences(theirs: dict[str, Any], mine: dict[str, Any]) -> list[str]:
    names = sorted({*theirs, *mine})
    changed = [name for name in names if theirs.get(name) != mine.get(name)]
    return [f"{name}: {theirs.get(name)} there, {mine.get(name)} here" for name in changed]
