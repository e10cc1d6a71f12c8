"""A driver to be killed: `tune_driver.py STORAGE` searches over a recipe of seconds, on a local cluster of its own."""

from __future__ import annotations

import sys
from pathlib import Path

from ssm_platform.base.overrides import override
from ssm_platform.runs.recipes import tiny
from ssm_platform.search.space import parse_space
from ssm_platform.search.sweep import Sweep, SweepConfig

DIVERGES = 1e30


def sweep(storage: Path) -> Sweep:
    """Three settings, of which the second diverges at once."""
    base = override(
        tiny(),
        {
            "storage": str(storage),
            "steps": 4,
            "validate_every": 2,
            "checkpoint.every": 2,
            "data.corpora.bp4d.root": str(storage / "bp4d"),
            "data.corpora.dfew.root": str(storage / "dfew"),
        },
    )
    space = parse_space([f"train.optim.rest=0.001,{DIVERGES},0.002"], base)
    return Sweep(base, space, SweepConfig(method="grid"))


if __name__ == "__main__":
    sweep(Path(sys.argv[1])).run()
