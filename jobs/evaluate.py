"""Evaluate a finished run, write its report and publish its model: `python jobs/evaluate.py RUN [--protocol NAME]`.

RUN is the folder (or s3:// prefix) that `jobs/train.py` wrote, for example runs/quickstart. Training ends with this by
itself; run it again for another protocol or another registry.
"""

from __future__ import annotations

import argparse
import sys
from typing import get_args

from ssm_platform.assessment import assess
from ssm_platform.results import Protocol


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", help="folder or s3:// prefix of a finished run")
    parser.add_argument(
        "--protocol", choices=get_args(Protocol), help="default: the protocol the run was trained under"
    )
    parser.add_argument("--registry", help="folder or s3:// prefix of the registry (default: registry beside the run)")
    arguments = parser.parse_args()
    try:
        outcome = assess(arguments.run, arguments.protocol, arguments.registry)
    except ValueError as error:
        sys.exit(f"error: {error}")
    print(outcome.evaluation.summary())
    print(f"report: {outcome.report}")
    print(f"model: {outcome.version} (alias latest)")


if __name__ == "__main__":
    main()
