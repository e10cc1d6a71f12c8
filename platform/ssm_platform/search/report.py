"""After a sweep: tables, the HTML page, the best setting as a recipe, and the best model tested once and registered.

Below the sweep's folder: `trials.csv|parquet`, `settings.csv|parquet`, `best.json` (what `jobs/train.py --recipe`
takes) and `sweep.html`. All of it follows from the trials' records, so it can be written again at any time.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2

from ssm_platform.base import describe_machine, open_storage, override
from ssm_platform.cluster import joined
from ssm_platform.evaluate import Outcome, assess
from ssm_platform.runs import preflight
from ssm_platform.search import charts
from ssm_platform.search.findings import Findings, findings, write_tables
from ssm_platform.search.space import Setting
from ssm_platform.search.sweep import Sweep
from ssm_platform.search.trials import Trial
from ssm_platform.train import complete, open_run

_TEXT = "model.text."
_WORDS = 40  # characters of a value in a table


@dataclass(frozen=True)
class SweepReport:
    """What a sweep left behind."""

    findings: Findings
    page: Path
    recipe: Path | None  # None where no setting finished
    outcome: Outcome | None  # of the best model on test clips


def conclude(sweep: Sweep, command: str) -> SweepReport:
    """Write everything that follows from the trials so far, and test the best model; without one where all failed."""
    found = findings(sweep.trials())
    write_tables(found, sweep.folder)
    recipe = None if found.best is None else write_recipe(sweep, found.best.setting)
    outcome = None if found.best_trial is None else _test(sweep, found.best_trial)
    page = "sweep.html"
    open_storage(str(sweep.folder)).write(page, render(sweep, found, recipe, outcome, command).encode())
    return SweepReport(found, sweep.folder / page, recipe, outcome)


def write_recipe(sweep: Sweep, setting: Setting) -> Path:
    """`best.json`: the recipe with the best setting, reading the corpora where the recipe read them."""
    config = override(sweep.base, setting).model_copy(update={"name": f"{sweep.config.name}-best"})
    open_storage(str(sweep.folder)).write("best.json", config.model_dump_json(indent=2).encode())
    return sweep.folder / "best.json"


def render(sweep: Sweep, found: Findings, recipe: Path | None, outcome: Outcome | None, command: str) -> str:
    """The page as text: one self-contained file."""
    trials, dimensions = found.trials, sweep.space.dimensions
    scored = any(trial.score is not None for trial in trials)
    done = any(trial.state == "finished" for trial in trials)
    style = next((field for field in found.fields if field.startswith(_TEXT) and "style" in field), None)
    varied = [field for field in found.fields if field in dimensions]
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("ssm_platform.search", "."), autoescape=True, undefined=jinja2.StrictUndefined
    )
    return environment.get_template("page.html.j2").render(
        title=sweep.config.name,
        method={"grid": "grid", "random": "random", "bayes": "Bayesian"}[sweep.config.method],
        machine=describe_machine(),
        fields=found.fields,
        seeds=max((len(one.trials) for one in found.settings), default=0),
        trials=len(trials),
        **{state: sum(trial.state == state for trial in trials) for state in ("finished", "stopped")},
        failed=[trial for trial in trials if trial.state == "failed"],
        seconds=sum(trial.seconds for trial in trials),
        best=found.best,
        evaluation=None if outcome is None else outcome.evaluation,
        version=None if outcome is None else outcome.version,
        parallel=charts.parallel(found, sweep.space) if scored else None,
        styles=charts.effect(found, style, dimensions[style]) if done and style is not None else None,
        effects=[charts.effect(found, field, dimensions[field]) for field in varied if field != style] if done else [],
        progress=charts.progress(found),
        settings=sorted(found.settings, key=lambda one: (-one.score.mean if one.score else 1.0, one.number)),
        short=_short,
        command=command,
        recipe=recipe,
    )


def _test(sweep: Sweep, trial: Trial) -> Outcome:
    """The best trial's model on test clips, and in the registry beside the runs."""
    with joined(preflight.cpus_needed(override(sweep.base, trial.setting))):
        config = sweep.ground().config(trial)
        result = complete(open_run(config))  # trains nothing; writes the model where a death came before that
        return assess(result.folder, registry=f"{Path(sweep.base.storage).absolute()}/registry")


def _short(value: Any) -> str:
    text = "–" if value is None else f"{value:.4g}" if isinstance(value, float) else str(value)
    return text if len(text) <= _WORDS else f"…{text[1 - _WORDS :]}"
