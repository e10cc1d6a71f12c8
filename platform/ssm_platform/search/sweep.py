"""A sweep: settings of a recipe as Ray Tune trials of the same trainer, resumable, within the CPUs there are.

A trial is a driver function (`ray.md`: Tune over Train): it trains one config in a folder of its own below the sweep's,
so a trial that was cut off goes on from its checkpoint. Scores are validation scores; test data is touched once, by the
winner, after the sweep. `Sweep.run` called again after a death runs what is left and nothing twice.
"""

from __future__ import annotations

import functools
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from ssm_platform import cluster, preflight
from ssm_platform.config import RunConfig
from ssm_platform.search.space import Choices, Dimension, Setting, Space, SpaceError, apply, with_seeds
from ssm_platform.trainer import complete, open_run

_TRIAL_CPUS = 0.01  # of the driver function, which only waits
METRIC = "score"


class SweepConfig(BaseModel):
    """How a space is searched."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(default="sweep", pattern=r"^[\w.\-]+$", description="name of the sweep and of its folder")
    method: Literal["random", "grid", "bayes"] = Field(default="random", description="how settings are chosen")
    trials: int = Field(default=8, ge=1, le=10_000, description="settings of a random or Bayesian search")
    repeats: int = Field(default=1, ge=1, le=100, description="seeds per setting, so that noise is not taken for a win")
    early_stopping: bool = Field(default=False, description="ASHA: end trials whose validation score lags")
    seed: int = Field(default=1, ge=0, description="seed of the choice of settings, and first seed of the trials")

    @model_validator(mode="after")
    def _fits(self) -> SweepConfig:
        if self.repeats > 1 and (self.method == "bayes" or self.early_stopping):
            raise ValueError("repeats above 1 compare finished runs: use grid or random without early stopping")
        return self


@dataclass(frozen=True)
class Trial:
    """One finished, stopped or failed trial."""

    number: int  # of the setting
    setting: Setting
    seed: int
    score: float | None  # best validation score; None where it failed before the first
    metrics: dict[str, float]
    steps: int
    seconds: float
    state: Literal["finished", "stopped", "failed"]
    error: str | None
    folder: str


@dataclass(frozen=True)
class Sweep:
    """A sweep over `space` around `base`; everything it writes lies below `base.storage/name`."""

    base: RunConfig
    space: Space
    config: SweepConfig

    @property
    def folder(self) -> Path:
        """The sweep's folder. Local: Tune's state lies there; checkpoints of trials may still lie on S3."""
        return Path(self.base.storage).absolute() / self.config.name

    def run(self) -> list[Trial]:
        """Run what is left of the sweep; returns every trial. PreflightError or SpaceError before anything starts."""
        from ray import tune

        base = self._prepared()
        needed = preflight.cpus_needed(base) + _TRIAL_CPUS
        with cluster.joined(needed) as size:
            preflight.require(preflight.check_cluster(base, size))
            tuner = self._tuner(base, max(1, int(size.cpus // needed)))
            results = tuner.fit()
            if results.errors and len(results.errors) == len(results):
                raise SpaceError(f"all {len(results)} trials failed; the first: {results.errors[0]}")
        assert isinstance(results, tune.ResultGrid)
        return sorted((_trial(result) for result in results), key=lambda trial: (trial.number, trial.seed))

    def _prepared(self) -> RunConfig:
        """The recipe with its corpora written and its paths absolute, and every setting of a list accepted by it."""
        base = _absolute(self.base)
        open_run(base.model_copy(update={"storage": str(self.folder), "name": "check"}))
        return base

    def _tuner(self, base: RunConfig, concurrent: int) -> Any:
        from ray import tune

        trainable = tune.with_resources(
            functools.partial(_run_trial, base=base, folder=str(self.folder)), {"CPU": _TRIAL_CPUS}
        )
        state = self.folder / "tune"
        if tune.Tuner.can_restore(str(state)):
            return tune.Tuner.restore(str(state), trainable, resume_unfinished=True, restart_errored=False)
        space, algorithm, samples = self._search()
        scheduler = None
        if self.config.early_stopping:
            scheduler = tune.schedulers.ASHAScheduler(
                time_attr="step", max_t=base.steps or 10**9, grace_period=base.validate_every, reduction_factor=3
            )
        return tune.Tuner(
            trainable,
            param_space=space,
            tune_config=tune.TuneConfig(
                metric=METRIC,
                mode="max",
                num_samples=samples,
                max_concurrent_trials=concurrent,
                search_alg=algorithm,
                scheduler=scheduler,
                reuse_actors=False,
            ),
            run_config=tune.RunConfig(name="tune", storage_path=str(self.folder), verbose=0),
        )

    def _search(self) -> tuple[dict[str, Any], Any, int]:
        """Tune's parameter space, search algorithm and number of samples."""
        from ray import tune

        config = self.config
        if config.method == "bayes":
            from ray.tune.search.optuna import OptunaSearch

            space = {field: _tune_dimension(dimension) for field, dimension in self.space.dimensions.items()}
            return {"fields": space}, OptunaSearch(metric=METRIC, mode="max", seed=config.seed), config.trials
        settings = self.space.grid() if config.method == "grid" else self.space.random(config.trials, config.seed)
        seeds = range(config.seed, config.seed + config.repeats)
        listed = [{"number": number, "fields": fields} for number, fields in with_seeds(settings, seeds)]
        return {"listed": tune.grid_search(listed)}, None, 1


