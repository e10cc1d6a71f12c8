"""What an evaluation says: typed, serialisable results that reports, registry, search and tables read.

Pure data; `ssm_platform.evaluate.scoring` fills it in. Every figure that can have one carries its interval,
and an `Evaluation` always names its protocol (method, section 9): `published` numbers were selected on the test labels.
"""

from __future__ import annotations

import math
import platform
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field

from ssm.interface import Abstention, Smoothing
from ssm.metrics import Estimate

EvaluationProtocol = Literal["clean", "published", "published_per_au", "lodo"]
"""What a run can be evaluated under: those it can be split for, and a second reading of `published`."""

PROTOCOL_NOTES: dict[EvaluationProtocol, str] = {
    "clean": "Model choice, thresholds and vote rule were fitted on held-out validation data and applied to test once.",
    "published": "Selected on the test labels, as the published protocol does, with one threshold and vote for all "
    "AUs: for comparison with papers only, not an estimate of how the model does on new people.",
    "published_per_au": "Selected on the test labels with a threshold and vote per AU, which flatters more than the "
    "published protocol does: not an estimate of how the model does on new people.",
    "lodo": "Leave one corpus out: the test corpus was not trained on; thresholds come from the other corpora.",
}


class Result(BaseModel):
    """Base of all results: immutable, no unknown fields."""

    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="strings")


class Interval(Result):
    """An estimate with its 95 % interval (units are whole subjects, or clips where nobody knows subjects)."""

    value: float
    low: float
    high: float
    subjects: int = Field(description="subjects that the figure rests on; fewer than two give no interval")

    @classmethod
    def of(cls, estimate: Estimate) -> Self:
        """Of a scalar estimate."""
        value, low, high, subjects = estimate.value, estimate.low, estimate.high, estimate.subjects
        return cls(value=float(value), low=float(low), high=float(high), subjects=int(subjects))

    @classmethod
    def each(cls, estimate: Estimate) -> tuple[Self, ...]:
        """Of an estimate of several figures."""
        parts = (estimate.value.tolist(), estimate.low.tolist(), estimate.high.tolist(), estimate.subjects.tolist())
        return tuple(
            cls(value=value, low=low, high=high, subjects=subjects)
            for value, low, high, subjects in zip(*parts, strict=True)
        )

    def __str__(self) -> str:
        """With the number of subjects behind it."""
        if math.isnan(self.value):
            return "n/a"
        if math.isnan(self.low):
            return f"{self.value:.3f} [no interval, n {self.subjects}]"
        return f"{self.value:.3f} [{self.low:.3f}, {self.high:.3f}, n {self.subjects}]"


class Reliability(Result):
    """Predicted probability against observed frequency, in equal bins of the prediction; pooled over AUs."""

    confidence: tuple[float, ...]
    observed: tuple[float, ...]
    counts: tuple[int, ...]


class Calibration(Result):
    """Expected calibration error (AUs: mean over AUs; expressions: of the likeliest class), and what one number mends.

    The temperature is fitted on the validation side, never on what is judged here.
    """

    before: float
    temperature: float | None = Field(default=None, description="None where validation has no labels to fit it on")
    after: float | None = None

    def __str__(self) -> str:
        if self.temperature is None or self.after is None:
            return f"{self.before:.3f} (no temperature: nothing to fit it on)"
        return f"{self.before:.3f}, after temperature {self.temperature:.2f}: {self.after:.3f}"


class RiskCoverage(Result):
    """Share of wrong answers among the surest: at each coverage, and its mean over all coverages."""

    coverage: tuple[float, ...]
    risk: tuple[float, ...]
    area: float


