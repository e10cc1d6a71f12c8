"""Ray Tune over Ray Train: trials as driver functions of the same trainer, as many at once as the budget holds.

Tune holds no state that matters: every result goes into `Records` as it comes, and a sweep that is started again gives
Tune what is left, its searcher the scores so far and its early stopping the curves so far. (Restoring Tune's own
snapshot was the other way; it is written every few seconds, so trials that had finished since would be trained again.)
"""

from __future__ import annotations

import logging
import os
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import redirect_stderr
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import optuna
from ray import tune
from ray.tune.integration.ray_train import TuneReportCallback
from ray.tune.schedulers import ASHAScheduler
from ray.tune.search.optuna import OptunaSearch
from tqdm import tqdm

from ssm_platform.base import has_screen
from ssm_platform.search.space import Choices, Dimension, Space
from ssm_platform.search.trials import TRIAL_CPUS, Budget, Ground, Records, Trial
from ssm_platform.train import TrainingResult, complete, open_run

METRIC = "score"
_FACTOR = 3  # of ASHA: the better third goes on at each rung
_SETTING = "setting"


def run_listed(trials: Sequence[Trial], ground: Ground, budget: Budget, early_stopping: bool) -> None:
    """Run these trials, in their order."""
    past = Records(ground.folder).read()
    tuner = tune.Tuner(
        _trainable(ground),
        param_space={_SETTING: tune.grid_search([{"fields": trial.setting, "seed": trial.seed} for trial in trials])},
        tune_config=_tune_config(budget, _asha(ground, budget, past) if early_stopping else None),
        run_config=_run_config(ground, past, len(trials)),
    )
    tuner.fit()


def run_searched(space: Space, count: int, ground: Ground, budget: Budget, early_stopping: bool) -> None:
    """Run trials that Optuna's TPE asks for until there are `count`; those that were cut off come first."""
    past = Records(ground.folder).read()
    scores = {trial.name: trial.score for trial in past if trial.over and trial.score is not None}
    remaining = count - sum(trial.over for trial in past)
    searcher = _searcher(space, ground.seed, past, scores)
    tuner = tune.Tuner(
        _trainable(ground),
        tune_config=_tune_config(budget, _asha(ground, budget, past) if early_stopping else None, searcher, remaining),
        run_config=_run_config(ground, past, remaining),
    )
    tuner.fit()


def _searcher(space: Space, seed: int, past: Sequence[Trial], scores: Mapping[str, float]) -> OptunaSearch:
    """Optuna's TPE that knows the scores so far and begins with what was cut off."""
    cut_off = [trial.setting for trial in past if not trial.over]
    searcher = OptunaSearch(
        space={field: _distribution(dimension) for field, dimension in space.dimensions.items()},
        metric=METRIC,
        mode="max",
        seed=seed + len(scores),  # a resumed search must not draw its first settings again
        points_to_evaluate=cut_off or None,
    )
    for trial in past:
        if trial.name in scores:
            searcher.add_evaluated_point(trial.setting, scores[trial.name])
    return searcher


def _trainable(ground: Ground) -> Any:
    # Tune's own tables on the screen, and its CSV, JSON and TensorBoard files beside each trial: the records are ours.
    os.environ.update({"RAY_AIR_NEW_OUTPUT": "0", "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1"})
    logging.getLogger("ray.tune.analysis.experiment_analysis").setLevel(logging.ERROR)  # it looks for those files
    return tune.with_resources(partial(_run_trial, ground=ground), {"CPU": TRIAL_CPUS})


def _run_trial(parameters: dict[str, Any], *, ground: Ground) -> None:
    """One trial, in a process of its own: trains like `jobs/train.py`, and reports each validation to Tune."""
    trial = _asked(parameters, ground.seed)
    known = Records(ground.folder).find(trial.name)
    if known is not None and known.over and known.score is not None:  # a searcher may ask for the same setting twice
        tune.report({METRIC: known.score, "step": known.steps})
        return
    started = time.monotonic()
    listener: Any = TuneReportCallback
    with Path(os.devnull).open("w") as nowhere, redirect_stderr(nowhere):  # bars: the sweep draws its own
        result = complete(open_run(ground.config(trial)), callbacks=[listener()])
    tune.report({**_last(result), "points": _points(result), "seconds": time.monotonic() - started})


def _last(result: TrainingResult) -> dict[str, float]:
    """The best score, for the searcher."""
    return {METRIC: float(result.best.score or 0.0), "step": float(result.steps)}


def _points(result: TrainingResult) -> list[dict[str, float]]:
    """All validations of a run, also those before an interruption."""
    found = []
    for point in result.curves:
        figures = {name.removeprefix("validation/"): value for name, value in point.items() if "validation/" in name}
        if figures:
            found.append({**figures, "step": point["step"]})
    return found


def _asked(parameters: Mapping[str, Any], seed: int) -> Trial:
    listed = parameters.get(_SETTING)
    return Trial.of(listed["fields"], listed["seed"]) if listed else Trial.of(dict(parameters), seed)


