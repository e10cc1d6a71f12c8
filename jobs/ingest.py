"""Make training-ready shards: `python jobs/ingest.py SOURCE [--corpus NAME] --out TARGET [--field=value ...]`.

TARGET is a folder or s3://bucket/prefix. SOURCE is the folder an owner shipped (with `--corpus`, and `--option
field=value` for how it is read) or a manifest that a reader wrote (.parquet). Started again after any interruption,
the same command goes on where it ended.
"""

from __future__ import annotations

import argparse
import sys

from ssm_platform.base import format_fields, front_door, override, split_assignments
from ssm_platform.corpora import read_corpus
from ssm_platform.ingest import IngestSettings, IngestSummary, on_ray, run
from ssm_platform.records import Manifest


def parse(arguments: list[str]) -> tuple[argparse.Namespace, IngestSettings]:
    """The command line, and the settings it describes."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        epilog=f"fields (--field=value or --set field=value):\n{format_fields(IngestSettings)}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("source", help="an owner's folder, or a manifest (.parquet)")
    parser.add_argument("--corpus", help="name of the corpus, where SOURCE is an owner's folder")
    parser.add_argument("--option", action="append", default=[], help="field=value of the corpus's reader; repeatable")
    parser.add_argument("--out", required=True, help="target: a folder or s3://bucket/prefix")
    known, fields = parser.parse_known_args(arguments)
    return known, override(IngestSettings(), split_assignments(fields))


def source_manifest(known: argparse.Namespace) -> Manifest:
    """The records to ingest, with what their reader had to say on stderr."""
    if known.corpus is None:
        if not known.source.endswith(".parquet"):
            raise ValueError(f"{known.source}: an owner's folder needs --corpus; a manifest ends in .parquet")
        return Manifest.read(known.source)
    options = split_assignments([f"--{option}" for option in known.option])
    reading = read_corpus(known.corpus, known.source, **options)
    if reading.issues:
        print(f"{len(reading.issues)} issues, {reading.lost} of {reading.rows} label rows lost; "
              f"see python jobs/doctor.py {known.source} --corpus {known.corpus}", file=sys.stderr)  # fmt: skip
    return reading.manifest


def ingest(arguments: list[str]) -> IngestSummary:
    """One ingest from its command line, on a cluster that is there or a local one."""
    from ssm_platform.cluster import joined

    known, settings = parse(arguments)
    manifest = source_manifest(known)
    with joined(cpus=1):
        return run(manifest, known.out, settings, on_ray)


def main() -> None:
    try:
        summary = ingest(sys.argv[1:])
    except ValueError as error:
        sys.exit(f"error: {error}")
    print(f"{summary.clips} clips, {summary.frames} frames ({summary.faceless} without a face), "
          f"{len(summary.quarantined)} clips in quarantine")  # fmt: skip
    print(f"manifest: {summary.manifest}")


if __name__ == "__main__":
    front_door(main)
