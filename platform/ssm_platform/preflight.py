"""Refuses, before anything starts, what would hang or fail later, and says which setting to change.

Each check returns refusals (setting, what was found, the rule); `require` raises them all at once, so one look
mends a config. Nothing here starts Ray, reads pixels or changes a config; the cluster's size and the split corpora
are given.
"""

from __future__ import annotations

import math
import shutil
import sys
import uuid
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ssm_platform.cluster import ClusterSize
from ssm_platform.config import RunConfig
from ssm_platform.records import Manifest
from ssm_platform.splits import Split

_STATES_PER_WEIGHT = 4  # weight, its moving average and the two moments of AdamW
_MARGIN_BYTES = 256 * 2**20


@dataclass(frozen=True)
class Refusal:
    """One reason not to start: the setting to change, and why."""

    setting: str
    why: str

    def __str__(self) -> str:
        return f"{self.setting}: {self.why}"


class PreflightError(ValueError):
    """The run would hang or fail; the message lists every refusal."""

    def __init__(self, refusals: list[Refusal]) -> None:
        super().__init__("this run cannot start:\n" + "\n".join(f"  * {refusal}" for refusal in refusals))
        self.refusals = refusals


def require(refusals: Iterable[Refusal]) -> None:
    """Raises `PreflightError` where there is any refusal."""
    if found := list(refusals):
        raise PreflightError(found)


def cpus_needed(config: RunConfig) -> float:
    """CPUs the run declares to Ray: the workers, the decode processes and one for the reading tasks of Ray Data."""
    scale, data = config.scale, config.data
    return scale.bounds[0] * scale.cpus_per_worker + data.decode_workers * data.decode_cpus + 1


def check_config(config: RunConfig) -> list[Refusal]:
    """What the config alone shows: batches that workers cannot share, tasks without a corpus."""
    return [*_check_batches(config), *_check_protocol(config)]


def check_cluster(config: RunConfig, size: ClusterSize) -> list[Refusal]:
    """Whether the cluster can hold the workers beside Ray Data; an impossible budget would wait for ever."""
    scale, data = config.scale, config.data
    refusals = []
    if (needed := cpus_needed(config)) > size.cpus:
        refusals.append(
            Refusal(
                "scale.workers, scale.cpus_per_worker, data.decode_workers or data.decode_cpus",
                f"{scale.bounds[0]} x {scale.cpus_per_worker:g} CPUs for workers + {data.decode_workers} x "
                f"{data.decode_cpus:g} for decoding + 1 for reading = {needed:g}, but the cluster declares "
                f"{size.cpus:g}; Ray Data would get no CPU and the run would hang",
            )
        )
    if scale.gpu and scale.bounds[0] > size.gpus:
        refusals.append(
            Refusal("scale.gpu", f"{scale.bounds[0]} workers want a GPU each, the cluster has {size.gpus:g}")
        )
    return refusals


def check_data(config: RunConfig, splits: Mapping[str, Split]) -> list[Refusal]:
    """Empty sides, corpora without labels, a single class: what would train half a model in silence."""
    refusals = [refusal for name, split in splits.items() for refusal in _check_split(config, name, split)]
    for task, setting, batch in (
        ("fe", "data.fe_batch", config.data.fe_batch),
        ("au", "data.au_batch", config.data.au_batch),
    ):
        names = [name for name, split in splits.items() if split.train.task == task and len(split.train)]
        if batch and not names:
            refusals.append(
                Refusal(setting, f"is {batch}, but no corpus of task {task!r} has training records; set it to 0")
            )
        if not batch and names:
            refusals.append(
                Refusal(setting, f"is 0, but {', '.join(names)} would train on it; set it or drop the corpus")
            )
    return refusals


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


def check_sources(config: RunConfig) -> list[Refusal]:
    """Corpora whose folder or manifest is absent (and is not synthetic, which would be written first)."""
    refusals = []
    for corpus in config.data.corpora:
        place, field = (corpus.root, "root") if corpus.root is not None else (corpus.manifest or "", "manifest")
        setting = f"data.corpora.{corpus.name}.{field}"
        if field == "root" and "://" in place:
            why = "owners' files are read from folders: put them into shards (jobs/ingest.py) and name their manifest"
            refusals.append(Refusal(setting, f"{place}: {why}"))
        elif "://" not in place and corpus.synthetic is None and not Path(place).exists():
            refusals.append(Refusal(setting, f"{Path(place).absolute()} does not exist"))
    return refusals


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


def _check_batches(config: RunConfig) -> list[Refusal]:
    low, high = config.scale.bounds
    data = config.data
    unit = math.gcd(data.fe_batch, data.au_batch)
    wrong = [count for count in range(low, high + 1) if unit % count]
    if not wrong:
        return []
    fitting = [count for count in range(1, unit + 1) if unit % count == 0]
    why = (
        f"{', '.join(map(str, wrong))} workers cannot share data.fe_batch={data.fe_batch} and "
        f"data.au_batch={data.au_batch} evenly; possible counts: {', '.join(map(str, fitting))}"
    )
    return [Refusal("scale.workers", why)]


def _check_protocol(config: RunConfig) -> list[Refusal]:
    held = [corpus.name for corpus in config.data.corpora if corpus.role == "test"]
    if config.protocol == "lodo" and not held:
        return [Refusal("data.corpora.N.role", "protocol lodo leaves one corpus out: give one corpus role=test")]
    return []


def _check_split(config: RunConfig, name: str, split: Split) -> list[Refusal]:
    where = f"data.corpora.{name}"
    trained = config.corpus(name).role == "train"
    refusals = []
    for side in ("train", "validation") if trained else ("test",):
        manifest: Manifest = getattr(split, side)
        if not len(manifest):
            setting = {"train": "test_parts", "validation": "validation_parts or holdout", "test": "root"}[side]
            refusals.append(Refusal(f"{where}.{setting}", f"the {side} side is empty"))
        elif (problem := label_problem(manifest)) is not None:
            refusals.append(Refusal(where, f"the {side} side {problem}"))
    return refusals


def label_problem(manifest: Manifest) -> str | None:
    """What makes the labels of a side useless, if anything: none at all, or one class only."""
    if manifest.task == "fe":
        classes = np.unique(manifest.expression_columns)
        classes = classes[classes >= 0]
        if not len(classes):
            return "has no expression labels"
        return f"has one class only ({manifest.labels.expressions[classes[0]]})" if len(classes) == 1 else None
    # One pass over the flat labels of all records; -1 is unknown.
    labels = np.concatenate([manifest.au_labels(index) for index in range(len(manifest))])
    known = labels >= 0
    if not known.any():
        return "has no AU labels: every frame is unknown"
    varied = ((labels == 1).any(0) & (labels == 0).any(0)).any()
    return None if varied else "has one class only: no AU is both present and absent"
