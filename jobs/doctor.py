"""Check a corpus tree against its owner's grammar and print what is in it.

    python jobs/doctor.py /data/BP4D --corpus bp4d
    python jobs/doctor.py /data/DISFA --corpus disfa --camera=left --out reports/disfa

Exit code: 0 the corpus is usable, 1 it is not, 2 the command line is wrong.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from tqdm import tqdm

from ssm_platform.base import format_fields, front_door, split_assignments
from ssm_platform.corpora import Corpus, corpora, corpus_named
from ssm_platform.corpora.doctor import describe, examine, write

UNUSABLE, USAGE = 1, 2


def main() -> None:
    """Parse, examine, print, write."""
    arguments, fields = _parser(sys.argv[1:]).parse_known_args()
    try:
        with tqdm(desc=arguments.corpus, unit=" records", disable=None, leave=False) as bar:
            options = split_assignments(fields)
            diagnosis = examine(arguments.corpus, arguments.root, arguments.content, bar.update, **options)
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(USAGE)
    print("\n".join(describe(diagnosis, arguments.show)))
    if arguments.out is not None:
        print(f"report: {write(diagnosis, arguments.out)}")
    sys.exit(0 if diagnosis.usable else UNUSABLE)


def _parser(words: list[str]) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__,
        epilog=_epilog(words),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("root", type=Path, help="the folder that holds the corpus")
    parser.add_argument("--corpus", required=True, metavar="NAME", help=f"one of {', '.join(corpora())}")
    parser.add_argument("--out", type=Path, metavar="DIR", help="write report.html, report.json and issues.csv there")
    parser.add_argument("--content", action="store_true", help="also look for identical clips under different names")
    parser.add_argument("--show", type=int, default=20, metavar="N", help="bad lines to print (default: 20)")
    return parser


def _epilog(words: list[str]) -> str:
    """The options and the layout of the corpus that is asked about, else how to see them."""
    named = [name for name, corpus in corpora().items() if name in words or f"--corpus={name}" in words]
    if not named:
        return "options and expected layout of one corpus: python jobs/doctor.py --corpus NAME --help"
    return _about(corpus_named(named[0]))


def _about(corpus: Corpus) -> str:
    return f"{corpus.title}, expected layout:\n{corpus.layout}\n\noptions:\n{format_fields(corpus.options)}"


if __name__ == "__main__":
    front_door(main)
