"""What one Ray Train worker does: builds model, step and loop from a `Job`, resumes, and trains to the end.

Thin by intent: `loop.Loop` trains, `validation.Validation` validates, `checkpoints.Writer` writes. This module only
ties them to Ray Train's context (rank, device, stream, report) and to `torch.distributed`.
"""

from __future__ import annotations

import hashlib
import logging
import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import nn

from ssm import SSM
from ssm.training import Collective, ProcessGroup, SingleProcess, TrainConfig, TrainStep, take_over
from ssm_platform.base import Storage, StorageSettings, open_storage, text_key
from ssm_platform.data import STREAM, ClipConfig, ClipReader, Quarantine, Rows, batches, evaluation_rows, to_batches
from ssm_platform.records import Manifest
from ssm_platform.runs import RunConfig
from ssm_platform.train.ahead import ahead
from ssm_platform.train.checkpoints import CheckpointError, Checkpoints, Writer
from ssm_platform.train.endings import RunEnded, may_pass
from ssm_platform.train.loop import Batch, Loop, Outlets, Position, Schedule
from ssm_platform.train.progress import Reporter
from ssm_platform.train.tracking import Origin, Trackers
from ssm_platform.train.validation import Validation, spread

LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class Job:
    """What the driver hands to every worker."""

    config: RunConfig
    folder: str  # of the run, absolute or an s3:// prefix
    fingerprint: str  # of mathematics and data together
    total: int  # steps
    validation: Sequence[Manifest]
    board: Any = None  # the progress bar's actor


def run_storage(config: RunConfig, folder: str) -> Storage:
    """The storage of the run in `folder`, as patient as the run is to be."""
    return open_storage(folder, StorageSettings(deadline_s=config.checkpoint.deadline))


def run_checkpoints(config: RunConfig, folder: str) -> Checkpoints:
    """The checkpoints of the run in `folder`."""
    return Checkpoints(run_storage(config, folder), config.checkpoint.keep, config.checkpoint.deadline)


def work(job: Job) -> None:
    """Ray Train's per-worker function. Raises `RunEnded` for what no restart would mend."""
    try:
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
    step = make_step(config, get_device(), collective)
    checkpoints = run_checkpoints(config, job.folder)
    loop = Loop(step, schedule(job), Position(), validation(job, step), Outlets())
    _resume(loop, checkpoints, job.fingerprint)
    stream = batches(
        ray.train.get_dataset_shard(STREAM),
        config.data.global_batch // collective.world,
        config.data.prefetch_batches,
    )
    _run(loop, job, checkpoints, ahead(_typed(stream), step.device))


def make_step(config: RunConfig, device: torch.device, collective: Collective) -> TrainStep:
    """Model and training step of a run; wrapped in DDP where there are peers."""
    return TrainStep(
        initial_model(config),
        step_config(config),
        device=device,
        wrap=partial(_distributed, config) if collective.world > 1 else lambda module: module,
        collective=collective,
        preprocessing=config.preprocessing,
    )


def initial_model(config: RunConfig) -> SSM:
    """The model a run starts with: drawn from its seed, then overlaid with the weights of `init_from`."""
    torch.manual_seed(config.seed)
    model = SSM(config.model)
    if config.init_from is not None:
        taken = take_over(model, Path(config.init_from))
        LOG.info("%d tensors taken over from %s", len(taken), config.init_from)
    return model


def step_config(config: RunConfig) -> TrainConfig:
    """`config.train` with its seed mixed with the run's."""
    seed = text_key(f"{config.seed}/{config.train.seed}") % 2**31
    return config.train.model_copy(update={"seed": seed})


def training_reader(config: RunConfig, manifests: Sequence[Manifest]) -> ClipReader:
    """Reads training rows: random frames, one random warp per clip."""
    augmentations = tuple(config.corpus(manifest.corpus).augmentation for manifest in manifests)
    return ClipReader(manifests, config.model.vocabulary, _clip_config(config, augmentation=augmentations))


def evaluation_reader(config: RunConfig, manifests: Sequence[Manifest]) -> ClipReader:
    """Reads evaluation rows: nothing random."""
    return ClipReader(manifests, config.model.vocabulary, _clip_config(config, augmentation=None))


def _clip_config(config: RunConfig, augmentation: Any) -> ClipConfig:
    return ClipConfig(
        frames=config.model.frames,
        preprocessing=config.preprocessing,
        augmentation=augmentation,
        decoder=config.data.decoder,
    )


