"""A run from config to saved model: prepare, check, train on Ray Train, keep the best weights.

    result = train(config)        # resumes by itself where the run's folder holds a complete checkpoint

The driver holds no pixels and no GPU. Killed at any moment and started again it goes on from the newest complete
checkpoint: bit-equal at the same number of workers, the same batches at any other.
"""

from __future__ import annotations

import hashlib
import json
import logging
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from ssm import SSM
from ssm.saved import WEIGHTS, ModelFacts
from ssm_platform.base import Storage
from ssm_platform.cluster import joined
from ssm_platform.data import STREAM, ClipStream, Plan, ResumingDataConfig, keep_pace, placeholder
from ssm_platform.runs import Prepared, RunConfig, preflight, prepare, total_steps, training_plan
from ssm_platform.train.checkpoints import CheckpointError, Checkpoints, Marker
from ssm_platform.train.endings import EndAtOnce, RunEnded
from ssm_platform.train.progress import shown
from ssm_platform.train.worker import Job, initial_model, run_checkpoints, run_storage, training_reader, work

LOG = logging.getLogger(__name__)

RUN_FILE = "run.json"
"""What a run is: its config, mathematics and data fingerprints."""


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


@dataclass(frozen=True)
class Run:
    """A run that may start: its data, its plan, its place."""

    job: Job
    prepared: Prepared
    plan: Plan
    checkpoints: Checkpoints

    @property
    def ended(self) -> bool:
        """Whether the last step's checkpoint is complete."""
        newest = self.checkpoints.newest()
        return newest is not None and newest.step >= self.job.total


def train(config: RunConfig) -> TrainingResult:
    """Trains to the end, from wherever the run stands. Raises `PreflightError`, `TrainingFailed`, ValueError."""
    return complete(open_run(config))


def complete(run: Run, callbacks: Sequence[Any] = ()) -> TrainingResult:
    """Does what is left of an opened run, on the cluster that is joined or on one of its own.

    `callbacks` are Ray Train's: a search listens to validations through one.
    """
    config = run.job.config
    if not run.ended:
        with joined(preflight.cpus_needed(config)) as size:
            preflight.require(preflight.check_cluster(config, size))
            _fit(run, callbacks)
    return _finish(run)


def open_run(config: RunConfig) -> Run:
    """Everything that can be known before Ray starts; writes synthetic corpora and claims the run's folder."""
    config = config.anchored(Path.cwd())
    checks = (preflight.check_config, preflight.check_sources, preflight.check_tracking)
    preflight.require([*preflight.check_shadowing(), *(refusal for check in checks for refusal in check(config))])
    prepared = prepare(config)
    preflight.require(preflight.check_data(config, prepared.splits))
    preflight.require(preflight.check_storage(config, parameters(config)))
    plan = training_plan(config, prepared)
    job = Job(config, run_folder(config), _fingerprint(config, plan), total_steps(config, plan), prepared.validation)
    run = Run(job, prepared, plan, run_checkpoints(config, job.folder))
    _claim(run)
    return run


def run_folder(config: RunConfig) -> str:
    """The run's folder: `storage/name`, absolute."""
    storage = config.storage if "://" in config.storage else str(Path(config.storage).absolute())
    return f"{storage.rstrip('/')}/{config.name}"


def parameters(config: RunConfig) -> int:
    """Trained weights of the model; building it shows missing weights and impossible settings before Ray starts."""
    try:
        model = initial_model(config)
    except (ValueError, OSError) as error:
        raise preflight.PreflightError(
            [preflight.Refusal("model or init_from", f"cannot be built: {error}")]
        ) from error
    return sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)


def _finish(run: Run) -> TrainingResult:
    """Saves the best checkpoint's averaged weights as a model. `TrainingFailed` where the run has not ended."""
    job, checkpoints = run.job, run.checkpoints
    newest, best = checkpoints.newest(), checkpoints.best()
    if newest is None or best is None or newest.step < job.total:
        done = newest.step if newest else 0
        raise TrainingFailed(f"{job.folder}: the newest complete checkpoint is at step {done} of {job.total}")
    last = checkpoints.load(newest)
    curves = last["position"]["curves"]
    storage = run_storage(job.config, job.folder)
    storage.write("curves.json", json.dumps(curves).encode())
    storage.write("order.json", json.dumps(last["position"]["order"]).encode())
    _save(averaged_model(job.config, checkpoints.load(best)), storage)
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


