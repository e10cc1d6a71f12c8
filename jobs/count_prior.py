"""Count the prior of the mapping from a corpus that labels AUs and expressions of the same frames.

    python jobs/count_prior.py /data/Aff-Wild2 --recipe=all_corpora --out counted.json
    python jobs/train.py --recipe=counted.json

The recipe is written again with `model.mapping.prior=explicit` and the counted matrix; any of its fields can be set.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from ssm_platform.base import front_door, open_storage, override, split_assignments
from ssm_platform.corpora import count_prior, read_corpus
from ssm_platform.runs import recipe


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("root", type=Path, help="the folder that holds the corpus")
    parser.add_argument("--au", default="affwild2_au", metavar="NAME", help="reader of its AUs (affwild2_au)")
    parser.add_argument("--fe", default="affwild2_expr", metavar="NAME", help="reader of its expressions")
    parser.add_argument("--part", default="train", help="the owner's part to count (train), so that no test is seen")
    parser.add_argument("--recipe", default="quickstart", help="recipe, with modifiers after +, or a JSON file")
    parser.add_argument(
        "--out", type=Path, required=True, metavar="FILE.json", help="the recipe with the counted prior"
    )
    known, fields = parser.parse_known_args()
    try:
        config = override(recipe(known.recipe), split_assignments(fields))
        aus, expressions = (read_corpus(name, known.root).manifest for name in (known.au, known.fe))
        mapping = config.model.mapping
        counted = count_prior(aus, expressions, config.model.vocabulary, mapping.off, known.part)
        config = override(config, {"model.mapping.prior": "explicit", "model.mapping.matrix": counted.matrix})
    except ValueError as error:
        sys.exit(f"error: {error}")
    open_storage(known.out.parent).write(known.out.name, config.model_dump_json(indent=2).encode())
    print("frames counted: " + ", ".join(f"{name} {count}" for name, count in counted.frames.items()))
    print(f"train with it: python jobs/train.py --recipe={known.out}")


if __name__ == "__main__":
    front_door(main)
