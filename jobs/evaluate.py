"""Evaluate a finished run, write its report and publish its model: `python jobs/evaluate.py RUN [--protocol NAME]
[--people FILE.csv [--groups COLUMN ...]] [--risk SHARE] [--blur] [--field=value ...]`.

RUN is the folder (or s3:// prefix) that `jobs/train.py` wrote, for example runs/quickstart. Training ends with this by
itself; run it again for the published protocol (which publishes no model), for another registry, or on another machine:
fields of the run that leave its numbers alone can be set (--scale.gpu=false, --data.corpora.dfew.root=/data/dfew).
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import get_args

from ssm_platform.base import front_door, split_assignments
from ssm_platform.evaluate import EvaluationProtocol, assess, read_people


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("run", help="folder or s3:// prefix of a finished run")
    parser.add_argument(
        "--protocol",
        choices=get_args(EvaluationProtocol),
        help="published, published_per_au, or the protocol the run was trained under (default)",
    )
    parser.add_argument("--registry", help="folder or s3:// prefix of the registry (default: registry beside the run)")
    parser.add_argument(
        "--risk", type=float, help="share of wrong AU answers wanted; fits when to abstain (evidential models)"
    )
    parser.add_argument("--people", type=Path, help="CSV: a column subject, perhaps corpus, and one per attribute")
    parser.add_argument("--groups", nargs="+", default=[], help="columns of --people to judge by (default: all)")
    parser.add_argument("--blur", action="store_true", help="make the faces in the report unrecognisable")
    arguments, fields = parser.parse_known_args()
    if arguments.groups and not arguments.people:
        parser.error("--groups names columns of the file that --people gives: give both")
    try:
        people = read_people(arguments.people, arguments.groups) if arguments.people else None
        changes = split_assignments(fields)
        outcome = assess(
            arguments.run,
            arguments.protocol,
            arguments.registry,
            changes,
            people,
            risk=arguments.risk,
            blur=arguments.blur,
        )
    except ValueError as error:
        sys.exit(f"error: {error}")
    print(outcome.evaluation.summary())
    print(f"report: {outcome.report}")
    if outcome.version is not None:
        print(f"model: {outcome.version} (alias latest)")


if __name__ == "__main__":
    front_door(main)
