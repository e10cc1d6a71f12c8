"""A sweep: settings of a recipe tried with the trainer of `jobs/train.py`, resumable, within the CPUs there are.

    trials = Sweep(quickstart(), parse_space(["model.text.style=facs,label"], quickstart()), SweepConfig()).run()

Corpora are decoded into shards once, and every trial reads those. Scores are validation scores; test data is touched
once, by the winner, after the sweep. `run` called again after any death runs what is left and nothing twice.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from ssm_platform.base import OverrideError, open_storage, override
from ssm_platform.cluster import ClusterSize, joined
from ssm_platform.ingest import IngestSettings
from ssm_platform.ingest import run as ingest_corpus
from ssm_platform.runs import CorpusConfig, RunConfig, anchored, load, preflight
from ssm_platform.search.space import Space, SpaceError
from ssm_platform.search.trials import TRIAL_CPUS, Budget, Ground, Records, Trial
from ssm_platform.train import open_run

_CLAIM = "sweep.json"
_BASE = "base"  # folder of the recipe that all trials start from
_WHOLE = 16384  # pixels of a stored frame's longer side: no frame is shrunk, since a trial warps it as the recipe would
_QUALITY = 100  # of frames that came out of a video; owners' JPEG files are stored as they are


class SweepConfig(BaseModel):
    """How a space is searched."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(default="sweep", pattern=r"^[\w.\-]+$", description="name of the sweep and of its folder")
    method: Literal["random", "grid", "bayes"] = Field(default="random", description="how settings are chosen")
    trials: int = Field(default=8, ge=1, le=10_000, description="settings of a random or Bayesian search")
    repeats: int = Field(default=1, ge=1, le=100, description="seeds per setting, so that noise is not taken for a win")
    early_stopping: bool = Field(default=False, description="ASHA: end trials whose validation score lags")
    cpus: float | None = Field(
        default=None, gt=0, description="CPUs, as declared to Ray, that trials may take together; null: all there are"
    )

    @model_validator(mode="after")
    def _fits(self) -> SweepConfig:
        if self.repeats > 1 and (self.method == "bayes" or self.early_stopping):
            raise ValueError(
                f"repeats is {self.repeats}: seeds are compared between finished runs of the same settings, "
                f"so take grid or random, without early stopping"
            )
        return self


