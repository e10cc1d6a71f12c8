"""What an evaluation says: typed, serialisable results that reports, registry, search and tables read.

Pure data; `ssm_platform.evaluate.scoring` fills it in. Every figure that can have one carries its bootstrap interval,
and an `Evaluation` always names its protocol (method, section 9): `published` numbers were selected on the test labels.
"""

from __future__ import annotations

import math
import platform
from importlib import metadata
from pathlib import Path
from typing import Self

from pydantic import BaseModel, ConfigDict, Field

from ssm_platform.runs import Protocol

PROTOCOL_NOTES: dict[str, str] = {
    "clean": "Model choice, thresholds and vote rule were fitted on held-out validation data and applied to test once.",
    "published": "Selected on the test labels, as the published protocol does: for comparison with papers only, not an "
    "estimate of how the model does on new people.",
    "lodo": "Leave one corpus out: the test corpus was not trained on; thresholds come from the other corpora.",
}


class Result(BaseModel):
    """Base of all results: immutable, no unknown fields."""

    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="strings")


class Interval(Result):
    """An estimate with its 95 % bootstrap interval (units are whole subjects, or clips where nobody knows subjects)."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return "n/a" if math.isnan(self.value) else f"{self.value:.3f} [{self.low:.3f}, {self.high:.3f}]"


class Reliability(Result):
    """Predicted probability against observed frequency, in equal bins of the prediction; pooled over AUs."""

    confidence: tuple[float, ...]
    observed: tuple[float, ...]
    counts: tuple[int, ...]


class AUScores(Result):
    """Frame-level scores of one AU corpus. Lists run over `aus`; nan where an AU has only one class here."""

    corpus: str
    aus: tuple[int, ...]
    frames: int
    subjects: int
    prevalence: tuple[float, ...] = Field(description="share of labelled frames on which the AU is active")
    f1: tuple[Interval, ...] = Field(description="F1 under the fitted threshold and vote rule")
    f1_half: tuple[Interval, ...] = Field(description="F1 at probability 0.5, no vote")
    macro_f1: Interval
    macro_f1_half: Interval
    roc_auc: tuple[float, ...]
    average_precision: tuple[float, ...]
    calibration_error: tuple[float, ...]
    reliability: Reliability

    @property
    def chance(self) -> tuple[float, ...]:
        """F1 of a model that calls the AU active on every frame: the bar a useful one must pass."""
        return tuple(2 * share / (1 + share) if share else 0.0 for share in self.prevalence)


class SoftScores(Result):
    """Against what several people said of each clip."""

    divergence: float = Field(description="mean KL(votes || prediction), in nats")
    agreement: float = Field(description="mean share of the votes for the class that the model names")
    ceiling: float = Field(description="the same for the most voted class: no model can do better")


class FEScores(Result):
    """Clip-level scores of one expression corpus, over the classes it uses."""

    corpus: str
    expressions: tuple[str, ...]
    clips: int
    uar: Interval = Field(description="mean of the class recalls")
    war: Interval = Field(description="share of clips that are right")
    recall: tuple[float, ...]
    confusion: tuple[tuple[int, ...], ...] = Field(description="row: true class, column: predicted")
    soft: SoftScores | None = Field(default=None, description="where the corpus has votes")


class NoiseFloor(Result):
    """How far a figure moves when other subjects are held out: standard deviations over repeated half splits."""

    repeats: int
    macro_f1: float | None = None
    auc: float | None = None
    uar: float | None = None

    @property
    def figures(self) -> dict[str, float]:
        """What is known, by name; empty where every corpus has too few subjects."""
        named = {"macro F1": self.macro_f1, "mean ROC-AUC": self.auc, "UAR": self.uar}
        return {name: value for name, value in named.items() if value is not None}


class MapReport(Result):
    """The association maps (E A): the prior, what was learned, and the truth where the corpus knows it."""

    expressions: tuple[str, ...]
    aus: tuple[int, ...]
    prior: tuple[tuple[float, ...], ...]
    learned: tuple[tuple[float, ...], ...]
    learned_fe_to_au: tuple[tuple[float, ...], ...] | None = Field(
        default=None, description="the learned map of the other direction, transposed to (E A)"
    )
    true: tuple[tuple[float, ...], ...] | None = None
    prior_correlation: float | None = Field(default=None, description="Pearson r of prior and truth, neutral left out")
    learned_correlation: float | None = Field(default=None, description="Pearson r of learned map and truth")


class Provenance(Result):
    """What is needed to get the same numbers again."""

    run: str
    command: str
    seed: int
    config_fingerprint: str
    data: dict[str, str] = Field(description="fingerprints of the training manifests by corpus")
    splits: dict[str, str] = Field(default={}, description="how each corpus was split, and into how many records")
    versions: dict[str, str]
    machine: str

    @staticmethod
    def installed() -> dict[str, str]:
        """Versions of what decides a result: Python and the numeric stack."""
        names = ("torch", "timm", "transformers", "numpy", "ray", "opencv-python-headless", "decord", "ssm-platform")
        found = {"python": platform.python_version()}
        for name in names:
            try:
                found[name] = metadata.version(name)
            except metadata.PackageNotFoundError:
                found[name] = "absent"
        return found


class Evaluation(Result):
    """Everything one evaluation of one run found."""

    protocol: Protocol
    fitted_on: str = Field(description="the split on which thresholds and vote rule were chosen")
    au: tuple[AUScores, ...] = ()
    fe: tuple[FEScores, ...] = ()
    noise: NoiseFloor
    maps: MapReport | None = None
    left_out: tuple[str, ...] = Field(default=(), description="what was not judged, and why")
    provenance: Provenance

    @property
    def macro_f1(self) -> float | None:
        """Mean macro F1 over AU corpora, None without one."""
        return sum(scores.macro_f1.value for scores in self.au) / len(self.au) if self.au else None

    @property
    def uar(self) -> float | None:
        """Mean UAR over expression corpora, None without one."""
        return sum(scores.uar.value for scores in self.fe) / len(self.fe) if self.fe else None

    def summary(self) -> str:
        """The few lines a terminal shows."""
        lines = [f"protocol {self.protocol}: {PROTOCOL_NOTES[self.protocol]}"]
        for s in self.au:
            always = sum(s.chance) / len(s.chance)
            lines.append(f"  {s.corpus}: macro F1 {s.macro_f1} (at 0.5: {s.macro_f1_half})")
            lines.append(f"    always positive {always:.3f}; {s.frames} frames of {s.subjects} subjects")
        for e in self.fe:
            lines.append(f"  {e.corpus}: UAR {e.uar}, WAR {e.war}")
            lines.append(f"    chance {1 / len(e.expressions):.3f}; {e.clips} clips")
            if e.soft is not None:
                votes = f"agrees with {e.soft.agreement:.3f} of the votes (at best {e.soft.ceiling:.3f})"
                lines.append(f"    {votes}, KL from them {e.soft.divergence:.3f}")
        floor = ", ".join(f"{name} +-{sd:.3f}" for name, sd in self.noise.figures.items())
        lines.append(f"  noise floor over {self.noise.repeats} half splits: {floor or 'too few test subjects for one'}")
        lines += [f"  left out: {one}" for one in self.left_out]
        return "\n".join(lines)

    @classmethod
    def read(cls, path: Path) -> Self:
        """What an assessment wrote to `path`; ValueError names the file."""
        try:
            return cls.model_validate_json(path.read_text())
        except ValueError as error:
            raise ValueError(f"{path}: not an evaluation of ours: {error}") from error