def _distributed(config: RunConfig, model: nn.Module) -> nn.Module:
    """DDP. It looks for unused parameters where a step lacks a side, so that a head is left out.

    On a CPU always: otherwise DDP rebuilds its buckets after the first step, sums in another order, and a run resumed
    on three workers or more would round differently. On a GPU restarts are equal to rounding anyway.
    """
    device = next(model.parameters()).device
    whole = config.data.fe_batch > 0 and config.data.au_batch > 0
    return nn.parallel.DistributedDataParallel(
        model,
        device_ids=[device] if device.type == "cuda" else None,
        find_unused_parameters=device.type == "cpu" or not whole,
    )


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


def validation(job: Job, step: TrainStep) -> Validation:
    """Validation while training, on this worker's share."""
    config = job.config
    reader, quarantine = evaluation_reader(config, job.validation), Quarantine()
    judged: set[int] = set()  # clips come again at every validation, and count once

    def read(rows: Rows) -> Any:
        columns = reader.read(rows.columns())
        new = [row not in judged for row in columns["row"].tolist()]
        _warn(quarantine.check({name: columns[name][new] for name in ("row", "problem")}))
        judged.update(columns["row"].tolist())
        return to_batches(columns)

    return Validation(
        manifests=job.validation,
        rows=spread(evaluation_rows(job.validation, config.model.frames), config.validation_clips),
        vocabulary=config.model.vocabulary,
        read=read,
        preprocessing=config.preprocessing,
        collective=step.collective,
        device=step.device,
        precision=config.train.precision,
    )


def _resume(loop: Loop, checkpoints: Checkpoints, fingerprint: str) -> None:
    """Loads the newest checkpoint. The first worker drops damaged ones before the others look."""
    rank, world = loop.step.collective.rank, loop.step.collective.world
    found = checkpoints.resume() if rank == 0 else None
    if world > 1:
        dist.barrier()
        found = found if rank == 0 else checkpoints.resume()
    if found is None:
        return
    marker, state = found
    if marker.fingerprint != fingerprint:
        raise CheckpointError(f"{marker.folder} belongs to another run; choose another name")
    loop.load(state)


def _typed(stream: Iterator[dict[str, Any]]) -> Iterator[Batch]:
    quarantine = Quarantine()
    for columns in stream:
        _warn(quarantine.check(columns))
        fe, au = to_batches(columns)
        yield Batch(columns["row"], columns["sample"], fe, au)


def _warn(problems: list[str]) -> None:
    for problem in problems:
        LOG.warning("clip without pixels: %s", problem)


def _run(loop: Loop, job: Job, checkpoints: Checkpoints, stream: Iterator[Batch]) -> None:
    """Trains with outlets: the first worker logs and writes, all of them report."""
    import ray.train

    if loop.step.collective.rank != 0:
        loop.outlets = Outlets(report=ray.train.report)
        loop.run(stream)
        return
    trackers = Trackers.of(job.config, _local_folder(job), loop.position.done, Origin(job.folder, job.fingerprint))
    writer = Writer(checkpoints, job.fingerprint)
    loop.outlets = Outlets(trackers.log, writer.submit, Reporter(job.board), ray.train.report)
    with ExitStack() as ending:  # the last one first
        ending.callback(_upload_events, job)
        ending.push(lambda kind, *_: trackers.close(failed=kind is not None))
        ending.callback(writer.close)
        loop.run(stream)


def _local_folder(job: Job) -> Path:
    """Where this process may write event files: the run's folder, or a local one where that is an object store.

    The same one after a restart on this machine, and no other run's or user's: what lies there is uploaded whole.
    """
    if "://" not in job.folder:
        return Path(job.folder)
    digest = hashlib.sha256(f"{job.folder}/{job.fingerprint}".encode()).hexdigest()[:16]
    return Path(tempfile.gettempdir()) / f"ssm-{os.getuid()}" / digest


def _upload_events(job: Job) -> None:
    """TensorBoard writes to local folders only: event files of a run in an object store are copied there at the end."""
    if "://" in job.folder:
        folder, storage = _local_folder(job), run_storage(job.config, job.folder)
        for file in sorted(folder.glob("tensorboard/*")):
            storage.write(f"tensorboard/{file.name}", file.read_bytes())
