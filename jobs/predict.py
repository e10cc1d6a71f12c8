"""Read videos: `python jobs/predict.py INPUTS... --out DIR [--model ALIAS|FOLDER] [--field=value ...]`.

INPUTS are video files, pictures, folders of them, or s3:// prefixes. For each input there is a table (CSV or Parquet),
a JSON that says what made it, and on request plots and an overlay video. Started again, it does what is missing.
`--out -` writes the CSV of one input to standard output. A few inputs are read in this process; many, where cores are
there for them, by workers on Ray (`--ray` asks for that), with the same numbers.
"""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ssm_platform.base import EXIT_CODES, format_fields, front_door, override, split_assignments
from ssm_platform.read import (
    Job,
    Outcome,
    PredictSettings,
    find_jobs,
    predict_all,
    predict_here,
    wants_cluster,
    writable,
    write_csv,
)

STDOUT = Path("-")


def parse(arguments: list[str]) -> tuple[argparse.Namespace, PredictSettings]:
    """The command line, and the settings it describes."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        epilog=f"fields (--field=value or --set field=value):\n{format_fields(PredictSettings)}\n\n{EXIT_CODES}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("inputs", nargs="+", help="videos, pictures, folders, s3:// prefixes")
    parser.add_argument("--out", required=True, type=Path, help="folder of the tables; -: one CSV to standard output")
    parser.add_argument("--uncertainty", action="store_true", help="also AU01_u, how little is known; plots shade it")
    parser.add_argument("--plots", action="store_true", help="also draw timelines, and where each AU was looked for")
    parser.add_argument("--overlay", action="store_true", help="also write the video with what was found")
    parser.add_argument("--blur", action="store_true", help="make the faces in overlays and heat maps unrecognisable")
    parser.add_argument("--ray", action="store_true", help="read on Ray, however few inputs there are")
    parser.add_argument("--quiet", action="store_true", help="say nothing but what failed")
    known, fields = parser.parse_known_args(arguments)
    flags = {name: True for name in ("plots", "overlay", "blur") if getattr(known, name)}
    flags |= {"analysis.uncertainty": True} if known.uncertainty else {}
    return known, override(PredictSettings(), {**split_assignments(fields), **flags})


def predict(arguments: list[str]) -> list[Outcome]:
    """One run from its command line: here, or on a cluster that is there or a local one."""
    from tqdm import tqdm

    known, settings = parse(arguments)
    if known.quiet:
        logging.getLogger().setLevel(logging.ERROR)
    jobs = find_jobs(known.inputs)
    if known.out == STDOUT:
        return [write_csv(jobs, sys.stdout, settings)]
    outcomes = []
    with (
        _outcomes(jobs, writable(known.out), settings, known.ray) as found,
        tqdm(total=len(jobs), unit="input", disable=True if known.quiet else None) as bar,
    ):
        for outcome in found:
            outcomes.append(outcome)
            bar.update()
            if outcome.status == "failed":
                bar.write(f"failed: {outcome.reason}", file=sys.stderr)
    return outcomes


@contextmanager
def _outcomes(jobs: list[Job], out: Path, settings: PredictSettings, ray: bool) -> Iterator[Iterator[Outcome]]:
    from ssm_platform.cluster import joined, will_join

    if not (ray or will_join() or wants_cluster(len(jobs), settings)):
        yield predict_here(jobs, out, settings)
        return
    with joined(cpus=settings.cpus * (settings.workers or 1)):
        yield predict_all(jobs, out, settings)


def main() -> int:
    arguments = sys.argv[1:]
    try:
        outcomes = predict(arguments)
    except ValueError as error:
        sys.exit(f"error: {error}")
    counts = {status: sum(outcome.status == status for outcome in outcomes) for status in ("done", "skipped", "failed")}
    frames = sum(outcome.frames for outcome in outcomes)
    known, _ = parse(arguments)
    if not known.quiet and known.out != STDOUT:
        print(f"{counts['done']} done ({frames} frames), {counts['skipped']} done before, {counts['failed']} failed")
    return 1 if counts["failed"] else 0


if __name__ == "__main__":
    front_door(main)