class _Recorder(tune.Callback):
    """Writes every trial's record as it starts and ends, and draws the sweep's bar; in a log a line for each trial."""

    def __init__(self, ground: Ground, past: Sequence[Trial], total: int) -> None:
        self._ground = ground
        self._records = Records(ground.folder)
        self._known = {trial.name: trial for trial in past}
        self._points: dict[str, list[dict[str, Any]]] = {}
        self._started: dict[str, float] = {}
        self._title, self._over, self._total = f"sweep {ground.folder.name}", 0, total
        self._bar: Any = None  # made in `setup`: Tune pickles its callbacks first, and a notebook's screen cannot be
        self._best = max((trial.score for trial in past if trial.score is not None), default=None)

    def setup(self, *args: Any, **info: Any) -> None:
        """Begin the bar."""
        self._bar = tqdm(total=self._total, desc=self._title, unit="trial", disable=not has_screen())

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Remember that it began: it is the first to go on after a death."""
        mine = self._of(trial)
        self._started[trial.trial_id] = time.monotonic()
        if mine.name not in self._known:
            self._known[mine.name] = mine
            self._records.write(mine)

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any
    ) -> None:
        """Keep the validations of trials that will not end by themselves."""
        points = self._points.setdefault(trial.trial_id, [])
        points.extend(result.get("points") or ([_figures(result)] if METRIC in result else []))

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Finished, or stopped early."""
        mine, last = self._of(trial), trial.last_result or {}
        if not self._known[mine.name].over:
            state = "finished" if "points" in last else "stopped"
            seconds = float(last.get("seconds", last.get("time_total_s", 0.0)))
            self._end(trial, {"state": state, "seconds": seconds, "error": None})
        self._advance()

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Failed: the sweep goes on."""
        seconds = time.monotonic() - self._started.get(trial.trial_id, time.monotonic())
        self._end(trial, {"state": "failed", "seconds": seconds, "error": _reason(trial)})
        self._advance()

    def on_experiment_end(self, trials: list[Any], **info: Any) -> None:
        """Leave the bar as it is."""
        self._bar.close()

    def _of(self, trial: Any) -> Trial:
        mine = _asked(trial.config, self._ground.seed)
        return self._known.get(mine.name, mine)

    def _end(self, trial: Any, changes: dict[str, Any]) -> None:
        ended = self._of(trial).model_copy(update=changes).scored(self._points.get(trial.trial_id, ()))
        self._known[ended.name] = ended
        self._records.write(ended)
        if ended.score is not None and (self._best is None or ended.score > self._best):
            self._best = ended.score

    def _advance(self) -> None:
        self._over += 1
        best = "" if self._best is None else f"best score {self._best:.3f}"
        self._bar.set_postfix_str(best, refresh=False)
        self._bar.update()
        if self._bar.disable:
            print(f"{self._title}: {self._over}/{self._total} trials {best}".rstrip(), file=sys.stderr, flush=True)


def _figures(result: Mapping[str, Any]) -> dict[str, Any]:
    """A validation as Ray Train's first worker reported it, without what Tune added."""
    return {name: value for name, value in result.items() if name in (METRIC, "step") or name.count("/") == 1}


def _reason(trial: Any) -> str:
    """The last line of what a trial ended with; Tune has not yet moved its file to storage when it calls back."""
    try:
        lines = Path(trial.error_file or "").read_text().splitlines()
    except OSError:
        lines = []
    return next((line.strip() for line in reversed(lines) if line.strip()), "ended without a message")


def _asha(ground: Ground, budget: Budget, past: Sequence[Trial]) -> ASHAScheduler:
    """Early stopping that knows the curves of the trials before this start.

    The last step is no rung: a trial that got so far ends by itself, with its model saved.
    """
    grace = min(ground.base.validate_every, max(budget.steps - 1, 1))
    controller: Any = None
    scheduler = ASHAScheduler(
        time_attr="step",
        metric=METRIC,
        mode="max",
        max_t=max(budget.steps - 1, grace),
        grace_period=grace,
        reduction_factor=_FACTOR,
        stop_last_trials=False,
    )
    for trial in past:
        stand_in: Any = SimpleNamespace(trial_id=trial.name)
        scheduler.on_trial_add(controller, stand_in)
        for step, score in trial.curve:
            scheduler.on_trial_result(controller, stand_in, {"step": step, METRIC: score})
    return scheduler


def _tune_config(budget: Budget, scheduler: Any, searcher: Any = None, count: int = 1) -> Any:
    return tune.TuneConfig(
        metric=METRIC if scheduler is None else None,
        mode="max" if scheduler is None else None,
        num_samples=count,
        max_concurrent_trials=budget.concurrent,
        search_alg=searcher,
        scheduler=scheduler,
        reuse_actors=True,  # a new process per trial would import torch again
        trial_dirname_creator=lambda trial: trial.trial_id,
    )


def _run_config(ground: Ground, past: Sequence[Trial], total: int) -> Any:
    return tune.RunConfig(
        name=f"attempt-{time.time_ns():x}",
        storage_path=str(ground.folder / "tune"),
        callbacks=[_Recorder(ground, past, total)],
        verbose=0,
    )


def _distribution(dimension: Dimension) -> optuna.distributions.BaseDistribution:
    if isinstance(dimension, Choices):
        return optuna.distributions.CategoricalDistribution(list(dimension.values))
    low, high = dimension.low, dimension.high
    if dimension.integer:
        return optuna.distributions.IntDistribution(int(low), int(high), log=dimension.log)
    return optuna.distributions.FloatDistribution(low, high, log=dimension.log)
