"""What a sweep costs beside its trials: `python bench/tune.py [--trials 8] [--steps 60] [--storage FOLDER]`.

Runs a sweep of tiny trials on a local cluster of its own and prints its wall time over the sum of the training times of
its trials (Ray Train's start-up included, as `jobs/train.py` has it too). The corpora are written before the clock
starts; making the shards is inside, and is told apart.
"""

from __future__ import annotations

import argparse
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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=8)
    parser.add_argument("--steps", type=int, default=60, help="of each trial")
    parser.add_argument("--storage", type=Path, help="default: a folder that is removed again")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        measure(arguments.trials, arguments.steps, (arguments.storage or Path(scratch)).absolute())


def measure(count: int, steps: int, storage: Path) -> None:
    """Run the sweep and print the ratio."""
    sizes = {"steps": steps, "validate_every": steps // 2, "storage": str(storage), "checkpoint.every": steps}
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
    finished = sum(trial.state == "finished" for trial in trials)
    print(describe_machine())
    print(f"{finished} of {count} trials finished, {steps} steps each, {at_once} at a time")
    print(f"cluster {ready - started:.1f} s, shards {sharded - ready:.1f} s, whole sweep {wall:.1f} s")
    print(f"training of the trials {own:.1f} s in sum ({own / count:.1f} s each)")
    verdict = "within" if wall <= LIMIT * own else "over"
    print(f"wall / training: {wall / own:.3f} ({verdict} {LIMIT})")


if __name__ == "__main__":
    main()