class EvidenceScores(Result):
    """What a model that gives evidence says of its own doubt."""

    tilted_error: float = Field(description="calibration error of its probabilities before the asymmetry is undone")
    risk: RiskCoverage = Field(description="least doubt first")
    given: float | None = Field(default=None, description="share of the answers given under the fitted abstention")
    wrong: float | None = Field(default=None, description="share of those that is wrong, under the fitted rule")

    def __str__(self) -> str:
        found = f"calibration error before the asymmetry was undone {self.tilted_error:.3f}; area under risk and "
        found += f"coverage by doubt {self.risk.area:.3f}"
        if self.given is None or self.wrong is None:
            return found
        return f"{found}; abstaining, {self.given:.1%} of answers are given and {self.wrong:.1%} of these are wrong"


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
    roc_auc: tuple[Interval, ...]
    mean_auc: Interval
    average_precision: tuple[float, ...]
    calibration_error: tuple[float, ...]
    calibration: Calibration
    risk: RiskCoverage
    reliability: Reliability
    evidence: EvidenceScores | None = Field(default=None, description="of a model that gives evidence")

    @property
    def chance(self) -> tuple[float, ...]:
        """F1 of a model that calls the AU active on every frame: the bar a useful one must pass; nan without labels."""
        return tuple(2 * share / (1 + share) if share else 0.0 for share in self.prevalence)

    @property
    def mean_chance(self) -> float:
        """Over the AUs that count in macro F1."""
        known = [chance for chance, f1 in zip(self.chance, self.f1, strict=True) if not math.isnan(f1.value)]
        return sum(known) / len(known) if known else math.nan


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
    subjects: int = Field(description="as many as clips where nobody names subjects")
    uar: Interval = Field(description="mean of the class recalls")
    war: Interval = Field(description="share of clips that are right")
    recall: tuple[Interval, ...]
    confusion: tuple[tuple[int, ...], ...] = Field(description="row: true class, column: predicted")
    calibration: Calibration
    risk: RiskCoverage
    soft: SoftScores | None = Field(default=None, description="where the corpus has votes")


class AffectPath(Result):
    """A sequence over time in the plane of (valence, arousal), thinned for a picture."""

    sequence: str
    labelled: tuple[tuple[float, float], ...]
    predicted: tuple[tuple[float, float], ...]


class VAScores(Result):
    """Frame-level scores of one corpus with affect, all labelled frames joined. Pairs are (valence, arousal)."""

    corpus: str
    frames: tuple[int, int] = Field(description="labelled")
    subjects: int
    half_window: int = Field(description="of the box that predictions are smoothed by, fitted on validation")
    ccc: tuple[Interval, ...] = Field(description="concordance")
    pcc: tuple[Interval, ...]
    rmse: tuple[Interval, ...]
    sagr: tuple[Interval, ...] = Field(description="share of frames with the sign of the label")
    mean_ccc: Interval
    mean_ccc_frames: Interval = Field(description="without smoothing")
    density: tuple[tuple[tuple[int, ...], ...], ...] = Field(description="frames by predicted and labelled value")
    paths: tuple[AffectPath, ...] = ()


class GroupScore(Result):
    """A figure on the people of one group alone."""

    corpus: str
    column: str = Field(description="what people are grouped by: sex, age, ...")
    group: str
    measure: str
    subjects: int
    score: Interval


