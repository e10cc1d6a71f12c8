"""What one Ray Train worker does: builds model, step and loop from a `Job`, resumes, and trains to the end.

Thin by intent: `loop.Loop` trains, `validation.Validation` validates, `checkpoints.Writer` writes. This module only
ties them to Ray Train's context (rank, device, stream, report) and to `torch.distributed`.
"""

from __future__ import annotations

import logging
import socket
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from typing import Any

import torch

from ssm.training import Collective, ProcessGroup, SingleProcess, TrainStep
from ssm_platform.data import START, Columns, PixelMaker, Quarantine, Shares, Turns, to_batches
from ssm_platform.runs import DataConfig
from ssm_platform.train.ahead import ahead
from ssm_platform.train.broadcast import broadcast
from ssm_platform.train.building import make_step, start_digest
from ssm_platform.train.checkpoints import Attempt, CheckpointError, Checkpoints, Writer
from ssm_platform.train.endings import RunEnded, may_pass
from ssm_platform.train.loop import Batch, Loop, Outlets, Position, Schedule
from ssm_platform.train.place import Job
from ssm_platform.train.progress import Reporter, heralded
from ssm_platform.train.tracking import Origin, Trackers
from ssm_platform.train.validation import Validation, validation_rows

LOG = logging.getLogger(__name__)


def work(job: Job) -> None:
    """Ray Train's per-worker function. Raises `RunEnded` for what no restart would mend."""
    try:
        with heralded(job.board):
            _work(job)
    except (ValueError, OSError) as error:
        if may_pass(error):
            raise
        raise RunEnded(str(error)) from error


def _work(job: Job) -> None:
    import ray.train
    from ray.train.torch import get_device

    config = job.config
    torch.set_num_threads(config.scale.threads_per_worker)
    logging.getLogger().setLevel(logging.WARNING)  # Ray Train tells of every report
    context = ray.train.get_context()
    collective: Collective = ProcessGroup() if context.get_world_size() > 1 else SingleProcess()
    _check_start(job)
    start: Any = ray.train.get_dataset_shard(START)  # what was decided once, for the stream and all workers
    attempt: Attempt = start.begun
    step = make_step(config, get_device(), collective)
    places = start.shares.places[collective.rank]
    loop = Loop(step, schedule(job), Position(), validation(job, step, start.shares), Outlets(), places)
    checkpoints = job.place.checkpoints
    _resume(loop, checkpoints, attempt, job.fingerprint)
    stream = start.batches(ray.train.get_dataset_shard, config.data.prefetch_batches)
    if start.clips.encoded:
        stream = map(PixelMaker(start.clips, step.device, config.scale.threads_per_worker), stream)
    _run(loop, job, checkpoints, attempt, ahead(typed(stream, start.turns, config.data), step.device))


def _check_start(job: Job) -> None:
    """ValueError where this node holds other weights under `init_from` than the driver's, or none."""
    try:
        mine = start_digest(job.config)
    except OSError as error:
        raise ValueError(f"init_from on {socket.gethostname()}: {error}: every node must see that folder") from error
    if mine != job.start:
        where = f"{job.config.init_from} on {socket.gethostname()}"
        raise ValueError(f"init_from: {where} holds other weights than the driver's")


def schedule(job: Job) -> Schedule:
    """When a run validates, logs and writes checkpoints."""
    config = job.config
    return Schedule(
        total=job.total,
        global_batch=config.data.global_batch,
        log_every=config.tracking.every,
        validate_every=config.validate_every,
        checkpoint_every=config.checkpoint.every,
    )


def validation(job: Job, step: TrainStep, shares: Shares) -> Validation:
    """Validation while training, on this worker's share."""
    config = job.config
    return Validation(
        manifests=job.validation,
        rows=validation_rows(config, job.validation),
        shares=shares,
        vocabulary=config.model.vocabulary,
        preprocessing=config.preprocessing,
        collective=step.collective,
        device=step.device,
        precision=config.train.precision,
    )


def _resume(loop: Loop, checkpoints: Checkpoints, attempt: Attempt, fingerprint: str) -> None:
    """Loads the checkpoint that this attempt starts from: read by the first worker, who sends it to the others."""
    marker = attempt.start
    if marker is None:
        return
    if marker.fingerprint != fingerprint:
        raise CheckpointError(f"{marker.folder} belongs to another run; choose another name")
    collective = loop.step.collective
    state: Any = checkpoints.load(marker) if collective.rank == 0 else None
    loop.load(broadcast(state, loop.step.device) if collective.world > 1 else state)


def typed(stream: Iterator[Columns], turns: Turns, data: DataConfig) -> Iterator[Batch]:
    """The batches of each turn; clips without pixels are told of once, and too many end the run."""
    training, validating = Quarantine(), Quarantine()
    judged: set[int] = set()  # validation clips come again at every validation, and count once
    for number, columns in enumerate(stream):
        turn = turns.at(number)
        if turn is not None and turn.round is not None:
            new = [row not in judged for row in columns["row"].tolist()]
            _warn(validating.check({name: columns[name][new] for name in ("row", "problem")}))
            judged.update(columns["row"].tolist())
        else:
            _warn(training.check(columns))
        fe, au, va = to_batches(columns)
        yield Batch(
            columns["row"],
            columns["sample"],
            None if fe is None else replace(fe, whole=data.fe_batch),
            None if au is None else replace(au, whole=data.au_batch),
            None if va is None else replace(va, whole=data.va_batch),
        )


def _warn(problems: list[str]) -> None:
    for problem in problems:
        LOG.warning("clip without pixels: %s", problem)


def _run(loop: Loop, job: Job, checkpoints: Checkpoints, attempt: Attempt, stream: Iterator[Batch]) -> None:
    """Trains with outlets: the first worker logs and writes, all of them report."""
    import ray.train

    if loop.step.collective.rank != 0:
        loop.outlets = Outlets(report=ray.train.report)
        loop.run(stream)
        return
    trackers = Trackers.of(
        job.config, job.place.events(job.fingerprint), loop.position.done, Origin(job.folder, job.fingerprint)
    )
    writer = Writer(checkpoints, job.fingerprint, attempt.number)
    loop.outlets = Outlets(trackers.log, writer.submit, Reporter(job.board), ray.train.report)
    with ExitStack() as ending:  # the last one first
        ending.callback(_upload_events, job)
        ending.push(lambda kind, *_: trackers.close(failed=kind is not None))
        ending.callback(writer.close)
        loop.run(stream)


def _upload_events(job: Job) -> None:
    """TensorBoard writes to local folders only: event files of a run in an object store are copied there at the end."""
    if job.place.remote:
        folder, storage = job.place.events(job.fingerprint), job.place.storage
        for file in sorted(folder.glob("tensorboard/*")):
            storage.write(f"tensorboard/{file.name}", file.read_bytes())
