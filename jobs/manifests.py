"""Write cluster.yaml and the Kubernetes manifests: `python jobs/manifests.py [--out FOLDER] [--settings FILE.yaml]`."""

from __future__ import annotations

import argparse
from pathlib import Path

import yaml

from ssm_platform.deployment import ClusterSettings, write_all


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path(), help="folder to write into (default: here)")
    parser.add_argument("--settings", type=Path, help="YAML file with fields of ClusterSettings to change")
    arguments = parser.parse_args()
    changes = yaml.safe_load(arguments.settings.read_text()) if arguments.settings else {}
    for path in write_all(ClusterSettings.model_validate(changes), arguments.out):
        print(path)


if __name__ == "__main__":
    main()
