"""What a sweep costs beside its trials: `python bench/tune.py [--trials 8] [--steps 60] [--storage FOLDER]`.

Runs a sweep of tiny trials on a local cluster of its own and prints what it takes beside their training. Training is
told by the trials' own checkpoints, from the first to the last, stretched to all steps: Ray Train's start-up, which
each trial has again, is not in it. Two ratios: wall time over the trials' own times with their start-up, which is what
the search itself adds, and over their training alone. The corpora are written before the clock starts; making the
shards is inside, and is told apart. Exit code 1 where a trial did not finish or the search adds more than 30 %.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path

from ssm_platform.base.machine import describe_machine
from ssm_platform.base.overrides import override
from ssm_platform.cluster import joined
from ssm_platform.runs.recipes import tiny
from ssm_platform.search.space import parse_space
from ssm_platform.search.sweep import Sweep, SweepConfig

LIMIT = 1.3
MARKERS = "checkpoints/*/complete.json"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=8)
    parser.add_argument("--steps", type=int, default=60, help="of each trial")
    parser.add_argument("--storage", type=Path, help="default: a folder that is removed again")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        good = measure(arguments.trials, arguments.steps, (arguments.storage or Path(scratch)).absolute())
    sys.exit(not good)


def measure(count: int, steps: int, storage: Path) -> bool:
    """Run the sweep and print the ratios; whether they are as they should be."""
    sizes = {"steps": steps, "validate_every": steps, "storage": str(storage), "checkpoint.every": steps // 4}
    sizes["checkpoint.keep"] = 10
    roots = {f"data.corpora.{name}.root": str(storage / "corpora" / name) for name in ("bp4d", "dfew")}
    base = override(tiny(), {**sizes, **roots})
    space = parse_space(["model.mapping.off=log:0.005..0.1"], base)
    sweep = Sweep(base, space, SweepConfig(name="bench", trials=count))
    sweep.check()
    started = time.monotonic()
    with joined(sweep.needed()) as size:
        ready = time.monotonic()
        sweep.ground()
        sharded = time.monotonic()
        trials = sweep.run()
        at_once = sweep.concurrent(size)
    wall, own = time.monotonic() - started, sum(trial.seconds for trial in trials)
    trained = sum(training_time(sweep.folder / "trials" / trial.name, steps) for trial in trials)
    finished = sum(trial.state == "finished" for trial in trials)
    print(describe_machine())
    print(f"{finished} of {count} trials finished, {steps} steps each, {at_once} at a time")
    print(f"cluster {ready - started:.1f} s, shards {sharded - ready:.1f} s, whole sweep {wall:.1f} s")
    print(f"training of the trials {own:.1f} s in sum ({own / count:.1f} s each)")
    print(f"without their start-up {trained:.1f} s: wall / training alone {wall / trained:.2f}")
    verdict = "within" if wall <= LIMIT * own else "OVER"
    print(f"wall / trials with their start-up: {wall / own:.3f} ({verdict} {LIMIT})")
    return finished == count and wall <= LIMIT * own


def training_time(run: Path, steps: int) -> float:
    """Seconds of all steps of a run, by the times of its first and last checkpoints."""
    marks = sorted((json.loads(path.read_text())["step"], path.stat().st_mtime) for path in run.glob(MARKERS))
    (first, begun), (last, ended) = marks[0], marks[-1]
    return float((ended - begun) * steps / (last - first))


if __name__ == "__main__":
    main()
