"""A run from config to saved model: open, check the cluster, train on Ray Train, keep the best weights.

    result = train(config)        # resumes by itself where the run's folder holds a complete checkpoint

The driver holds no pixels and no GPU. Killed at any moment and started again it goes on from the newest complete
checkpoint: bit-equal at the same number of workers, the same batches at any other.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

from ssm_platform.cluster import joined
from ssm_platform.data import ClipStream, Course, ResumingDataConfig, Shared, keep_pace
from ssm_platform.runs import RunConfig, preflight
from ssm_platform.train.building import run_reader
from ssm_platform.train.checkpoints import Attempt
from ssm_platform.train.endings import EndAtOnce, RunEnded
from ssm_platform.train.finishing import TrainingFailed, TrainingResult, finish
from ssm_platform.train.opening import Run, open_run
from ssm_platform.train.place import RunPlace
from ssm_platform.train.progress import shown
from ssm_platform.train.validation import validation_rows
from ssm_platform.train.worker import work


def train(config: RunConfig) -> TrainingResult:
    """Trains to the end, from wherever the run stands. Raises `PreflightError`, `TrainingFailed`, ValueError."""
    return complete(open_run(config))


def complete(run: Run, callbacks: Sequence[Any] = ()) -> TrainingResult:
    """Does what is left of an opened run, on the cluster that is joined or on one of its own.

    `callbacks` are Ray Train's: a search listens to validations through one.
    """
    config = run.job.config
    if not run.ended:
        with joined(preflight.cpus_needed(config), store_bytes=preflight.store_bytes(config)) as size:
            preflight.require(preflight.check_cluster(config, size))
            _fit(run, callbacks)
    return finish(run.job)


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

    job, config, scale = run.job, run.job.config, run.job.config.scale
    data = config.data
    reader = run_reader(config, run.prepared.train, job.validation)
    stream = ClipStream(Shared(reader), data.decode_workers, data.decode_cpus, scale.bounds[1])
    run_config = _ray_train().RunConfig(
        name="ray",
        storage_path=job.folder,
        failure_config=_ray_train().FailureConfig(max_failures=scale.max_failures),
        callbacks=[EndAtOnce(), *callbacks],
        logging_config=_ray_train().LoggingConfig("WARNING"),
    )
    per_worker: Any = partial(work, replace(job, board=board))
    feed: Any = ResumingDataConfig(stream, course(run), partial(_begin, job.place))
    return TorchTrainer(
        per_worker,
        scaling_config=scaling(config),
        run_config=run_config,
        torch_config=TorchConfig(backend="nccl" if scale.gpu else "gloo"),
        datasets=feed.names,
        dataset_config=feed,
    )


def course(run: Run) -> Course:
    """What is read for a run: its plan, with its validation clips after the steps that are validated."""
    config, validation = run.job.config, validation_rows(run.job.config, run.job.validation)
    corpus = validation.corpus + np.int16(len(run.prepared.train))  # its manifests follow those of training
    return Course(run.plan, run.job.total, replace(validation, corpus=corpus), config.validate_every)


def _ray_train() -> Any:
    """Ray Train's configs; its types still say V1, what is there is V2."""
    import ray.train

    return ray.train


def scaling(config: RunConfig) -> Any:
    """Ray Train's view of `config.scale`."""
    scale = config.scale
    return _ray_train().ScalingConfig(
        num_workers=scale.workers,
        use_gpu=scale.gpu,
        resources_per_worker={"CPU": scale.cpus_per_worker, **({"GPU": 1} if scale.gpu else {})},
        elastic_resize_monitor_interval_s=scale.resize_interval,
    )


def _begin(place: RunPlace) -> Attempt:
    """Where a group of workers starts, decided in the one process that sets up their streams."""
    return place.checkpoints.begin()
