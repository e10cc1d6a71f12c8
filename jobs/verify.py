"""Prove what a run trained on: every sample of its plan used exactly once, across restarts and worker counts.

    python jobs/verify.py runs/quickstart

Replays the plan without pixels and compares it with the digest that the run's checkpoints carry. Exit code: 0 proved,
1 other samples were used.
"""

from __future__ import annotations

import argparse
import sys

from ssm_platform.assessment import run_config
from ssm_platform.checkpoints import Checkpoints
from ssm_platform.order import verify
from ssm_platform.preparation import prepare, training_plan
from ssm_platform.storage import open_storage


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", help="folder or s3:// prefix of a run, finished or not")
    storage = open_storage(parser.parse_args().run)
    try:
        config = run_config(storage)
        checkpoints = Checkpoints(storage)
        newest = checkpoints.newest()
        if newest is None:
            raise ValueError(f"{storage.uri}: no complete checkpoint: nothing to prove yet")
        order = checkpoints.load(newest)["position"]["order"]
        prepared = prepare(config)
        print(verify(training_plan(config, prepared), prepared.train, order))
    except ValueError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
