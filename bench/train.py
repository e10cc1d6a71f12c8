"""What Ray costs a training step: steps/s on Ray Train fed by Ray Data, beside a bare PyTorch loop on cached batches.

    python bench/train.py [--recipe quickstart] [--threads N] [--steps 120] [--rounds 3] [--json FILE]

Both sides run the same model, step and torch threads (the recipe's own number unless told), in turns; ratios are
medians over the rounds. What is timed is `Loop`, as in a run: step, order, progress. The stream is ten times as long
as the window, so decoding goes on beside every step that is timed. The bare loop holds its batches in memory and
decodes nothing: where its threads take every core of the machine, what decoding takes of them is lost on Ray. A second
run over a corpus repeated a hundred times shows whether step time and memory of a worker grow with the corpus, a third
how much slower it is beside one process that keeps a core busy. Exit code 1, and a line for each reason, where the
ratio is below 0.95, either grows by more than 10 %, or the busy process costs more than a factor of 2.5.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ssm.training.collective import SingleProcess
from ssm_platform.base.machine import describe_machine
from ssm_platform.base.overrides import override
from ssm_platform.cluster import joined
from ssm_platform.data.clips import to_batches
from ssm_platform.data.feed import START, ResumingDataConfig
from ssm_platform.data.pace import keep_pace
from ssm_platform.data.plan import Plan
from ssm_platform.data.shared import Shared
from ssm_platform.data.streams import ClipStream
from ssm_platform.data.turns import Course
from ssm_platform.records.manifest import Manifest
from ssm_platform.runs.config import RunConfig
from ssm_platform.runs.preflight import cpus_needed
from ssm_platform.runs.preparation import plan_config, prepare
from ssm_platform.runs.recipes import recipe
from ssm_platform.train.building import make_step, run_reader
from ssm_platform.train.checkpoints import Attempt
from ssm_platform.train.loop import Batch, Loop, Outlets, Position, Schedule

TARGET = 0.95
GROWTH = 1.1  # at most, of step time and of memory, over a corpus a hundred times as large
SLOWDOWN = 2.5  # at most, beside a process that keeps a core busy
WARM = 40  # steps not timed: allocation, the first decoded blocks, Ray's own start, which shares the cores
LONGER = 10  # times the window that the stream is: a shorter one is decoded before the window ends
CACHED = 8  # batches the bare loop goes round
REPEATED = 100


@dataclass(frozen=True)
class Speed:
    """One timed loop."""

    steps_per_second: float
    peak_mib: float


def timed(config: RunConfig, stream: Iterable[Batch], steps: int) -> Speed:
    """Runs the loop for `WARM + steps` steps and times the last `steps` of them."""
    torch.set_num_threads(config.scale.threads_per_worker)
    times = dict[int, float]()
    total, never = WARM + steps, 10**9
    loop = Loop(
        make_step(config, torch.device("cpu"), SingleProcess()),
        Schedule(total, config.data.global_batch, config.tracking.every, never, never),
        Position(),
        lambda model, stream: {"score": 0.0},
        Outlets(progress=lambda done, total, note: times.setdefault(done, time.perf_counter())),
        np.arange(config.data.global_batch),
    )
    loop.run(stream)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return Speed((steps - 1) / (times[total - 1] - times[WARM]), peak)  # the last step ends with a validation


def bare(config: RunConfig, steps: int) -> Speed:
    """The loop without Ray: a few batches, read beforehand, in turn."""
    manifests = prepare(config).train
    plan = Plan.of(manifests, plan_config(config, manifests))
    reader = run_reader(config, manifests)
    size = config.data.global_batch
    cached = [reader.read(plan.rows(number, number + 1).columns()) for number in range(CACHED)]
    pairs = [(columns["sample"], to_batches(columns)[:2]) for columns in cached]

    def stream() -> Iterator[Batch]:
        for number, (samples, (fe, au)) in enumerate(cycle(pairs)):
            yield Batch(np.arange(number * size, (number + 1) * size), samples, fe, au)

    return timed(config, stream(), steps)


def on_ray(config: RunConfig, manifests: list[Manifest], steps: int) -> Speed:
    """The loop on one Ray Train worker, fed by Ray Data as `running` feeds it. Needs a joined cluster."""
    from ray.train import LoggingConfig, ScalingConfig
    from ray.train import RunConfig as RayRunConfig
    from ray.train.torch import TorchConfig, TorchTrainer

    plan = Plan.of(manifests, plan_config(config, manifests))
    stream = ClipStream(Shared(run_reader(config, manifests)), config.data.decode_workers, config.data.decode_cpus)
    feed = ResumingDataConfig(stream, Course(plan, LONGER * (WARM + steps)), partial(Attempt, 0, None))
    keep_pace()
    with tempfile.TemporaryDirectory() as scratch:
        trainer = TorchTrainer(
            partial(_work, config, steps),
            scaling_config=ScalingConfig(num_workers=1, resources_per_worker={"CPU": config.scale.cpus_per_worker}),
            run_config=RayRunConfig(name="bench", storage_path=scratch, logging_config=LoggingConfig("WARNING")),
            torch_config=TorchConfig(backend="gloo"),
            datasets=feed.names,
            dataset_config=feed,
        )
        return Speed(**trainer.fit().return_value)


def _work(config: RunConfig, steps: int) -> dict[str, float]:
    import ray.train

    start = ray.train.get_dataset_shard(START)
    stream = start.batches(ray.train.get_dataset_shard, config.data.prefetch_batches)
    return asdict(timed(config, (Batch(c["row"], c["sample"], *to_batches(c)) for c in stream), steps))


def repeated(manifest: Manifest) -> Manifest:
    """The same records many times over: a large corpus of few files."""
    return manifest.take(np.tile(np.arange(len(manifest)), REPEATED))


@contextmanager
def busy_core() -> Iterator[None]:
    """Another user's process, at the niceness that processes have."""
    process = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    try:
        yield
    finally:
        process.kill()
        process.wait()


