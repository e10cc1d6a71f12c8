"""The HTML report of a run: one self-contained file made from an `Evaluation`, the training history and some clips.

Knows how a report looks and nothing about how its numbers came to be.
"""

from __future__ import annotations

import base64
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import cv2
import jinja2
import numpy as np
from numpy.typing import NDArray

from ssm.interface import notice
from ssm.labels import ACTION_UNITS
from ssm_platform.base import figures
from ssm_platform.evaluate.affect import circumplex_figure, scatter_figure
from ssm_platform.evaluate.scores import PROTOCOL_NOTES, AUScores, Evaluation, FEScores, Interval, RiskCoverage
from ssm_platform.faces import blurred

History = Mapping[str, Sequence[tuple[int, float]]]
"""Named series of (step, value)."""


@dataclass(frozen=True)
class Thumbnail:
    """A strip of frames of one clip, and what is to be said about it."""

    caption: str
    jpeg: str  # base64

    @classmethod
    def of(cls, frames: NDArray[np.uint8], caption: str, blur: bool = False) -> Thumbnail:
        """Frames (N, H, W, 3) RGB side by side; with `blur` nobody in them can be recognised."""
        whole = (0.0, 0.0, float(frames.shape[2]), float(frames.shape[1]))
        shown = [blurred(frame, [whole]) if blur else frame for frame in frames]
        strip = cv2.cvtColor(np.concatenate(shown, axis=1), cv2.COLOR_RGB2BGR)
        _, encoded = cv2.imencode(".jpg", strip, [cv2.IMWRITE_JPEG_QUALITY, 85])
        return cls(caption, base64.b64encode(encoded.tobytes()).decode())


def render(
    evaluation: Evaluation,
    losses: History | None = None,
    validation: History | None = None,
    thumbnails: Mapping[str, Sequence[Thumbnail]] | None = None,
    rules: Mapping[int, str] | None = None,
) -> str:
    """The page as text. `rules` says in words how each AU is decided; `thumbnails` are titled rows of clips."""
    training = []
    if losses:
        training.append(figures.curves(losses, "Losses", "loss"))
    if validation:
        training.append(figures.curves(validation, "Validation", "score"))
    per_corpus = {scores.corpus: _au_figures(scores) for scores in evaluation.every_au}
    per_corpus |= {scores.corpus: _fe_figures(scores) for scores in evaluation.every_fe}
    per_corpus |= {
        scores.corpus: {"scatter": scatter_figure(scores), "circumplex": circumplex_figure(scores)}
        for scores in evaluation.every_va
    }
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("ssm_platform.evaluate.report", "."),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters |= {"number": number, "bounds": bounds}
    return environment.get_template("page.html.j2").render(
        evaluation=evaluation,
        note=PROTOCOL_NOTES[evaluation.protocol],
        notice=notice(expressions=True),
        training=training,
        figures=per_corpus,
        map_figure=_map_figure(evaluation),
        thumbnails=thumbnails or {},
        rules=rules or {},
        codes={number: unit.code for number, unit in ACTION_UNITS.items()},
        names={number: unit.name for number, unit in ACTION_UNITS.items()},
    )


def _au_figures(scores: AUScores) -> dict[str, str]:
    values, low, high = (np.array([getattr(f1, part) for f1 in scores.f1]) for part in ("value", "low", "high"))
    codes = [ACTION_UNITS[number].code for number in scores.aus]
    bins = scores.reliability
    return {
        "bars": figures.f1_bars(
            codes, values, low, high, np.array(scores.chance), "F1 per action unit, 95 % intervals over subjects"
        ),
        "reliability": figures.reliability(
            np.array(bins.confidence), np.array(bins.observed), np.array(bins.counts), "Calibration"
        ),
        "risk": _risk(scores.risk),
        "doubt": _risk(scores.evidence.risk, "Risk and coverage by doubt") if scores.evidence else "",
    }


def _fe_figures(scores: FEScores) -> dict[str, str]:
    title = f"Confusion: UAR {scores.uar.value:.3f}, WAR {scores.war.value:.3f}"
    return {
        "confusion": figures.confusion(np.array(scores.confusion), scores.expressions, title),
        "risk": _risk(scores.risk),
    }


def _risk(found: RiskCoverage, title: str = "Risk and coverage") -> str:
    return figures.risk(np.array(found.coverage), np.array(found.risk), title)


def number(value: float) -> str:
    """Three digits, or that there is nothing to show."""
    return "n/a" if math.isnan(value) else f"{value:.3f}"


def bounds(interval: Interval) -> str:
    """An interval in words, with the people behind it."""
    if math.isnan(interval.low):
        return f"no interval, subjects: {interval.subjects}"
    return f"95 % interval {interval.low:.3f} – {interval.high:.3f}, subjects: {interval.subjects}"


def _map_figure(evaluation: Evaluation) -> str | None:
    maps = evaluation.maps
    if maps is None:
        return None
    panels = {"prior": np.array(maps.prior), "learned, AU to expression": np.array(maps.learned)}
    if maps.learned_fe_to_au is not None:
        panels["learned, expression to AU"] = np.array(maps.learned_fe_to_au)
    if maps.true is not None:
        panels["true association"] = np.array(maps.true)
    return figures.maps(panels, maps.expressions, [ACTION_UNITS[number].code for number in maps.aus])
