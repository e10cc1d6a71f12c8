"""Train the frame baseline: `python jobs/frames.py [--recipe NAME|FILE.json] [--field=value ...]`.

An encoder's features of every frame are cached once (beside the shards, or below the runs); heads for expressions, AUs,
valence and arousal then train on them in minutes on a CPU. Started again, the command encodes what is missing.
"""

from __future__ import annotations

import argparse
import sys

from ssm_platform.base import OverrideError, format_fields, front_door, override, split_assignments
from ssm_platform.frames import FRAME_RECIPES, FrameRun, frame_recipe, run_frames


def parse(arguments: list[str]) -> FrameRun:
    """The run that the command line describes."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        epilog=f"recipes: {', '.join(FRAME_RECIPES)}\n\nfields (--field=value or --set field=value):\n"
        f"{format_fields(FrameRun)}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--recipe", default="abaw_frame_tiny", help="recipe, or a JSON file of a run")
    known, fields = parser.parse_known_args(arguments)
    return override(frame_recipe(known.recipe), split_assignments(fields))


def main() -> None:
    try:
        result = run_frames(parse(sys.argv[1:]))
    except (OverrideError, ValueError) as error:
        sys.exit(f"error: {error}")
    print(result.evaluation.summary())
    print(f"smoothing: {result.smoothing.model_dump_json()}")
    for corpus, share in result.videos.items():
        print(f"  {corpus}: {share:.3f} of whole clips right by an SVM on statistics over their frames")
    print(f"report: {result.folder}/report.html")
    if result.version is not None:
        print(f"model: {result.folder}/model, in the registry as {result.version} (alias latest)")
    for note in result.notes:
        print(note)


if __name__ == "__main__":
    front_door(main)