def _run_trial(parameters: dict[str, Any], *, base: RunConfig, folder: str) -> None:
    """One trial, in a process of its own: trains and reports each validation to Tune."""
    from ray import tune
    from ray.tune.integration.ray_train import TuneReportCallback

    started = time.monotonic()
    chosen = parameters.get("listed") or {"number": None, "fields": parameters["fields"]}
    name = str(tune.get_context().get_trial_id())
    config = apply(base, chosen["fields"]).model_copy(update={"name": name, "storage": f"{folder}/trials"})
    result = complete(open_run(config), callbacks=[TuneReportCallback()])
    best = result.best.score
    tune.report({METRIC: best, "best": best, "step": result.steps, "seconds": time.monotonic() - started, "done": True})


def _trial(result: Any) -> Trial:
    metrics = result.metrics or {}
    chosen = result.config.get("listed") or {"number": None, "fields": result.config["fields"]}
    setting = dict(chosen["fields"])
    seed = int(setting.pop("seed", 0))
    history = result.metrics_dataframe
    scores = [] if history is None or METRIC not in history else [float(value) for value in history[METRIC]]
    name = str(metrics.get("trial_id") or Path(result.path).name)
    return Trial(
        number=chosen["number"] if chosen["number"] is not None else int(name.rpartition("_")[2] or 0),
        setting=setting,
        seed=seed,
        score=max(scores) if scores else None,
        metrics={key: float(value) for key, value in metrics.items() if "/" in key and isinstance(value, (int, float))},
        steps=int(metrics.get("step", 0)),
        seconds=float(metrics.get("seconds", metrics.get("time_total_s", 0.0))),
        state="failed" if result.error else "finished" if "best" in metrics else "stopped",
        error=str(result.error).strip().splitlines()[-1] if result.error else None,
        folder=str(Path(result.path).parents[1] / "trials" / name),
    )


def _tune_dimension(dimension: Dimension) -> Any:
    from ray import tune

    if isinstance(dimension, Choices):
        return tune.choice(list(dimension.values))
    low, high = dimension.low, dimension.high
    if dimension.integer:
        draw = tune.lograndint if dimension.log else tune.randint
        return draw(int(low), int(high) + 1)
    return tune.loguniform(low, high) if dimension.log else tune.uniform(low, high)


def _absolute(config: RunConfig) -> RunConfig:
    """Paths of corpora made absolute: trials run in other directories."""
    corpora = tuple(
        corpus.model_copy(
            update={
                name: str(Path(value).absolute())
                for name in ("root", "manifest")
                if (value := getattr(corpus, name)) is not None and "://" not in value
            }
        )
        for corpus in config.data.corpora
    )
    return config.model_copy(update={"data": config.data.model_copy(update={"corpora": corpora})})


def save_trials(trials: Sequence[Trial], path: Path) -> None:
    """The trials as JSON, whole or not at all."""
    scratch = path.with_suffix(".part")
    scratch.write_text(json.dumps([vars(trial) for trial in trials], indent=1))
    scratch.replace(path)
