"""What a training step costs per clip here, and what that predicts: `python bench/scaling.py [--recipe quickstart]`.

Measures the costs of `ssm_platform.cluster.simulator.Costs` one by one on this machine (decode, driver, compute per
clip and per step, spread, bytes), predicts the throughput of 1 and of 2 workers from them, and compares with runs on
Ray Train in the same minutes. Workers of one machine share its memory and caches and exchange gradients, so a step's
costs are measured in a group of as many processes as there are workers, without Ray. The driver's cost is the CPU time
for a block of the one process in which Ray Data's executor runs. Then predicts 8, 64 and 512 GPUs for the published
recipe from `PUBLISHED`, which is assumed but for the driver's time. `--driver` measures and predicts only that.
Exit code 1 where a prediction for one or two workers is more than 10 % off.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import torch
import torch.distributed as dist

from ssm.interface.preprocessing import Preprocessing
from ssm.training.batch import AUBatch, FEBatch
from ssm.training.collective import Collective, ProcessGroup, SingleProcess
from ssm_platform.base.machine import describe_machine
from ssm_platform.base.overrides import override
from ssm_platform.cluster import joined
from ssm_platform.cluster.simulator import Costs, Fleet, Prediction, simulate
from ssm_platform.data.clips import ClipConfig, ClipReader, Columns, to_batches
from ssm_platform.data.pace import keep_pace
from ssm_platform.data.shared import Shared
from ssm_platform.data.streams import ClipStream, batches, steps_of_block
from ssm_platform.runs.config import RunConfig
from ssm_platform.runs.preparation import prepare, training_plan
from ssm_platform.runs.recipes import recipe
from ssm_platform.train.building import initial_model, make_step, run_reader

Pair = tuple[FEBatch | None, AUBatch | None]
TRAIN = Path(__file__).resolve().parents[1] / "jobs" / "train.py"
FLEETS = (8, 64, 512)
FURTHEST = 0.1  # that a prediction may be off
CORES_PER_GPU = 15  # of a g6.4xlarge, one left to the system

PUBLISHED = Costs(
    decode_s=0.030, driver_s=1e-4, compute_s=0.045, step_s=0.030, spread=0.03, gradient_bytes=4 * 97e6,
    checkpoint_bytes=16 * 97e6, clip_bytes=16 * 224 * 224 * 3, shard_bytes=16 * 12e3, requests=2.0,
    mixup_bytes=8 * 16 * 224 * 224 * 3,
)  # fmt: skip
BLOCK_CLIPS = 40  # of the published recipe: two steps
"""ASSUMED costs of CLIP ViT-B/16 with experts, 16 frames of 224 pixels, bfloat16, on an L4: 97 M trained weights,
16 x 17.6 GFLOP x 3 a clip at 20 TFLOP/s reached; decoding 16 JPEG crops of 12 kB at 2 ms a frame; the driver's time per
clip is replaced by the one measured here. Each clip is two requests to the object store (its shard's table is rarely in
a process's memory), one after the other; each AU clip of a step takes in its partner's pixels, as bytes."""


@dataclass(frozen=True)
class Comparison:
    """Predicted beside measured throughput of one number of workers, in clips per second."""

    workers: int
    predicted: float
    measured: float

    def __str__(self) -> str:
        error = f"{self.predicted / self.measured - 1:+.0%}"
        return f"workers {self.workers}: predicted {self.predicted:.1f} clips/s, measured {self.measured:.1f} ({error})"


def crowded_costs(name: str, steps: int, workers: int) -> Costs:
    """Costs as the `workers` processes of one group see them, on this machine at the same time: means over them."""
    with tempfile.TemporaryDirectory() as place, multiprocessing.get_context("spawn").Pool(workers) as pool:
        meeting = f"{place}/meeting"
        tasks = [(name, steps, rank, workers, meeting) for rank in range(workers)]
        found = pool.starmap(measure_costs, tasks, chunksize=1)
    return Costs(**{field: statistics.mean(getattr(one, field) for one in found) for field in Costs.model_fields})


def measure_costs(name: str, steps: int, rank: int, workers: int, meeting: str) -> Costs:
    """Each cost by itself, on one thread; medians over `steps`. A step exchanges gradients where there are workers."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{meeting}", rank=rank, world_size=workers)
    config = base_config(name)
    prepared = prepare(config)
    plan = training_plan(config, prepared)
    reader = run_reader(config, prepared.train)
    shares = plan.config.shares(workers)
    mine, size = (shares.places[rank], shares.tasks[rank]), shares.slots
    decode, read = [], []
    for number in range(steps):
        started = time.perf_counter()
        read.append(reader.read(plan.rows(number, number + 1).filled(*mine).columns()))
        decode.append((time.perf_counter() - started) / size)
    pairs = [to_batches(columns)[:2] for columns in read]
    group: Collective = ProcessGroup() if workers > 1 else SingleProcess()
    whole, half = (step_times(config, some, group) for some in (pairs, [halved(*pair) for pair in pairs]))
    per_clip = max(statistics.median(whole) - statistics.median(half), 1e-6) / (size - size // 2)
    weights = sum(p.numel() for p in initial_model(config).parameters() if p.requires_grad)
    return Costs(
        decode_s=statistics.median(decode),
        driver_s=0.0,  # measured by itself, on Ray
        compute_s=per_clip,
        step_s=max(statistics.median(whole) - size * per_clip, 0.0),
        spread=min(float(np.std(np.log(whole))), 0.99),
        gradient_bytes=4 * weights,
        checkpoint_bytes=16 * weights,
        clip_bytes=read[0]["clip"].nbytes / size,
        shard_bytes=read[0]["clip"].nbytes / size / 20,  # JPEG at about a twentieth; local here, so of no weight
    )


def base_config(name: str) -> RunConfig:
    """The recipe with one thread a worker, as everything here runs it."""
    return override(recipe(name), {"scale.threads_per_worker": 1})


def step_times(config: RunConfig, pairs: list[Pair], group: Collective) -> list[float]:
    """Seconds of each training step over these batches, the first two left out."""
    step, times = make_step(config, torch.device("cpu"), group), []
    for number, (fe, au) in enumerate(pairs):
        started = time.perf_counter()
        step(fe, au, number, len(pairs))
        times.append(time.perf_counter() - started)
    return times[2:]


def halved(*sides: Any) -> Pair:
    """The first half of each side."""
    halves = [
        None if side is None else replace(side, **{name: value[: len(value) // 2] for name, value in _tensors(side)})
        for side in sides
    ]
    return halves[0], halves[1]


def _tensors(side: Any) -> list[tuple[str, torch.Tensor]]:
    return [(name, value) for name, value in vars(side).items() if torch.is_tensor(value)]


class Blank(ClipReader):
    """Clips that cost nothing to read, so that what is left is Ray Data's."""

    def read(self, rows: Mapping[str, np.ndarray]) -> Columns:
        return self._blank(rows)


def block_time(config: RunConfig, blocks: int = 400) -> float:
    """CPU seconds for a block of the one process that hands blocks out, whatever the fleet. Needs a joined cluster.

    Blocks are empty: decode processes and workers, of which there may be more, have costs of their own.
    """
    prepared = prepare(config)
    plan = training_plan(config, prepared)
    small = ClipConfig(frames=1, preprocessing=Preprocessing(image_size=16))
    stream = ClipStream(Shared(Blank(prepared.train, config.model.vocabulary, small)), os.cpu_count() or 1, 1.0)
    keep_pace()
    together = stream.steps_per_block(plan.config.global_batch)
    (shard,) = stream.split(plan, 0, blocks * together, 1)
    spent = []
    for taken, _ in enumerate(batches(shard, plan.config.global_batch), start=1):
        if taken in (blocks // 4 * together, blocks * together):
            spent.append(_executor_seconds())
    return (spent[1] - spent[0]) / (blocks - blocks // 4)


def _executor_seconds() -> float:
    """CPU time so far of Ray Data's executor, which runs in the actor that splits its stream."""
    family = psutil.Process().children(recursive=True)
    (found,) = (one for one in family if one.cmdline()[:1] and one.cmdline()[0].startswith("ray::SplitCoordinator"))
    return float(found.cpu_times().user + found.cpu_times().system)


def predict_here(costs: Costs, config: RunConfig, workers: int, cores: int) -> float:
    """Clips/s of `workers` on one machine. Where they fill its cores, decoding takes its time from one of them after
    the other, and the rest of the group waits: it is added to the step."""
    size = config.data.global_batch
    fleet = Fleet(
        workers=workers,
        decode_cores=config.data.decode_workers,
        clips_per_worker=size // workers,
        overlap=1.0,
        checkpoint_every=config.checkpoint.every,
    )  # fmt: skip  (overlap: the exchange is in the step that was measured)
    apart = simulate(costs, fleet).clips_per_s
    if workers < cores:
        return apart
    step = costs.step_s + fleet.clips_per_worker * costs.compute_s
    return min(apart, size / (step + size * (costs.decode_s + costs.driver_s)))


def measure_run(name: str, batch: int, workers: int, steps: int) -> float:
    """Clips/s of a run on Ray Train by its own command, from the times of its checkpoints, so without its start."""
    every = max(steps // 6, 1)
    with tempfile.TemporaryDirectory() as place:
        fields = {
            "name": "scaling", "storage": place, "steps": steps, "validate_every": steps, "checkpoint.every": every,
            "checkpoint.keep": 1000, "scale.workers": workers, "scale.cpus_per_worker": 1.0 / workers,
            "scale.threads_per_worker": 1,
        }  # fmt: skip
        words = [f"--recipe={name}", *(f"--{key}={value}" for key, value in fields.items())]
        subprocess.run([sys.executable, str(TRAIN), *words], check=True, capture_output=True)
        marks = sorted(Path(place, "scaling", "checkpoints").glob("*/complete.json"), key=lambda path: path.parent.name)
        times = [mark.stat().st_mtime for mark in marks[:-1]]  # the last follows a validation
    return (len(times) - 1) * every * batch / (times[-1] - times[0])


def fleets(driver_s: float) -> dict[int, Prediction]:
    """The published recipe on ever larger fleets: 20 clips a worker, spot machines, whose price includes the cores."""
    costs = PUBLISHED.model_copy(update={"driver_s": driver_s})
    return {
        gpus: simulate(
            costs,
            Fleet(
                workers=gpus,
                decode_cores=CORES_PER_GPU * gpus,
                clips_per_worker=20,
                lost_per_hour=0.05,
                core_price=0.0,
            ),
        )
        for gpus in FLEETS
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recipe", default="quickstart")
    parser.add_argument("--steps", type=int, default=60, help="steps of each measurement")
    parser.add_argument("--driver", action="store_true", help="only the driver's cost and the fleets")
    arguments = parser.parse_args()
    config = base_config(arguments.recipe)
    prepare(config)  # synthetic corpora are written once, by one process
    print(describe_machine())
    with joined(2.0 + (os.cpu_count() or 1)):
        block_s = block_time(config)
    share = config.data.global_batch
    clip = config.model.frames * config.model.backbone.image_size**2 * 3
    here = share * steps_of_block(share, clip)
    print(
        f"a block costs the executor {1e3 * block_s:.1f} ms: {1e3 * block_s / here:.3f} ms a clip of {arguments.recipe}"
    )
    off = []
    for workers in () if arguments.driver else (1, 2):
        costs = crowded_costs(arguments.recipe, arguments.steps, workers)
        costs = costs.model_copy(update={"driver_s": block_s / here})
        print(f"costs of {arguments.recipe} where {workers} work at a time: {costs.model_dump_json(indent=1)}")
        predicted = predict_here(costs, config, workers, os.cpu_count() or 1)
        measured = measure_run(arguments.recipe, config.data.global_batch, workers, arguments.steps)
        print(Comparison(workers, predicted, measured), flush=True)
        off.append(abs(predicted / measured - 1))
    print("predicted, published recipe; ASSUMED costs, see PUBLISHED; driver's time as measured here:")
    for gpus, found in fleets(block_s / BLOCK_CLIPS).items():
        shares = ", ".join(f"{part} {share:.0%}" for part, share in found.shares.items() if share >= 0.005)
        print(
            f"{gpus} GPUs: {found.clips_per_s:.0f} clips/s, {found.dollars_per_million_clips:.0f} $ per million clips, "
            f"efficiency {found.efficiency:.0%}; first limit: {found.bottleneck} ({shares})"
        )
    return int(any(error > FURTHEST for error in off))


if __name__ == "__main__":
    sys.exit(main())
