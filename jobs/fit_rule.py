"""Fit a saved model's thresholds, vote and temperature: `python jobs/fit_rule.py MODEL CLIPS... --out FOLDER`.

MODEL is a folder, or an alias or version of the registry. CLIPS are manifests (.parquet, as ingest and readers write
them) or tables of your own (.csv, .tsv or .xlsx; docs/corpora.md has the columns): videos, frames or face crops with
AU labels by frame or an expression by clip. The model is written to FOLDER with what they give it; the model itself
stays as it was. Judge the result on other clips than these.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from ssm_platform.base import EXIT_CODES, front_door
from ssm_platform.corpora import read_corpus
from ssm_platform.evaluate import Fitted, fit_model
from ssm_platform.models import locate
from ssm_platform.records import Manifest


def clips_of(source: str) -> Manifest:
    """The labelled clips of a manifest or of a user's own table."""
    path = Path(source)
    if (source.endswith(".parquet") and "://" in source) or path.suffix == ".parquet":
        return Manifest.read(source)
    if path.suffix not in (".csv", ".tsv", ".xlsx"):
        raise ValueError(f"{source}: labelled clips are a manifest (.parquet) or a table (.csv, .tsv, .xlsx)")
    return read_corpus("manifest", path.absolute().parent, file=path.name).manifest


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__,
        epilog=EXIT_CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("model", help="folder of a saved model, or an alias or version")
    parser.add_argument("clips", nargs="+", help="manifests or tables of labelled clips")
    parser.add_argument("--out", required=True, type=Path, help="folder to write the fitted model to")
    parser.add_argument("--registry", help="registry of the alias (runs/registry)")
    parser.add_argument("--device", default="cpu", help="where the model runs (cpu)")
    options = parser.parse_args()
    try:
        model = locate(options.model, options.registry)
        fitted = fit_model(model, [clips_of(source) for source in options.clips], options.out, options.device)
    except ValueError as error:
        sys.exit(f"error: {error}")
    print(_told(fitted, options.out))
    return 0


def _told(fitted: Fitted, out: Path) -> str:
    lines = [f"AU{au:02d}: F1 {fitted.before[au]:.3f} -> {fitted.after[au]:.3f}" for au in fitted.after]
    warmth = {"AUs": fitted.au_temperature, "expressions": fitted.expression_temperature}
    lines += [f"temperature of {name}: {value:.2f}" for name, value in warmth.items() if value is not None]
    return "\n".join([*lines, f"fitted on {fitted.clips} clips, and these figures are of the same clips: {out}"])


if __name__ == "__main__":
    front_door(main)