def averaged_model(config: RunConfig, state: dict[str, Any]) -> SSM:
    """The model of a checkpoint with its averaged weights, folded and with the facts that travel with it."""
    model = SSM(config.model)
    model.load_state_dict({**state["train"]["model"], **state["train"]["average"]}, strict=False)
    model.facts = ModelFacts(preprocessing=config.preprocessing)
    return model.fold()


def _fit(run: Run, callbacks: Sequence[Any]) -> None:
    """Trains what is left. `TrainingFailed` where no restart would help or workers failed more often than allowed."""
    from ray.train import ControllerError, TrainingFailedError

    keep_pace()
    with shown(run.job.config.name) as board:
        try:
            ray_trainer(run, board, callbacks).fit()
        except TrainingFailedError as error:
            ended = error.controller_failure if isinstance(error, ControllerError) else error
            reason = ended if isinstance(ended, RunEnded) else error
            raise TrainingFailed(f"{reason}; complete checkpoints are kept in {run.job.folder}") from error


def ray_trainer(run: Run, board: Any, callbacks: Sequence[Any]) -> Any:
    """Ray Train's trainer of a run; `fit` starts it."""
    from ray.train.torch import TorchConfig, TorchTrainer
    from ray.train.v2.api.config import FailureConfig, LoggingConfig
    from ray.train.v2.api.config import RunConfig as RayRunConfig

    job, config, scale = run.job, run.job.config, run.job.config.scale
    stream = ClipStream(
        training_reader(config, run.prepared.train), config.data.decode_workers, config.data.decode_cpus
    )
    run_config: Any = RayRunConfig(
        name="ray",
        storage_path=job.folder,
        failure_config=FailureConfig(max_failures=scale.max_failures),
        callbacks=[EndAtOnce(), *callbacks],
        logging_config=LoggingConfig("WARNING"),
    )
    per_worker: Any = partial(work, replace(job, board=board))
    return TorchTrainer(
        per_worker,
        scaling_config=scaling(config),
        run_config=run_config,
        torch_config=TorchConfig(backend="nccl" if scale.gpu else "gloo"),
        datasets={STREAM: placeholder},
        dataset_config=ResumingDataConfig(stream, run.plan, job.total, partial(_first_step, config, job.folder)),
    )


def scaling(config: RunConfig) -> Any:
    """Ray Train's view of `config.scale`."""
    from ray.train.v2.api.config import ScalingConfig

    scale = config.scale
    return ScalingConfig(
        num_workers=scale.workers,
        use_gpu=scale.gpu,
        resources_per_worker={"CPU": scale.cpus_per_worker, **({"GPU": 1} if scale.gpu else {})},
        elastic_resize_monitor_interval_s=scale.resize_interval,
    )


def _first_step(config: RunConfig, folder: str) -> int:
    """Where a stream starts: at the checkpoint that the workers resume from. Runs where Ray Train sets them up."""
    newest = run_checkpoints(config, folder).newest_intact()
    return newest.step if newest else 0


def _fingerprint(config: RunConfig, plan: Plan) -> str:
    """What decides the numbers of a run: mathematics, data, and the weights it starts from."""
    start = "".join(_start(config).values())
    return hashlib.sha256(f"{config.fingerprint()}/{plan.fingerprint}{start}".encode()).hexdigest()


def _start(config: RunConfig) -> dict[str, str]:
    """The digest of the weights of `init_from`; nothing where the run starts from its seed."""
    if config.init_from is None:
        return {}
    return {"init_from": hashlib.sha256((Path(config.init_from) / WEIGHTS).read_bytes()).hexdigest()}


def _claim(run: Run) -> None:
    """Writes the run's `run.json`; refuses the folder of a run with other mathematics or data, naming what differs."""
    job, storage = run.job, run_storage(run.job.config, run.job.folder)
    mine: dict[str, Any] = {
        "fingerprint": job.fingerprint,
        "steps": job.total,
        "mathematics": job.config.mathematics(),
        "data": {**run.prepared.fingerprints, **_start(job.config)},
        "config": job.config.model_dump(mode="json"),
    }
    newest = run.checkpoints.newest()
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
