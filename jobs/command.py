"""The commands of SSM Platform: `ssm-platform COMMAND ...`; `ssm-platform COMMAND --help` tells each.

Each is the script of that name in jobs/, so `ssm-platform predict clip.mp4 --out results` and `python jobs/predict.py
clip.mp4 --out results` are the same function.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from importlib import import_module
from importlib.metadata import version

from ssm_platform.base import EXIT_CODES, front_door

COMMANDS: Mapping[str, str] = {
    "predict": "read videos and pictures into tables",
    "fit-rule": "fit a saved model's thresholds and vote on labelled clips",
    "deploy": "serve a model over HTTP, with its page",
    "train": "train a model",
    "evaluate": "score a finished run, write its report, publish its model",
    "frames": "train the frame baseline: cached features, small heads",
    "tune": "search over recipes and fields",
    "verify": "prove which samples a run used",
    "doctor": "say whether a corpus can be used, and what is wrong with it",
    "ingest": "cut a corpus into shards of face crops",
    "synthesize": "draw a corpus of synthetic faces, or a sample video",
    "quickstart": "from nothing to a model that can be served",
    "import-released": "turn a released checkpoint into a saved model",
    "count-prior": "count how often action units go with expressions",
    "ship": "put a model into the package",
    "manifests": "write the files that describe a cluster",
}
"""What can be asked for, by its name; its module has underscores for hyphens."""


def parse(arguments: list[str]) -> tuple[str, list[str]]:
    """The command, and its own arguments."""
    width = max(map(len, COMMANDS))
    parser = argparse.ArgumentParser(
        prog="ssm-platform",
        description=__doc__,
        epilog="\n".join(
            ["commands:", *(f"  {name:{width}}  {what}" for name, what in COMMANDS.items()), "", EXIT_CODES]
        ),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=version("ssm-platform"))
    parser.add_argument("command", metavar="COMMAND", choices=COMMANDS)
    parser.add_argument("arguments", nargs=argparse.REMAINDER, metavar="...")
    known = parser.parse_args(arguments)
    return known.command, known.arguments


def run(arguments: list[str]) -> int | None:
    """One command from its command line."""
    name, rest = parse(arguments)
    main = import_module(f"jobs.{name.replace('-', '_')}").main
    sys.argv = [f"ssm-platform {name}", *rest]
    code: int | None = main()
    return code


def main() -> None:
    """What `ssm-platform` calls."""
    front_door(lambda: run(sys.argv[1:]))


if __name__ == "__main__":
    main()
