"""Write cluster.yaml and the Kubernetes manifests: `python jobs/manifests.py [--out FOLDER] [--settings FILE.yaml]`."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import yaml
from pydantic import ValidationError

from ssm_platform.base import explain, front_door
from ssm_platform.cluster import ClusterSettings, write_all

PROXY = Path(__file__).resolve().parents[1] / "deploy" / "nginx.conf"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path(), help="folder to write into (default: here)")
    parser.add_argument("--settings", type=Path, help="YAML file with fields of ClusterSettings to change")
    arguments = parser.parse_args()
    try:
        settings = ClusterSettings() if arguments.settings is None else read_settings(arguments.settings)
        for path in write_all(settings, arguments.out, PROXY):
            print(path)
    except (ValueError, OSError) as error:
        sys.exit(f"error: {error}")


def read_settings(path: Path) -> ClusterSettings:
    """The settings in a YAML file; ValueError or OSError names it and says what is wrong."""
    try:
        return ClusterSettings.model_validate(yaml.safe_load(path.read_text()) or {})
    except ValidationError as error:
        raise ValueError(f"{path}: {explain(error)}") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: not YAML: {error}") from error


if __name__ == "__main__":
    front_door(main)
