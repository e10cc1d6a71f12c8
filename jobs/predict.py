"""Read videos: `python jobs/predict.py INPUTS... --out DIR [--model ALIAS|FOLDER] [--field=value ...]`.

INPUTS are video files, pictures, folders of them, or s3:// prefixes. For each input there is a table (CSV or Parquet),
a JSON that says what made it, and on request plots and an overlay video. Started again, it does what is missing.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from ssm_platform.base import format_fields, override, split_assignments
from ssm_platform.read import Outcome, PredictSettings, find_jobs, predict_all, writable


def parse(arguments: list[str]) -> tuple[argparse.Namespace, PredictSettings]:
    """The command line, and the settings it describes."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        epilog=f"fields (--field=value or --set field=value):\n{format_fields(PredictSettings)}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("inputs", nargs="+", help="videos, pictures, folders, s3:// prefixes")
    parser.add_argument("--out", required=True, type=Path, help="folder of the tables")
    parser.add_argument("--uncertainty", action="store_true", help="also AU01_u, how little is known; plots shade it")
    parser.add_argument("--plots", action="store_true", help="also draw timelines")
    parser.add_argument("--overlay", action="store_true", help="also write the video with what was found")
    known, fields = parser.parse_known_args(arguments)
    flags = {name: True for name in ("plots", "overlay", "uncertainty") if getattr(known, name)}
    return known, override(PredictSettings(), {**split_assignments(fields), **flags})


def predict(arguments: list[str]) -> list[Outcome]:
    """One run from its command line, on a cluster that is there or a local one."""
    from tqdm import tqdm

    from ssm_platform.cluster import joined

    known, settings = parse(arguments)
    jobs, out = find_jobs(known.inputs), writable(known.out)
    outcomes = []
    with joined(cpus=settings.cpus * (settings.workers or 1)), tqdm(total=len(jobs), unit="input") as bar:
        for outcome in predict_all(jobs, out, settings):
            outcomes.append(outcome)
            bar.update()
            if outcome.status == "failed":
                bar.write(f"failed: {outcome.reason}", file=sys.stderr)
    return outcomes


def main() -> None:
    try:
        outcomes = predict(sys.argv[1:])
    except ValueError as error:
        sys.exit(f"error: {error}")
    counts = {status: sum(outcome.status == status for outcome in outcomes) for status in ("done", "skipped", "failed")}
    frames = sum(outcome.frames for outcome in outcomes)
    print(f"{counts['done']} done ({frames} frames), {counts['skipped']} done before, {counts['failed']} failed")
    sys.exit(1 if counts["failed"] else 0)


if __name__ == "__main__":
    main()
