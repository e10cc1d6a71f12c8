"""The pictures of a sweep, each a pure function from findings to SVG text, in the style of the run reports.

Knows no files and no Ray.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap

from ssm_platform.base.figures import BLUE, GREY, LIGHT, ORANGE, drawing, svg
from ssm_platform.search.findings import Estimate, Findings
from ssm_platform.search.space import Choices, Dimension, Range, Space
from ssm_platform.search.trials import Trial

_INK = "#1b2733"
_SCALE = LinearSegmentedColormap.from_list("score", [LIGHT, "#9dbfe3", BLUE, "#0d2f57"])
_LONGEST = 26  # characters of a tick label


def parallel(found: Findings, space: Space) -> str:
    """One line per trial through its settings to its score; darker is better, the best setting is orange."""
    trials = [trial for trial in found.trials if trial.score is not None]
    fields = [field for field in found.fields if field in space.dimensions]
    scores = np.array([trial.score for trial in trials], dtype=float)
    low, high = _padded(float(scores.min()), float(scores.max()))
    with drawing(max(5.5, 1.9 * (len(fields) + 1)), 3.7) as (figure, axes):
        columns = [_positions(field, space.dimensions[field], trials) for field in fields]
        columns.append((scores - low) / (high - low))
        for row in np.argsort(scores, kind="stable"):
            mine = found.best is not None and trials[row].setting == found.best.setting
            colour = ORANGE if mine else _SCALE(float(columns[-1][row]))
            axes.plot(range(len(columns)), [column[row] for column in columns], color=colour, linewidth=1.4, alpha=0.9)
        for place, field in enumerate(fields):
            _scale(axes, place, _ticks(space.dimensions[field]))
        _scale(
            axes, len(fields), [((value - low) / (high - low), f"{value:.3f}") for value in np.linspace(low, high, 5)]
        )
        axes.set_xticks(range(len(columns)), [*(_short(field) for field in fields), "score"])
        axes.set(xlim=(-0.35, len(columns) - 0.45), ylim=(-0.06, 1.06), yticks=[])
        axes.tick_params(axis="x", length=0, pad=8)
        for spine in axes.spines.values():
            spine.set_visible(False)
        return svg(figure)


def effect(found: Findings, field: str, dimension: Dimension) -> str:
    """Score against one field, a dot per finished trial; the mean of each choice with its interval."""
    trials = [trial for trial in found.trials if trial.state == "finished" and trial.score is not None]
    if isinstance(dimension, Range):
        return _against_range(trials, field, dimension)
    return ranking(found.by_value(field), _short(field), trials, field)


def ranking(
    estimates: Mapping[Any, Estimate], title: str, trials: Sequence[Trial] = (), field: str | None = None
) -> str:
    """Values from best to worst: mean, 95 % interval, and the single trials behind them."""
    names = [_name(value) for value in estimates]
    with drawing(4.6, 0.42 * len(names) + 1.2) as (figure, axes):
        for row, (value, one) in enumerate(estimates.items()):
            own = [_score(trial) for trial in trials if field is not None and _same(trial.setting.get(field), value)]
            axes.scatter(own, [row] * len(own), s=13, color=GREY, alpha=0.75, linewidths=0, zorder=2)
            if not math.isnan(one.low):
                axes.plot([one.low, one.high], [row, row], color=BLUE, linewidth=2, solid_capstyle="butt", zorder=3)
            axes.scatter([one.mean], [row], s=42, color=BLUE, zorder=4)
        axes.set_yticks(range(len(names)), names)
        axes.set(ylim=(len(names) - 0.4, -0.6), xlabel="validation score", title=title)
        axes.grid(axis="x", color=LIGHT)
        axes.set_axisbelow(True)
        axes.tick_params(axis="y", length=0)
        return svg(figure)


def progress(found: Findings) -> str:
    """Validation score over steps, a line per trial: what early stopping looked at."""
    with drawing(4.6, 2.9) as (figure, axes):
        for trial in found.trials:
            if trial.curve:
                steps, scores = zip(*trial.curve, strict=True)
                mine = found.best is not None and trial.setting == found.best.setting
                axes.plot(steps, scores, color=ORANGE if mine else BLUE, alpha=1 if mine else 0.35, linewidth=1.4)
                axes.scatter(steps[-1:], scores[-1:], s=12, color=ORANGE if mine else BLUE, linewidths=0)
        axes.set(xlabel="step", ylabel="validation score", title="Scores while training")
        axes.grid(axis="y", color=LIGHT)
        return svg(figure)


def _against_range(trials: Sequence[Trial], field: str, dimension: Range) -> str:
    with drawing(4.6, 2.9) as (figure, axes):
        points = sorted((float(trial.setting[field]), _score(trial)) for trial in trials)
        axes.scatter([x for x, _ in points], [y for _, y in points], s=22, color=BLUE, alpha=0.8, linewidths=0)
        if dimension.log:
            axes.set_xscale("log")
        axes.set(xlabel=_short(field), ylabel="validation score", title=_short(field))
        axes.grid(color=LIGHT)
        return svg(figure)


def _positions(field: str, dimension: Dimension, trials: Sequence[Trial]) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Where each trial crosses the axis of a field, in [0, 1]."""
    if isinstance(dimension, Choices):
        places = {_name(value): place for place, value in enumerate(dimension.values)}
        last = max(len(places) - 1, 1)
        jitter = np.linspace(-0.012, 0.012, len(trials)) if len(trials) > 1 else np.zeros(len(trials))
        return np.array([places[_name(trial.setting[field])] / last for trial in trials]) + jitter
    return np.array([_along(dimension, float(trial.setting[field])) for trial in trials])


def _ticks(dimension: Dimension) -> list[tuple[float, str]]:
    if isinstance(dimension, Choices):
        last = max(len(dimension.values) - 1, 1)
        return [(place / last, _name(value)) for place, value in enumerate(dimension.values)]
    low, high = dimension.low, dimension.high
    values = np.geomspace(low, high, 5) if dimension.log else np.linspace(low, high, 5)
    values = np.unique(values.round()) if dimension.integer else values
    return [(_along(dimension, float(value)), f"{value:.3g}") for value in values]


def _along(dimension: Range, value: float) -> float:
    low, high = dimension.low, dimension.high
    if dimension.log:
        return math.log(value / low) / math.log(high / low)
    return (value - low) / (high - low)


def _scale(axes: Axes, place: int, ticks: Sequence[tuple[float, str]]) -> None:
    axes.plot([place, place], [0, 1], color=GREY, linewidth=0.8, zorder=1)
    for height, text in ticks:
        axes.text(
            place - 0.03, height, text, ha="right", va="center", fontsize=7.5, color=_INK, zorder=6,
            bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.8, "pad": 0.6},
        )  # fmt: skip


def _padded(low: float, high: float) -> tuple[float, float]:
    return (low, high) if high > low else (low - 0.01, high + 0.01)


def _short(field: str) -> str:
    """The end of a field's path, which says enough on an axis."""
    return ".".join(field.split(".")[-2:])


def _name(value: Any) -> str:
    text = "none" if value is None else str(value)
    return text if len(text) <= _LONGEST else f"…{text[1 - _LONGEST :]}"


def _score(trial: Trial) -> float:
    return math.nan if trial.score is None else trial.score


def _same(setting: Any, value: Any) -> bool:
    return _name(setting) == _name(value)