@dataclass(frozen=True)
class Sweep:
    """A sweep over `space` around `base`; everything it writes lies in `folder`."""

    base: RunConfig
    space: Space
    config: SweepConfig

    @property
    def folder(self) -> Path:
        """`storage/name`, a folder that all machines of the cluster see."""
        return Path(self.base.storage).absolute() / self.config.name

    def check(self) -> int:
        """Everything that can be refused before Ray starts; returns the steps of a trial. ValueError says what."""
        if "://" in self.base.storage:
            raise SpaceError(f"storage is {self.base.storage}: a sweep needs a folder, shared where there are machines")
        if self.config.repeats > 1 and "seed" in self.space.dimensions:
            raise SpaceError(
                f"seed is varied and repeats is {self.config.repeats}: repeats are seeds; drop one of them"
            )
        for config in self._probed():
            preflight.require(preflight.check_config(config))
        needed = self.needed()
        if self.config.cpus is not None and self.config.cpus < needed:
            raise SpaceError(f"cpus is {self.config.cpus:g}: one trial needs {needed:g}")
        steps = open_run(self.base.model_copy(update={"storage": str(self.folder), "name": _BASE})).job.total
        self._claim()
        return steps

    def run(self) -> list[Trial]:
        """Run what is left; returns every trial in the order of their start. Nothing starts where `check` refuses."""
        steps = self.check()
        with joined(self.config.cpus or self.needed()) as size:
            preflight.require(self._refusals(size))
            if self._left() != []:
                self._tune(Budget(self.concurrent(size), steps))
        return self.trials()

    def trials(self) -> list[Trial]:
        """The trials so far, those of earlier starts included."""
        return Records(self.folder).read()

    def concurrent(self, size: ClusterSize) -> int:
        """Trials at once. Tune's own default starts more than the cluster holds, and they wait for each other."""
        scale = self._greediest().scale
        by_cpu = int(min(size.cpus, self.config.cpus or size.cpus) / self.needed())
        return max(1, min(by_cpu, int(size.gpus // scale.bounds[1])) if scale.gpu else by_cpu)

    def needed(self) -> float:
        """CPUs that one trial takes, its driver included."""
        return preflight.cpus_needed(self._greediest()) + TRIAL_CPUS

    def listed(self) -> list[Trial] | None:
        """All trials of a grid or random sweep, seeds of one setting together; None where a searcher chooses."""
        config, first = self.config, self.base.seed
        if config.method == "bayes":
            return None
        settings = self.space.grid() if config.method == "grid" else self.space.random(config.trials, first)
        seeds = range(first, first + config.repeats)
        return [Trial.of(setting, setting.get("seed", seed)) for setting in settings for seed in seeds]

    def ground(self) -> Ground:
        """What all trials share. Makes the shards that are not there yet: Ray must be joined."""
        return Ground(self._shared_corpora(), self.folder, self.base.seed, Path.cwd())

    def _left(self) -> list[Trial] | None:
        """The listed trials that are not over; None where a searcher has trials left to choose."""
        over = {trial.name for trial in self.trials() if trial.over}
        listed = self.listed()
        if listed is None:
            return None if len(over) < self.config.trials else []
        return [trial for trial in listed if trial.name not in over]

    def _tune(self, budget: Budget) -> None:
        from ssm_platform.data import keep_pace
        from ssm_platform.search import tuning

        keep_pace()
        ground, left = self.ground(), self._left()
        if left is None:
            tuning.run_searched(self.space, self.config.trials, ground, budget, self.config.early_stopping)
        else:
            tuning.run_listed(left, ground, budget, self.config.early_stopping)

    def _shared_corpora(self) -> RunConfig:
        """The recipe on shards that are decoded once for all trials, frames as the recipe itself would see them."""
        data = self.base.data
        corpora = [self._shards(corpus) for corpus in data.corpora]
        return self.base.model_copy(update={"data": data.model_copy(update={"corpora": tuple(corpora)})})

    def _shards(self, corpus: CorpusConfig) -> CorpusConfig:
        from ssm_platform.ingest import on_ray

        manifest = load(corpus)
        if manifest.codes("kind")[1] == ["shard"]:
            return corpus.model_copy(update={"manifest": anchored(corpus.manifest or "", Path.cwd())})
        summary = ingest_corpus(manifest, self.folder / "shards" / corpus.name, stored(self.base), on_ray)
        return corpus.model_copy(update={"root": None, "synthetic": None, "manifest": summary.manifest})

    def _probed(self) -> Iterator[RunConfig]:
        """The recipes of listed trials; one per value where a searcher chooses. SpaceError names a setting refused."""
        listed = self.listed()
        probes = [{field: value} for field, dimension in self.space.dimensions.items() for value in dimension.probes()]
        for setting in probes if listed is None else [trial.setting for trial in listed]:
            try:
                yield override(self.base, setting)
            except OverrideError as error:
                raise SpaceError(f"the recipe refuses {setting}: {error}") from error

    def _greediest(self) -> RunConfig:
        return max(self._probed(), key=preflight.cpus_needed)

    def _refusals(self, size: ClusterSize) -> list[preflight.Refusal]:
        refusals = preflight.check_cluster(self._greediest(), size)
        if not refusals and (needed := self.needed()) > size.cpus:
            why = (
                f"one trial needs {needed:g} CPUs, {TRIAL_CPUS:g} of them for its driver; the cluster has {size.cpus:g}"
            )
            refusals = [preflight.Refusal("scale or data.decode_workers", why)]
        return refusals

    def _claim(self) -> None:
        """Refuse a folder that holds another sweep; more trials or repeats of the same are welcome."""
        dimensions = {name: asdict(dimension) for name, dimension in self.space.dimensions.items()}
        mine = {"recipe": self.base.mathematics(), "space": dimensions, "method": self.config.method}
        path = self.folder / _CLAIM
        mine = json.loads(json.dumps(mine))
        if path.is_file():
            there = json.loads(path.read_text())
            if other := sorted(name for name in mine if there.get(name) != mine[name]):
                raise SpaceError(f"{path}: holds a sweep with another {', '.join(other)}; choose another --name")
            return
        open_storage(str(self.folder)).write(_CLAIM, json.dumps(mine, indent=1).encode())


def stored(base: RunConfig) -> IngestSettings:
    """How frames are stored so that trials see what the recipe would: whole, and as good as they came."""
    return IngestSettings(crops="always", size=_WHOLE, quality=_QUALITY, decoder=base.data.decoder)
