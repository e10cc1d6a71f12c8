"""Search over fields of a recipe: `python jobs/tune.py --vary model.text.style=facs,label [--field=value ...]`.

    --vary model.mapping.off=log:0.005..0.1      a range; field=a,b,c are choices; repeatable
    --space space.yaml                           the same as a file

Ends in tables, a page, the best setting as a recipe for `jobs/train.py --recipe FILE`, and the best model, tested once
and registered. Started again after any interruption, the same command runs what is left.
"""

from __future__ import annotations

import argparse
import shlex
import sys
from pathlib import Path

from pydantic import ValidationError

from ssm_platform.base import OverrideError, explain, front_door, override, split_assignments
from ssm_platform.runs import MODIFIERS, RECIPES, recipe
from ssm_platform.search import Space, SpaceError, Sweep, SweepConfig, conclude, parse_space, read_space
from ssm_platform.train import TrainingFailed


def parse(arguments: list[str]) -> Sweep:
    """The sweep that the command line describes. ValueError names the argument, or file and line, at fault."""
    known, fields = _parser().parse_known_args(arguments)
    base = override(recipe(known.recipe), split_assignments(fields))
    dimensions = read_space(known.space, base).dimensions if known.space else {}
    for field, dimension in parse_space(known.vary, base).dimensions.items():
        if field in dimensions:
            raise SpaceError(f"--vary {field}: {known.space} varies it as well; keep one of them")
        dimensions[field] = dimension
    if not dimensions:
        raise SpaceError("nothing to search: give --vary FIELD=... or --space FILE")
    settings = {name: value for name in SweepConfig.model_fields if (value := getattr(known, name)) is not None}
    try:
        config = SweepConfig(**settings)
    except ValidationError as error:
        raise OverrideError(explain(error)) from None
    return Sweep(base, Space(dimensions), config)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__,
        epilog=f"recipes: {', '.join(RECIPES)}\nmodifiers: {', '.join(MODIFIERS)}\n\n"
        "fields of the recipe: python jobs/train.py --help",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--recipe", default="quickstart", help="recipe, with modifiers after +, or a JSON file")
    parser.add_argument("--vary", action="append", default=[], metavar="FIELD=...", help="a field and its values")
    parser.add_argument("--space", type=Path, help="YAML file of fields and their values")
    for name, field in SweepConfig.model_fields.items():
        option = f"--{name.replace('_', '-')}"
        if field.annotation is bool:
            parser.add_argument(option, action="store_true", default=None, help=field.description)
        else:
            parser.add_argument(option, help=f"{field.description} (default: {field.default})")
    return parser


def main() -> None:
    """Search, then write what was found."""
    try:
        sweep = parse(sys.argv[1:])
        sweep.run()
        report = conclude(sweep, shlex.join(["python", *sys.argv]))
    except (ValueError, TrainingFailed) as error:
        sys.exit(f"error: {error}")
    for found in sorted(report.findings.settings, key=lambda one: -one.score.mean if one.score else 1.0)[:10]:
        note = "best" if found.behind is None else f"behind the best by {found.behind}"
        print(f"{found.score or 'failed'}  {found.setting}  {note}")
    print(f"page: {report.page}\ntables: {sweep.folder}/trials.csv, settings.csv (and .parquet)")
    if report.recipe is None or report.outcome is None:
        sys.exit("error: no setting finished with all of its seeds; trials.csv says why")
    print(f"best setting: python jobs/train.py --recipe {report.recipe}")
    print(f"best model: {report.outcome.version} (alias latest)")


if __name__ == "__main__":
    front_door(main)
