"""Writes a synthetic corpus, a sample video, or the contact sheets of the renderer.

python jobs/synthesize.py bp4d ROOT --preset tiny --seed 1
python jobs/synthesize.py --contact-sheet docs/au_contact_sheet.png --people-sheet docs/synthetic_people.png
    python jobs/synthesize.py --sample-video sample.mp4
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from pydantic import ValidationError
from tqdm import tqdm

from ssm_platform.base import explain, front_door
from ssm_platform.synthetic import CORPORA, PRESETS, SyntheticSpec, write_corpus
from ssm_platform.synthetic.sample import write_sample
from ssm_platform.synthetic.sheets import au_sheet, people_sheet, write_sheet


def main() -> None:
    """Parses, then makes one call."""
    options = _parser().parse_args()
    try:
        run(options)
    except ValidationError as error:
        sys.exit(f"error: {options.spec}: {explain(error)}")
    except (ValueError, OSError) as error:
        sys.exit(f"error: {error}")


def run(options: argparse.Namespace) -> None:
    """Writes what the command line asks for. ValueError and OSError say what cannot be read or written."""
    if options.corpus is not None:
        _write(options)
    if options.contact_sheet is not None:
        write_sheet(options.contact_sheet, au_sheet())
    if options.people_sheet is not None:
        write_sheet(options.people_sheet, people_sheet())
    if options.sample_video is not None:
        print(write_sample(options.sample_video))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("corpus", nargs="?", choices=CORPORA, help="whose grammar to write in")
    parser.add_argument(
        "root", nargs="?", type=Path, help="folder of the corpus; must be absent, empty or the same corpus"
    )
    parser.add_argument("--preset", choices=PRESETS, default="quickstart", help="how large and how hard")
    parser.add_argument("--spec", type=Path, help="a JSON file of SyntheticSpec fields, instead of a preset")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--contact-sheet", type=Path, metavar="PNG", help="write every AU at three intensities")
    parser.add_argument("--people-sheet", type=Path, metavar="PNG", help="write many people with many expressions")
    parser.add_argument("--sample-video", type=Path, metavar="MP4", help="write one person showing each expression")
    return parser


def _write(options: argparse.Namespace) -> None:
    if options.root is None:
        raise ValueError("name the folder to write to: synthesize.py CORPUS ROOT")
    spec = SyntheticSpec.model_validate_json(options.spec.read_text()) if options.spec else PRESETS[options.preset]
    with tqdm(disable=None, unit="job", desc=options.corpus) as bar:

        def show(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        root = write_corpus(options.corpus, options.root, spec, options.seed, options.processes, show)
    print(root)


if __name__ == "__main__":
    front_door(main)