class NoiseFloor(Result):
    """How far a figure moves when other subjects are held out: standard deviations over repeated half splits."""

    repeats: int
    macro_f1: float | None = None
    auc: float | None = None
    uar: float | None = None
    ccc: float | None = None

    @property
    def figures(self) -> dict[str, float]:
        """What is known, by name; empty where every corpus has too few subjects."""
        named = {"macro F1": self.macro_f1, "mean ROC-AUC": self.auc, "UAR": self.uar, "mean CCC": self.ccc}
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
    model: str = Field(default="", description="SHA-256 of the weights that were evaluated")
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

    protocol: EvaluationProtocol
    fitted_on: str = Field(description="the split on which thresholds and vote rule were chosen")
    au: tuple[AUScores, ...] = ()
    fe: tuple[FEScores, ...] = ()
    au_pooled: AUScores | None = Field(default=None, description="all AU corpora as one, where there are several")
    fe_pooled: FEScores | None = Field(
        default=None, description="all expression corpora as one, where there are several"
    )
    va: tuple[VAScores, ...] = ()
    va_pooled: VAScores | None = Field(default=None, description="all corpora with affect, where there are several")
    smoothing: Smoothing | None = Field(default=None, description="what is done to frame scores; None: nothing")
    groups: tuple[GroupScore, ...] = Field(default=(), description="the same figures on groups of people")
    noise: NoiseFloor
    maps: MapReport | None = None
    abstention: Abstention | None = Field(default=None, description="fitted on validation, where a risk was wanted")
    left_out: tuple[str, ...] = Field(default=(), description="what was not judged, and why")
    undefined: tuple[str, ...] = Field(default=(), description="figures that are nan, and why")
    provenance: Provenance

    @property
    def macro_f1(self) -> float | None:
        """Mean macro F1 over the AU corpora where it is defined, None without one."""
        return _mean([scores.macro_f1.value for scores in self.au])

    @property
    def uar(self) -> float | None:
        """Mean UAR over the expression corpora where it is defined, None without one."""
        return _mean([scores.uar.value for scores in self.fe])

    @property
    def mean_ccc(self) -> float | None:
        """Mean CCC over the corpora with affect where it is defined, None without one."""
        return _mean([scores.mean_ccc.value for scores in self.va])

    @property
    def every_au(self) -> tuple[AUScores, ...]:
        """Per corpus, then pooled."""
        return (*self.au, *([self.au_pooled] if self.au_pooled else []))

    @property
    def every_fe(self) -> tuple[FEScores, ...]:
        """Per corpus, then pooled."""
        return (*self.fe, *([self.fe_pooled] if self.fe_pooled else []))

    @property
    def every_va(self) -> tuple[VAScores, ...]:
        """Per corpus, then pooled."""
        return (*self.va, *([self.va_pooled] if self.va_pooled else []))

    def summary(self) -> str:
        """The few lines a terminal shows."""
        lines = [f"protocol {self.protocol}: {PROTOCOL_NOTES[self.protocol]}"]
        for s in self.every_au:
            lines.append(f"  {s.corpus}: macro F1 {s.macro_f1} (at 0.5: {s.macro_f1_half}), AUC {s.mean_auc}")
            lines.append(f"    always positive {s.mean_chance:.3f}; {s.frames} frames of {s.subjects} subjects")
            lines.append(f"    calibration error {s.calibration}")
            lines += [f"    {s.evidence}"] if s.evidence else []
        for e in self.every_fe:
            lines.append(f"  {e.corpus}: UAR {e.uar}, WAR {e.war}")
            lines.append(f"    chance {1 / len(e.expressions):.3f}; {e.clips} clips of {e.subjects} subjects")
            lines.append(f"    calibration error {e.calibration}")
            if e.soft is not None:
                votes = f"agrees with {e.soft.agreement:.3f} of the votes (at best {e.soft.ceiling:.3f})"
                lines.append(f"    {votes}, KL from them {e.soft.divergence:.3f}")
        for v in self.every_va:
            lines.append(f"  {v.corpus}: mean CCC {v.mean_ccc} (frame by frame: {v.mean_ccc_frames})")
            lines.append(f"    valence {v.ccc[0]}, arousal {v.ccc[1]}; {max(v.frames)} frames of {v.subjects} subjects")
        lines += [f"  {g.corpus}, {g.column} {g.group}: {g.measure} {g.score}" for g in self.groups]
        floor = ", ".join(f"{name} +-{sd:.3f}" for name, sd in self.noise.figures.items())
        lines.append(f"  noise floor over {self.noise.repeats} half splits: {floor or 'too few test subjects for one'}")
        lines += [f"  left out: {one}" for one in self.left_out]
        lines += [f"  not defined: {one}" for one in self.undefined]
        return "\n".join(lines)

    @classmethod
    def read(cls, path: Path) -> Self:
        """What an assessment of this version wrote to `path`; ValueError names the file."""
        try:
            return cls.model_validate_json(path.read_text())
        except ValueError as error:
            raise ValueError(f"{path}: not an evaluation of this version; evaluate the run again: {error}") from error


def _mean(values: Sequence[float]) -> float | None:
    known = [value for value in values if not math.isnan(value)]
    if not values:
        return None
    return sum(known) / len(known) if known else math.nan
