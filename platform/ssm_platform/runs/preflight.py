"""Refuses, before anything starts, what would hang or fail later, and says which setting to change.

Each check returns refusals (setting, what was found, the rule); `require` raises them all at once, so one look
mends a config. Nothing here starts Ray, reads pixels or changes a config; the cluster's size and the split corpora
are given.
"""

from __future__ import annotations

import importlib.util
import math
import shutil
import sys
import uuid
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ssm.labels import Vocabulary
from ssm_platform.cluster import ClusterSize
from ssm_platform.records import Manifest
from ssm_platform.runs.config import RunConfig
from ssm_platform.runs.splits import Split

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
    """CPUs the run declares to Ray at most: all its workers, the decode processes and one for Ray Data's reading.

    Ray Train takes as many workers as fit, up to the maximum, and asks before Ray Data does.
    """
    return _cpus_with(config, config.scale.bounds[1])


def _cpus_with(config: RunConfig, workers: int) -> float:
    data = config.data
    return workers * config.scale.cpus_per_worker + data.decode_workers * data.decode_cpus + 1


def check_config(config: RunConfig) -> list[Refusal]:
    """What the config alone shows: batches that workers cannot share or cut, a protocol without its corpus."""
    return [*_check_batches(config), *_check_accumulation(config), *_check_protocol(config)]


def check_cluster(config: RunConfig, size: ClusterSize) -> list[Refusal]:
    """Whether the cluster can hold the workers beside Ray Data; an impossible budget would wait for ever.

    Ray Train grows to every worker that fits, whatever that leaves: so what counts is how many it would take here.
    """
    low, high = config.scale.bounds
    fitting = size.room(config.scale.cpus_per_worker, float(config.scale.gpu))
    budget = _check_budget(config, size, workers=max(low, min(high, fitting)))
    return [*budget, *_check_gpus(config, size), *(_check_nodes(config, size, fitting) if not budget else [])]


def check_data(config: RunConfig, splits: Mapping[str, Split]) -> list[Refusal]:
    """Empty sides, sides without labels or of one class, labels that the model has not: half a model, or no figures."""
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


def _check_accumulation(config: RunConfig) -> list[Refusal]:
    """Each worker cuts its share of either batch into that many micro-batches of at least a clip."""
    workers, wanted = config.scale.bounds[1], config.train.accumulation
    shares = {
        setting: batch // workers
        for setting, batch in (("data.fe_batch", config.data.fe_batch), ("data.au_batch", config.data.au_batch))
        if batch
    }
    return [
        Refusal(
            "train.accumulation",
            f"is {wanted}, but a worker's share of {setting} is {share} clips ({workers} workers): lower it, or raise "
            f"the batch",
        )
        for setting, share in shares.items()
        if share < wanted
    ]


def _check_budget(config: RunConfig, size: ClusterSize, workers: int) -> list[Refusal]:
    scale, data = config.scale, config.data
    if (needed := _cpus_with(config, workers)) <= size.cpus:
        return []
    why = (
        f"{workers} x {scale.cpus_per_worker:g} CPUs for workers + {data.decode_workers} x {data.decode_cpus:g} for "
        f"decoding + 1 for reading = {needed:g}, but the cluster declares {size.cpus:g}; Ray Data would get no CPU "
        f"and the run would hang"
    )
    possible = int((size.cpus - _cpus_with(config, 0)) // scale.cpus_per_worker)
    if workers > scale.bounds[0] <= possible:
        why += f": at most {possible} workers leave it enough"
    return [Refusal("scale.workers, scale.cpus_per_worker, data.decode_workers or data.decode_cpus", why)]


def _check_gpus(config: RunConfig, size: ClusterSize) -> list[Refusal]:
    low = config.scale.bounds[0]
    if not config.scale.gpu or low <= size.gpus:
        return []
    return [Refusal("scale.gpu", f"{low} workers want a GPU each, the cluster has {size.gpus:g}")]


def _check_nodes(config: RunConfig, size: ClusterSize, fitting: int) -> list[Refusal]:
    """What fits into the cluster as a whole may still fit on no node."""
    scale = config.scale
    refusals = [
        Refusal(setting, f"is {cpus:g}, but no node declares more than {size.largest:g} CPUs")
        for setting, cpus in (
            ("scale.cpus_per_worker", scale.cpus_per_worker),
            ("data.decode_cpus", config.data.decode_cpus),
        )
        if cpus > size.largest
    ]
    if not refusals and fitting < scale.bounds[0] and (not scale.gpu or scale.bounds[0] <= size.gpus):
        what = f"{scale.cpus_per_worker:g} CPUs{' and a GPU' if scale.gpu else ''}"
        why = f"{scale.bounds[0]} workers of {what} each, but only {fitting} fit, each on one node"
        refusals.append(Refusal("scale.workers or scale.cpus_per_worker", why))
    return refusals


def _check_protocol(config: RunConfig) -> list[Refusal]:
    held = [corpus.name for corpus in config.data.corpora if corpus.role == "test"]
    if config.protocol == "lodo" and not held:
        return [Refusal("data.corpora.N.role", "protocol lodo leaves one corpus out: give one corpus role=test")]
    return []


def _check_split(config: RunConfig, name: str, split: Split) -> list[Refusal]:
    where = f"data.corpora.{name}"
    refusals = _check_labels(config, where, split.test.labels)
    for side, setting in _sides(config, name).items():
        manifest: Manifest = getattr(split, side)
        if not len(manifest):
            refusals.append(Refusal(f"{where}.{setting}", f"the {side} side is empty"))
        elif (problem := label_problem(manifest)) is not None:
            refusals.append(Refusal(where, f"the {side} side {problem}"))
    return refusals


def _sides(config: RunConfig, name: str) -> dict[str, str]:
    """The sides of a corpus that must hold something, with the setting that fills each.

    Under `published` the test side is the validation side, under `lodo` only corpora of role test have one.
    """
    if config.corpus(name).role == "test":
        return {"test": "root"}
    trained = {"train": "test_parts", "validation": "validation_parts or holdout"}
    return {**trained, "test": "test_parts or holdout"} if config.protocol == "clean" else trained


def _check_labels(config: RunConfig, where: str, labels: Vocabulary) -> list[Refusal]:
    known = config.model.vocabulary
    unknown = [
        *(f"AU{au}" for au in labels.aus if au not in known.aus),
        *(name for name in labels.expressions if name not in known.expressions),
    ]
    if not unknown:
        return []
    why = f"labels {', '.join(unknown)}, which model.vocabulary has not: add them there, or leave them out here"
    return [Refusal(f"{where}.options or model.vocabulary", why)]


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
