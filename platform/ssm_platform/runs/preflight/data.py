"""Corpora: where they lie, and whether each side of each holds labels that the model can learn."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from ssm.labels import Vocabulary
from ssm_platform.records import Manifest
from ssm_platform.runs.config import RunConfig
from ssm_platform.runs.preflight.refusals import Refusal
from ssm_platform.runs.splits import Split


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


def check_protocol(config: RunConfig) -> list[Refusal]:
    """A protocol without the corpus it needs."""
    held = [corpus.name for corpus in config.data.corpora if corpus.role == "test"]
    if config.protocol == "lodo" and not held:
        return [Refusal("data.corpora.N.role", "protocol lodo leaves one corpus out: give one corpus role=test")]
    return []


def check_data(config: RunConfig, splits: Mapping[str, Split]) -> list[Refusal]:
    """Empty sides, sides without labels or of one class, labels that the model has not: half a model, or no figures."""
    refusals = [refusal for name, split in splits.items() for refusal in _check_split(config, name, split)]
    for task, batch in config.data.batches.items():
        setting = f"data.{task}_batch"
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


def _check_split(config: RunConfig, name: str, split: Split) -> list[Refusal]:
    where = f"data.corpora.{name}"
    refusals = _check_labels(config, where, split.test.labels)
    for side, setting in _sides(config, name).items():
        manifest: Manifest = getattr(split, side)
        if not len(manifest):
            refusals.append(Refusal(f"{where}.{setting}", f"the {side} side is empty"))
        elif (problem := label_problem(manifest)) is not None:
            refusals.append(Refusal(where, f"the {side} side {problem}"))
        elif config.data.warp == "worker" and (kinds := set(manifest.column("kind").unique().to_pylist()) - {"shard"}):
            why = f"is worker, but {name} has clips of kind {', '.join(sorted(kinds))}: only shards hold files to ship"
            refusals.append(Refusal("data.warp", why))
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
        *(name for name in labels.affect if name not in known.affect),
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
    if manifest.task == "va":
        return _affect_problem(manifest)
    labels = manifest.frame_labels
    known = labels >= 0
    if not known.any():
        return "has no AU labels: every frame is unknown"
    varied = ((labels == 1).any(0) & (labels == 0).any(0)).any()
    return None if varied else "has one class only: no AU is both present and absent"


def _affect_problem(manifest: Manifest) -> str | None:
    values = manifest.frame_affect
    if np.isnan(values).all():
        return "has no labels of valence and arousal: every frame is unknown"
    known = [column[~np.isnan(column)] for column in values.T]
    varied = any(len(column) and np.ptp(column) > 0 for column in known)
    return None if varied else "has constant valence and arousal: there is nothing to learn"
