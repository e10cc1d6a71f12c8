"""Turn a released SSM checkpoint into a model folder: `python jobs/import_released.py CHECKPOINT --out FOLDER`.

Then `SSM.from_pretrained(FOLDER)`, or with `released_behaviour=True` for the authors' own forward. No code from the
file is run.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from ssm.saved import import_released
from ssm_platform.base import front_door


def main(arguments: list[str] | None = None) -> int:
    """Imports and saves; 0, or 2 with one line that says what does not fit."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", type=Path, help=".pt, .pth or .safetensors file in the released names")
    parser.add_argument("--out", type=Path, required=True, help="folder to write")
    parser.add_argument("--au-corpus", choices=("bp4d", "disfa"), help="guessed from the file where it is not given")
    options = parser.parse_args(arguments)
    try:
        model = import_released(options.checkpoint, options.au_corpus, _descriptions(options.checkpoint))
        model.save_pretrained(options.out)
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    labels = model.vocabulary
    print(f"{options.out}: {len(labels.expressions)} expressions, {len(labels.aus)} AUs {labels.aus}")
    print(f'SSM.from_pretrained("{options.out}", released_behaviour=True) gives the authors\' own forward')
    return 0


def _descriptions(checkpoint: Path) -> dict[str, list[str]] | None:
    """The texts in a `.json` beside the checkpoint, where there is one that holds them."""
    path = checkpoint.with_suffix(".json")
    if not path.is_file():
        return None
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path}: not JSON: {error}") from error
    wanted = {"fe_descriptions", "au_descriptions"}
    return content if isinstance(content, dict) and wanted <= set(content) else None


if __name__ == "__main__":
    front_door(main)
