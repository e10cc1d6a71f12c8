"""Put a run's evaluated model into the package: `python jobs/ship.py runs/real-faces`.

What lies there is read with where no model is named and none is registered (`ssm_platform.models.shipped`).
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from ssm_platform.base import front_door
from ssm_platform.models import ship


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="folder of a run that was trained and evaluated")
    try:
        print(ship(parser.parse_args().run / "model"))
    except ValueError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    front_door(main)
