"""Train a joint AU and expression model: `python jobs/train.py [--recipe NAME[+MODIFIER...]|FILE.json] [--field=value
...]`.

Without arguments it runs the quickstart: synthetic corpora, a small model, two CPU cores. Started again after any
interruption, the same command goes on where the newest complete checkpoint ends.
"""

from __future__ import annotations

import argparse
import sys

from ssm_platform.base import OverrideError, format_fields, front_door, override, split_assignments
from ssm_platform.runs import MODIFIERS, RECIPES, RunConfig, recipe


def parse(arguments: list[str]) -> tuple[RunConfig, bool]:
    """The config that the command line describes, and whether it is only to be printed."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        epilog=f"recipes: {', '.join(RECIPES)}\nmodifiers: {', '.join(MODIFIERS)}\n\n"
        f"fields (--field=value or --set field=value):\n{format_fields(RunConfig)}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--recipe", default="quickstart", help="recipe, with modifiers after +, or a JSON file")
    parser.add_argument("--print-config", action="store_true", help="print the config as JSON and stop")
    known, fields = parser.parse_known_args(arguments)
    return override(recipe(known.recipe), split_assignments(fields)), known.print_config


def main() -> None:
    try:
        config, print_only = parse(sys.argv[1:])
    except OverrideError as error:
        sys.exit(f"error: {error}")
    if print_only:
        print(config.model_dump_json(indent=2))
        return
    run(config)


def run(config: RunConfig) -> None:
    """Train, evaluate, report, publish; one Ray cluster for all of it."""
    from ssm_platform.cluster import joined
    from ssm_platform.evaluate import assess
    from ssm_platform.runs import cpus_needed
    from ssm_platform.train import TrainingFailed, complete, open_run

    try:
        opened = open_run(config)
        with joined(cpus_needed(config)):
            result = complete(opened)
            print(f"trained {result.steps} steps; best at step {result.best.step} (score {result.best.score:.3f})")
            outcome = assess(result.folder)
    except (ValueError, TrainingFailed) as error:
        sys.exit(f"error: {error}")
    print(outcome.evaluation.summary())
    print(f"report: {outcome.report}")
    print(f"model: {result.folder}/model, in the registry as {outcome.version} (alias latest)")


if __name__ == "__main__":
    front_door(main)
