"""Trials: what each one was and came to, as files that outlive the driver.

A trial is one setting with one seed, and its name follows from both, so the same trial after a restart has the same
record (`records/NAME.json`) and the same run folder (`trials/NAME/`): what is finished is never trained again, what was
cut off goes on from its checkpoint. Knows nothing of Ray.
"""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from ssm_platform.base import override
from ssm_platform.runs import RunConfig
from ssm_platform.search.space import Setting, key

TRIAL_CPUS = 0.01
"""CPUs of a trial's driver function, which only waits; Tune accepts no trial without resources."""

State = Literal["running", "finished", "stopped", "failed"]

Figure = Annotated[float, BeforeValidator(lambda value: math.nan if value is None else value)]
"""Of a validation; NaN where nothing can be said. Records of before hold null for that."""


class Trial(BaseModel):
    """One setting with one seed. `running` in a record that nobody is writing any more means cut off."""

    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="strings")

    name: str
    setting: Setting
    seed: int
    state: State = "running"
    started: float = Field(default_factory=time.time, description="Unix time of its first start")
    score: float | None = Field(
        default=None, description="best validation score; None before the first that is not NaN"
    )
    metrics: dict[str, Figure] = Field(default={}, description="validation figures at the best score")
    curve: tuple[tuple[int, Figure], ...] = Field(default=(), description="(step, score) of every validation")
    steps: int = 0
    seconds: float = Field(default=0.0, description="training time, start-up of its workers included")
    error: str | None = None

    @classmethod
    def of(cls, setting: Setting, seed: int) -> Self:
        """A trial that has not begun."""
        digest = hashlib.sha256(f"{key(setting)}/{seed}".encode()).hexdigest()[:8]
        return cls(name=f"{digest}-seed{seed}", setting=setting, seed=seed)

    @property
    def over(self) -> bool:
        """Whether nothing is left to do: trained to the end, or stopped early. A failed trial may be tried again."""
        return self.state in ("finished", "stopped")

    def scored(self, points: Iterable[dict[str, Any]]) -> Self:
        """With the validations `points` (each with `step` and `score`) as its curve and the best one as its score.

        NaN is no score.
        """
        listed = sorted({int(point["step"]): point for point in points}.items())
        if not listed:
            return self
        curve = tuple((step, float(point["score"])) for step, point in listed)
        changes: dict[str, Any] = {"curve": curve, "steps": listed[-1][0]}
        if able := [(step, point) for step, point in listed if not math.isnan(point["score"])]:
            _, best = max(able, key=lambda item: (item[1]["score"], -item[0]))
            figures = {name: float(value) for name, value in best.items() if name not in ("step", "score")}
            changes |= {"score": float(best["score"]), "metrics": figures}
        return self.model_copy(update=changes)


class Records:
    """The trials of a sweep in its folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder / "records"

    def write(self, trial: Trial) -> None:
        """Keep a trial, whole or not at all."""
        self._folder.mkdir(parents=True, exist_ok=True)
        scratch = self._folder / f".{trial.name}.part"
        scratch.write_text(trial.model_dump_json(indent=1))
        scratch.replace(self._folder / f"{trial.name}.json")

    def find(self, name: str) -> Trial | None:
        """The trial of that name, None where it has not begun. ValueError names a file that is not a record."""
        path = self._folder / f"{name}.json"
        return _record(path) if path.is_file() else None

    def read(self) -> list[Trial]:
        """All trials, in the order of their first start. ValueError names a file that is not a record."""
        return sorted(map(_record, self._folder.glob("*.json")), key=lambda trial: (trial.started, trial.name))


def _record(path: Path) -> Trial:
    try:
        return Trial.model_validate_json(path.read_text())
    except ValueError as error:
        raise ValueError(f"{path}: not a record of a trial: {error}") from error


@dataclass(frozen=True)
class Budget:
    """How many trials run at once, and the steps of each."""

    concurrent: int
    steps: int


@dataclass(frozen=True)
class Ground:
    """What all trials share."""

    base: RunConfig
    folder: Path  # of the sweep
    seed: int  # of trials that a searcher asks for
    cwd: Path  # of the driver: files that a setting names are relative to it

    def config(self, trial: Trial) -> RunConfig:
        """The run that a trial is."""
        config = override(self.base, {**trial.setting, "seed": trial.seed})
        config = config.model_copy(update={"name": trial.name, "storage": str(self.folder / "trials")})
        return config.anchored(self.cwd)
