"""From a config to the data of a run: corpora written where they are synthetic and absent, read, and split.

Runs in the driver, before Ray. Every path becomes absolute here, because Ray's workers change their directory.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import pyarrow as pa

from ssm_platform.data import Plan, PlanConfig
from ssm_platform.records import Manifest, Reading, Task
from ssm_platform.runs import readings
from ssm_platform.runs.config import CorpusConfig, Protocol, RunConfig, anchored
from ssm_platform.runs.splits import Source, Split, split_all

LOG = logging.getLogger(__name__)

_ISSUES_SHOWN = 5
_SYNTHETIC_SEED = 1  # of the corpus, not of the run: runs with other seeds train on the same data


@dataclass(frozen=True)
class Prepared:
    """The corpora of a run, split; dictionaries are in the order of the config.

    A corpus that is labelled for several tasks stands in it as one part for each, `corpus@task`, of the same split.
    """

    splits: Mapping[str, Split]

    @cached_property
    def train(self) -> list[Manifest]:
        """Training sides that hold anything, in order: what a plan's `corpus` column counts."""
        return [side.train for side in self.splits.values() if len(side.train)]

    @cached_property
    def validation(self) -> list[Manifest]:
        """Validation sides that hold anything."""
        return [side.validation for side in self.splits.values() if len(side.validation)]

    @cached_property
    def test(self) -> list[Manifest]:
        """Test sides that hold anything."""
        return [side.test for side in self.splits.values() if len(side.test)]

    @property
    def fingerprints(self) -> dict[str, str]:
        """Digest of every training manifest by corpus."""
        return {manifest.corpus: manifest.fingerprint for manifest in self.train}


def prepare(config: RunConfig) -> Prepared:
    """Reads and splits every corpus; ValueError of the reader or the split where one cannot be used."""
    used = [task for task, batch in config.data.batches.items() if batch]
    return prepare_corpora(config.data.corpora, config.protocol, config.seed, used)


def prepare_corpora(corpora: Sequence[CorpusConfig], protocol: Protocol, seed: int, used: Sequence[Task]) -> Prepared:
    """The same of some corpora, for the tasks that are used."""
    splits = split_all([_source(corpus) for corpus in corpora], protocol, seed)
    pa.default_memory_pool().release_unused()  # what reading took; Arrow keeps it for its next tables, and none follow
    return Prepared({part.test.corpus: part for split in splits.values() for part in _by_task(split, used)})


def _by_task(split: Split, used: Sequence[Task]) -> list[Split]:
    """The split itself; of several tasks, a part for each that the run trains."""
    tasks = split.test.tasks
    if len(tasks) == 1:
        return [split]
    sides = (split.train, split.validation, split.test)
    return [Split(*(side.of_task(task) for side in sides)) for task in tasks if task in used]


def load(corpus: CorpusConfig) -> Manifest:
    """The manifest of one corpus under its name in the config; a synthetic one that is absent is written."""
    return _source(corpus).manifest


def _source(corpus: CorpusConfig) -> Source:
    if corpus.manifest is not None:
        manifest = Manifest.read(anchored(corpus.manifest, Path.cwd()))
    else:
        root = Path(corpus.root or "").absolute()
        if corpus.synthetic is not None:
            synthesise(corpus, root, corpus.synthetic)
        reading = readings.read(corpus.reader or corpus.name, root, corpus.options)
        _tell(corpus.name, root, reading)
        manifest = reading.manifest
    renamed = Manifest(manifest.root, corpus.name, manifest.task, manifest.labels, manifest.table)
    return Source(renamed, corpus, reader=manifest.corpus)


def _tell(name: str, root: Path, reading: Reading) -> None:
    """Problems one by one up to a few; what costs nothing only as a count."""
    problems = [issue for issue in reading.issues if issue.severity != "note"]
    for issue in problems[:_ISSUES_SHOWN]:
        LOG.warning("%s: %s", name, issue)
    if len(reading.issues) > min(len(problems), _ISSUES_SHOWN):
        LOG.warning("%s: %d issues in all; list them: python jobs/doctor.py %s", name, len(reading.issues), root)


def synthesise(corpus: CorpusConfig, root: Path, size: str) -> None:
    """Writes the synthetic corpus of that size, whole or not at all; keeps one that is there."""
    from tqdm import tqdm

    from ssm_platform.synthetic import PRESETS, write_corpus

    if size not in PRESETS:
        raise ValueError(f"data.corpora.{corpus.name}.synthetic is {size!r}; known sizes: {', '.join(PRESETS)}")
    with tqdm(disable=None, desc=f"writing synthetic {corpus.name}", unit="part", delay=1) as bar:

        def advance(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        write_corpus(
            corpus.reader or corpus.name, root, PRESETS[size], _SYNTHETIC_SEED, os.cpu_count() or 1, on_job=advance
        )


def plan_config(config: RunConfig, manifests: list[Manifest]) -> PlanConfig:
    """The plan's share of a run's config; corpora without a weight count by their records."""
    named = {manifest.corpus: config.corpus(manifest.corpus).weight for manifest in manifests}
    if all(weight is None for weight in named.values()):
        weights = None
    else:
        weights = {manifest.corpus: named[manifest.corpus] or float(len(manifest)) for manifest in manifests}
    data = config.data
    return PlanConfig(
        fe_batch=data.fe_batch,
        au_batch=data.au_batch,
        va_batch=data.va_batch,
        frames=config.model.frames,
        seed=config.seed,
        weights=weights,
    )


def training_plan(config: RunConfig, prepared: Prepared) -> Plan:
    """The order of training of a run."""
    return Plan.of(prepared.train, plan_config(config, prepared.train))


def total_steps(config: RunConfig, plan: Plan) -> int:
    """Optimiser steps of a run: `steps` where it is set, else whole epochs."""
    return config.steps or config.epochs * plan.steps_per_epoch
