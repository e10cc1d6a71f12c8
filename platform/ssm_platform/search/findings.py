"""What a sweep found: settings with scores and intervals over their seeds, the best one, and the tables of it all.

Pure functions of the trials. An interval is Student's t at 95 % over the seeds of a setting; with one seed there is
none, and nothing is called better than anything. Settings are compared with the best seed by seed: the same seed draws
the same weights and the same order of clips, so most of the noise is in both.
"""

from __future__ import annotations

import json
import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from ssm_platform.search.space import Setting, key
from ssm_platform.search.trials import Trial

_LEVEL = 0.95


@dataclass(frozen=True)
class Estimate:
    """A mean with its 95 % interval; the ends are nan where one value has to do."""

    mean: float
    low: float
    high: float
    count: int

    @classmethod
    def of(cls, values: Sequence[float]) -> Estimate:
        """From independent values, at least one."""
        mean, count = float(np.mean(values)), len(values)
        if count < 2:
            return cls(mean, math.nan, math.nan, count)
        half = float(stats.t.ppf((1 + _LEVEL) / 2, count - 1) * np.std(values, ddof=1) / math.sqrt(count))
        return cls(mean, mean - half, mean + half, count)

    def __str__(self) -> str:
        return f"{self.mean:.3f}" + ("" if math.isnan(self.low) else f" [{self.low:.3f}, {self.high:.3f}]")


@dataclass(frozen=True)
class Found:
    """What one setting came to."""

    number: int  # in the order of the sweep, from 0
    setting: Setting
    trials: tuple[Trial, ...]
    score: Estimate | None  # over the seeds that have one; None where every trial failed
    behind: Estimate | None = None  # of the best setting, seed by seed; None for the best itself

    @property
    def comparable(self) -> bool:
        """Whether every trial of it finished: a score of fewer seeds or of fewer steps is no win."""
        return self.score is not None and all(trial.state == "finished" for trial in self.trials)

    @property
    def worse(self) -> bool:
        """Whether the best setting is better beyond the interval of their difference."""
        return self.behind is not None and self.behind.low > 0

    @property
    def seconds(self) -> float:
        """Training time of all its trials."""
        return sum(trial.seconds for trial in self.trials)


@dataclass(frozen=True)
class Findings:
    """All settings of a sweep in their order, and which is best."""

    settings: tuple[Found, ...]
    best: Found | None
    fields: tuple[str, ...]

    @property
    def trials(self) -> list[Trial]:
        """Every trial, setting by setting."""
        return [trial for found in self.settings for trial in found.trials]

    @property
    def best_trial(self) -> Trial | None:
        """The best seed of the best setting, by validation."""
        if self.best is None:
            return None
        return max(self.best.trials, key=lambda trial: (_score(trial), -trial.seed))

    def by_value(self, field: str) -> dict[Any, Estimate]:
        """Scores of a field's values, over all finished trials that share one; best first."""
        groups: dict[Any, list[float]] = {}
        for trial in self.trials:
            if trial.state == "finished" and trial.score is not None:
                groups.setdefault(_plain(trial.setting.get(field)), []).append(trial.score)
        estimates = {value: Estimate.of(scores) for value, scores in groups.items()}
        return dict(sorted(estimates.items(), key=lambda item: -item[1].mean))


def findings(trials: Sequence[Trial]) -> Findings:
    """Settings in the order in which they were begun. The best has the highest mean over all of its seeds."""
    groups: dict[str, list[Trial]] = {}
    for trial in trials:
        groups.setdefault(key(trial.setting), []).append(trial)
    listed = [_found(number, tuple(group)) for number, group in enumerate(groups.values())]
    seeds = max((len(found.trials) for found in listed), default=0)
    able = [found for found in listed if found.comparable and len(found.trials) == seeds]
    best = max(able, key=lambda found: (_mean(found), -found.number), default=None)
    fields = dict.fromkeys(field for found in listed for field in found.setting)
    return Findings(tuple(_compared(found, best) for found in listed), best, tuple(fields))


def trial_table(found: Findings) -> pd.DataFrame:
    """One row per trial: setting, seed, state, score, its figures, steps, seconds, error."""
    rows = []
    for one in found.settings:
        for trial in sorted(one.trials, key=lambda trial: trial.seed):
            row = {"number": one.number, "trial": trial.name, **_columns(one, found.fields), "seed": trial.seed}
            row |= {"state": trial.state, "score": trial.score, **dict(sorted(trial.metrics.items()))}
            rows.append({**row, "steps": trial.steps, "seconds": round(trial.seconds, 2), "error": trial.error})
    return _tidy(pd.DataFrame(rows), found.fields)


def setting_table(found: Findings) -> pd.DataFrame:
    """One row per setting: score and how far it is behind the best, both with intervals over seeds; best first."""
    rows = []
    for one in found.settings:
        row = {"number": one.number, **_columns(one, found.fields), "seeds": len(one.trials)}
        row |= {"finished": sum(trial.state == "finished" for trial in one.trials)}
        row |= _spread("score", one.score) | _spread("behind", one.behind)
        rows.append({**row, "worse": one.worse, "seconds": round(one.seconds, 2)})
    frame = pd.DataFrame(rows).sort_values(["score", "number"], ascending=[False, True], ignore_index=True)
    return _tidy(frame, found.fields)


def write_tables(found: Findings, folder: Path) -> None:
    """`trials` and `settings`, each as CSV and Parquet."""
    for name, frame in (("trials", trial_table(found)), ("settings", setting_table(found))):
        scratch = folder / f".{name}.part"
        frame.to_csv(scratch, index=False)
        scratch.replace(folder / f"{name}.csv")
        frame.to_parquet(scratch, index=False)
        scratch.replace(folder / f"{name}.parquet")


def _found(number: int, trials: tuple[Trial, ...]) -> Found:
    scores = [trial.score for trial in trials if trial.score is not None]
    return Found(number, trials[0].setting, trials, Estimate.of(scores) if scores else None)


def _compared(found: Found, best: Found | None) -> Found:
    if best is None or found.number == best.number:
        return found
    theirs = {trial.seed: trial.score for trial in found.trials if trial.score is not None}
    gaps = [_score(trial) - theirs[trial.seed] for trial in best.trials if trial.seed in theirs]
    behind = Estimate.of(gaps) if gaps else None
    return Found(found.number, found.setting, found.trials, found.score, behind)


def _mean(found: Found) -> float:
    return -math.inf if found.score is None else found.score.mean


def _score(trial: Trial) -> float:
    return -math.inf if trial.score is None else trial.score


def _columns(found: Found, fields: Sequence[str]) -> dict[str, Any]:
    return {field: _plain(found.setting.get(field)) for field in fields}


def _plain(value: Any) -> Hashable:
    """A value as a table can hold it: lists and tables as JSON."""
    return json.dumps(value) if isinstance(value, (list, tuple, dict)) else value


def _spread(name: str, estimate: Estimate | None) -> dict[str, float]:
    ends = (math.nan,) * 3 if estimate is None else (estimate.mean, estimate.low, estimate.high)
    return dict(zip((name, f"{name}_low", f"{name}_high"), ends, strict=True))


def _tidy(frame: pd.DataFrame, fields: Sequence[str]) -> pd.DataFrame:
    """Columns of one type each: a field with words and numbers becomes words."""
    for field in fields:
        values = [value for value in frame[field] if value is not None and value == value]
        if values and any(isinstance(value, str) for value in values):
            frame[field] = [None if value is None else str(value) for value in frame[field]]
    return frame
