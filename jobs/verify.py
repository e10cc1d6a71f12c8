"""Prove what a run trained on: every sample of its plan used exactly once, across restarts and worker counts.

    python jobs/verify.py runs/quickstart

Replays the plan without pixels and compares it with the digest that the run's newest checkpoint carries. Exit code: 0
proved, 1 other samples were used, 2 could not be checked (no run or checkpoint there, data that cannot be read).
"""

from __future__ import annotations

import argparse
import sys

from ssm_platform.base import front_door, open_storage
from ssm_platform.data import OrderError, Verdict, verify
from ssm_platform.evaluate import run_config
from ssm_platform.runs import prepare, training_plan
from ssm_platform.train import Checkpoints

OTHER_SAMPLES, NOT_CHECKED = 1, 2


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", help="folder or s3:// prefix of a run, finished or not")
    run = parser.parse_args().run
    try:
        print(proof(run))
    except OrderError as error:
        print(f"error: {run}: {error}", file=sys.stderr)
        sys.exit(OTHER_SAMPLES)
    except (ValueError, OSError) as error:
        print(f"error: could not check: {error}", file=sys.stderr)
        sys.exit(NOT_CHECKED)


def proof(run: str) -> Verdict:
    """What was proved. `OrderError` where other samples were used, another ValueError where nothing can be said."""
    storage = open_storage(run)
    config = run_config(storage)
    checkpoints = Checkpoints(storage)
    newest = checkpoints.newest_intact()
    if newest is None:
        raise ValueError(f"{storage.uri}: no complete checkpoint: nothing to prove yet")
    order = checkpoints.load(newest)["position"]["order"]
    prepared = prepare(config)
    return verify(training_plan(config, prepared), prepared.train, order)


if __name__ == "__main__":
    front_door(main)
