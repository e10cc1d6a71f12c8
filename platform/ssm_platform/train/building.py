"""From a run's config to what trains: its model, its training step and the readers of its clips. The one place that
builds them, for checks before a run, for workers and for benches.

`python -m ssm_platform.train.building`: a run's config on standard input; on standard output the trained weights of its
model, or why it cannot be built.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import subprocess
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import torch
from torch import nn

from ssm import SSM
from ssm.saved import WEIGHTS
from ssm.training import Collective, TrainConfig, TrainStep, take_over
from ssm_platform.base import text_key
from ssm_platform.data import ClipConfig, ClipReader
from ssm_platform.records import Manifest
from ssm_platform.runs import RunConfig, preflight

LOG = logging.getLogger(__name__)

_PATIENCE = 3600.0  # seconds for building a model; a hub's weights may have to be fetched


def initial_model(config: RunConfig) -> SSM:
    """The model a run starts with: drawn from its seed, then overlaid with the weights of `init_from`."""
    torch.manual_seed(config.seed)
    model = SSM(config.model)
    if config.init_from is not None:
        taken = take_over(model, Path(config.init_from))
        LOG.info("%d tensors taken over from %s", len(taken), config.init_from)
    return model


def start_digest(config: RunConfig) -> str | None:
    """The digest of the weights of `init_from`, None without it. OSError where there are none."""
    if config.init_from is None:
        return None
    with (Path(config.init_from) / WEIGHTS).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def trained_weights(config: RunConfig) -> int:
    """How many weights of the model are trained. Building it shows missing weights and impossible settings before Ray
    starts: `PreflightError`.

    A process of its own builds it: a text tower's libraries take a quarter of a gigabyte, which a driver that had
    imported them would hold to the end of the run.
    """
    done = subprocess.run(
        [sys.executable, "-m", __name__],
        input=config.model_dump_json(),
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        text=True,
        timeout=_PATIENCE,
        check=True,
    )
    answer = json.loads(done.stdout)
    if isinstance(answer, str):
        raise preflight.PreflightError([preflight.Refusal("model or init_from", f"cannot be built: {answer}")])
    return int(answer)


def _weighed(config: RunConfig) -> int | str:
    try:
        model = initial_model(config)
    except (ValueError, OSError) as error:
        return str(error)
    return sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)


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


def step_config(config: RunConfig) -> TrainConfig:
    """`config.train` with its seed mixed with the run's."""
    seed = text_key(f"{config.seed}/{config.train.seed}") % 2**31
    return config.train.model_copy(update={"seed": seed})


def run_reader(config: RunConfig, training: Sequence[Manifest], validation: Sequence[Manifest] = ()) -> ClipReader:
    """Reads what a run reads: training rows with random frames and one random warp a clip, then validation rows, of
    which nothing is random."""
    warps = [config.corpus(manifest.corpus).augmentation for manifest in training]
    clips = ClipConfig(
        frames=config.model.frames,
        preprocessing=config.preprocessing,
        augmentation=(*warps, *[None] * len(validation)),
        decoder=config.data.decoder,
        encoded=config.data.warp == "worker",
    )
    return ClipReader([*training, *validation], config.model.vocabulary, clips)


def _distributed(config: RunConfig, model: nn.Module) -> nn.Module:
    """DDP. It looks for unused parameters where a step lacks a side, so that a head is left out.

    On a CPU always: otherwise DDP rebuilds its buckets after the first step, sums in another order, and a run resumed
    on three workers or more would round differently. On a GPU restarts are equal to rounding anyway.
    """
    device = next(model.parameters()).device
    data = config.data
    whole = data.fe_batch > 0 and data.au_batch > 0 and (data.va_batch > 0 or not config.model.vocabulary.affect)
    return nn.parallel.DistributedDataParallel(
        model,
        device_ids=[device] if device.type == "cuda" else None,
        find_unused_parameters=device.type == "cpu" or not whole,
    )


if __name__ == "__main__":
    print(json.dumps(_weighed(RunConfig.model_validate_json(sys.stdin.read()))))