def _bare_in_a_process_of_its_own(arguments: argparse.Namespace) -> Speed:
    command = [sys.executable, __file__, "--bare", "--recipe", arguments.recipe, "--steps", str(arguments.steps)]
    command += ["--threads", str(arguments.threads)] if arguments.threads else []
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return Speed(**json.loads(done.stdout.splitlines()[-1]))


def measure(arguments: argparse.Namespace, config: RunConfig) -> dict[str, Any]:
    """All rounds, then the large corpus."""
    manifests = prepare(config).train
    pairs = []
    with joined(cpus_needed(config)):
        for _ in range(arguments.rounds):
            pairs.append((_bare_in_a_process_of_its_own(arguments), on_ray(config, manifests, arguments.steps)))
            print(f"bare {pairs[-1][0]}, on Ray {pairs[-1][1]}", flush=True)
        large = on_ray(config, [repeated(manifest) for manifest in manifests], arguments.steps)
        with busy_core():
            beside = on_ray(config, manifests, arguments.steps)
    quiet = statistics.median(other.steps_per_second for _, other in pairs)
    return {
        "machine": describe_machine(),
        "threads": config.scale.threads_per_worker,
        "bare_steps_per_second": statistics.median(one.steps_per_second for one, _ in pairs),
        "ray_steps_per_second": quiet,
        "slowdown_beside_a_busy_core": quiet / beside.steps_per_second,
        "ratio": statistics.median(other.steps_per_second / one.steps_per_second for one, other in pairs),
        "ratios": [other.steps_per_second / one.steps_per_second for one, other in pairs],
        "records": sum(map(len, manifests)),
        "large_records": REPEATED * sum(map(len, manifests)),
        "large_steps_per_second": large.steps_per_second,
        "peak_mib": statistics.median(other.peak_mib for _, other in pairs),
        "large_peak_mib": large.peak_mib,
    }


def failures(found: Mapping[str, Any]) -> list[str]:
    """What a measurement misses of its targets, one line each."""
    figures = {
        "steps/s on Ray over bare": (found["ratio"], found["ratio"] >= TARGET, f"at least {TARGET}"),
        "step time over the large corpus": _grown(found["ray_steps_per_second"] / found["large_steps_per_second"]),
        "memory over the large corpus": _grown(found["large_peak_mib"] / found["peak_mib"]),
        "slow-down beside a busy core": _at_most(found["slowdown_beside_a_busy_core"], SLOWDOWN),
    }
    return [
        f"FAILED: {name} is {value:.3f}, must be {rule}" for name, (value, good, rule) in figures.items() if not good
    ]


def _at_most(ratio: float, most: float) -> tuple[float, bool, str]:
    return ratio, ratio <= most, f"at most {most}"


def _grown(ratio: float) -> tuple[float, bool, str]:
    return ratio, ratio <= GROWTH, f"at most {GROWTH} of the small one's"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recipe", default="quickstart")
    parser.add_argument("--threads", type=int, help="torch threads of both sides (default: the recipe's)")
    parser.add_argument("--steps", type=int, default=120)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--bare", action="store_true", help="only the bare loop, its speed as JSON")
    arguments = parser.parse_args()
    config = recipe(arguments.recipe)
    if arguments.threads:
        config = override(config, {"scale.threads_per_worker": arguments.threads})
    if arguments.bare:
        print(json.dumps(asdict(bare(config, arguments.steps))))
        return
    found = measure(arguments, config)
    print(json.dumps(found, indent=1))
    if arguments.json:
        arguments.json.write_text(json.dumps(found, indent=1) + "\n")
    missed = failures(found)
    print("\n".join(missed), file=sys.stderr)
    sys.exit(bool(missed))


if __name__ == "__main__":
    main()
