"""Where cluster files come from: one typed description, three files.

`aws` turns `ClusterSettings` into the cluster.yaml of `ray up`, `kubernetes` into manifests for the KubeRay operator.
The committed files are exactly what the defaults give (a test holds that); other settings are written by
`python jobs/manifests.py`. Knows nothing of training: the words of the training command are given.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from ssm_platform.cluster.aws import ray_up
from ssm_platform.cluster.kubernetes import ray_job, ray_service
from ssm_platform.cluster.settings import ClusterSettings

_HEADER = "# Written by `python jobs/manifests.py` from ssm_platform.cluster.ClusterSettings; change it there.\n"


class _InFull(yaml.SafeDumper):
    """Writes what stands in several places in each of them, not as an alias of the first, and long texts as blocks."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text else None)


_InFull.add_representer(str, _text)


def write_all(settings: ClusterSettings, folder: Path, proxy: Path) -> list[Path]:
    """Write cluster.yaml and the Kubernetes manifests under `folder`; returns their paths. `proxy`: nginx's file."""
    outputs = {
        "cluster.yaml": [ray_up(settings)],
        "deploy/rayjob.yaml": ray_job(settings),
        "deploy/rayservice.yaml": ray_service(settings, proxy.read_text()),
    }
    written = []
    for name, documents in outputs.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(_HEADER + yaml.dump_all(documents, Dumper=_InFull, sort_keys=False, width=120))
        written.append(path)
    return written
