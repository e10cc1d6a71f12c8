"""Places: storage for the checkpoints, the tracker that is asked for, and files that would hide packages."""

from __future__ import annotations

import importlib.util
import shutil
import sys
import uuid
from collections.abc import Iterable
from pathlib import Path

from ssm_platform.runs.config import RunConfig
from ssm_platform.runs.preflight.refusals import Refusal

_STATES_PER_WEIGHT = 4  # weight, its moving average and the two moments of AdamW
_MARGIN_BYTES = 256 * 2**20


def check_storage(config: RunConfig, parameters: int) -> list[Refusal]:
    """An unwritable folder, or a disk too small for the checkpoints of a model with that many trained weights."""
    if "://" in config.storage:
        return []
    folder = Path(config.storage).absolute()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / f".probe-{uuid.uuid4().hex}"
        probe.write_bytes(b"ssm")
        probe.unlink()
    except OSError as error:
        return [Refusal("storage", f"{folder} cannot be written ({error.strerror}); choose another folder")]
    needed = parameters * 4 * _STATES_PER_WEIGHT * (config.checkpoint.keep + 2) + _MARGIN_BYTES
    if (free := shutil.disk_usage(folder).free) < needed:
        return [
            Refusal(
                "storage or checkpoint.keep",
                f"{folder} has {free / 2**30:.2f} GiB free, but {config.checkpoint.keep + 2} checkpoints need "
                f"{needed / 2**30:.2f}",
            )
        ]
    return []


def check_tracking(config: RunConfig) -> list[Refusal]:
    """A tracker that is asked for and not installed: workers would fail at every start."""
    if config.tracking.mlflow is None or importlib.util.find_spec("mlflow") is not None:
        return []
    why = "the package mlflow is not installed: pip install 'ssm-platform[mlflow]', or leave the field unset"
    return [Refusal("tracking.mlflow", why)]


def check_shadowing(path: Iterable[str] | None = None) -> list[Refusal]:
    """Files on `path` (None: `sys.path`) that would hide the library's `platform` or our `serve` from Ray's workers."""
    refusals = []
    for entry in map(Path, sys.path if path is None else path):
        if (entry / "platform" / "__init__.py").exists():
            refusals.append(
                Refusal(str(entry / "platform" / "__init__.py"), "hides the standard library's platform; delete it")
            )
        if (entry / "serve.py").exists():
            refusals.append(Refusal(str(entry / "serve.py"), "hides the package serve; rename it (jobs/deploy.py)"))
    return refusals
