"""The figures of a report, each a pure function from numbers to SVG text.

Knows no files and no runs. One palette and one type size throughout: blue for a measured value, grey for what it
is compared with. SVG keeps a report sharp at any size and its text searchable.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

BLUE, ORANGE, GREY, LIGHT = "#2563a8", "#c2571a", "#8a929c", "#e3e6ea"
_MAPS_IN_A_ROW = 2
STYLE: Any = {
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": GREY,
    "axes.titlesize": 10,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "figure.facecolor": "white",
    "svg.fonttype": "none",
    "svg.hashsalt": "ssm",  # the same numbers give the same bytes
}


def f1_bars(
    labels: Sequence[str], values: NDArray[np.floating], low: NDArray[np.floating], high: NDArray[np.floating],
    baseline: NDArray[np.floating], title: str,
) -> str:  # fmt: skip
    """Bars with intervals, one per label; `baseline` (always positive) is a grey mark on each bar."""
    with drawing(max(4.5, 0.55 * len(labels) + 1.5), 3.0) as (figure, axes):
        at = np.arange(len(labels))
        axes.bar(at, values, width=0.62, color=BLUE)
        errors = np.clip(np.stack([values - low, high - values]), 0, None)
        axes.errorbar(at, values, yerr=errors, fmt="none", ecolor="#1b2733", elinewidth=1.1, capsize=2.5)
        axes.hlines(baseline, at - 0.38, at + 0.38, color=ORANGE, linewidth=1.6, label="always positive")
        axes.set_xticks(at, labels)
        axes.set_ylim(0, 1)
        axes.set_ylabel("F1")
        axes.set_title(title)
        axes.legend(frameon=False, loc="lower right", bbox_to_anchor=(1.0, 0.99), borderaxespad=0, fontsize=8)
        return svg(figure)


def confusion(matrix: NDArray[np.integer], names: Sequence[str], title: str) -> str:
    """Row-normalised confusion: row = true expression, column = predicted; counts printed in the cells."""
    shares = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    size = 0.62 * len(names) + 2.0
    with drawing(size + 0.4, size) as (figure, axes):
        axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
        for row, column in np.argwhere(matrix):
            colour = "white" if shares[row, column] > 0.55 else "#1b2733"
            axes.text(
                column,
                row,
                f"{shares[row, column]:.0%}\n{matrix[row, column]}",
                ha="center",
                va="center",
                color=colour,
                fontsize=7,
            )
        _name_axes(axes, names, names)
        axes.set_xlabel("predicted")
        axes.set_ylabel("true")
        axes.set_title(title)
        return svg(figure)


def maps(panels: Mapping[str, NDArray[np.floating]], expressions: Sequence[str], aus: Sequence[str]) -> str:
    """Association maps (E A), two in a row, on one colour scale, so that prior, learned and true can be compared."""
    rows = -(-len(panels) // _MAPS_IN_A_ROW)
    width = (0.27 * len(aus) + 0.3) * _MAPS_IN_A_ROW + 1.7
    top = max(float(panel.max()) for panel in panels.values()) or 1.0
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(width, (0.28 * len(expressions) + 1.1) * rows), layout="constrained")
        for index, (name, panel) in enumerate(panels.items()):
            axes = figure.add_subplot(rows, _MAPS_IN_A_ROW, index + 1)
            image = axes.imshow(panel, cmap="Blues", vmin=0, vmax=top, aspect="auto")
            _name_axes(axes, aus, [""] * len(expressions) if index % _MAPS_IN_A_ROW else expressions)
            axes.set_title(name)
        figure.colorbar(image, ax=figure.axes, shrink=0.8, label="weight")
        return svg(figure)


def curves(history: Mapping[str, Sequence[tuple[int, float]]], title: str, ylabel: str) -> str:
    """Lines over training steps, one per named series of (step, value)."""
    with drawing(5.2, 2.9) as (figure, axes):
        for (name, points), colour in zip(history.items(), _cycle(), strict=False):
            steps, values = zip(*points, strict=True) if points else ((), ())
            axes.plot(steps, values, label=name, color=colour, linewidth=1.5, marker="o" if len(points) < 3 else None)
        axes.set_xlabel("step")
        axes.set_ylabel(ylabel)
        axes.set_title(title)
        axes.grid(axis="y", color=LIGHT)
        if history:
            axes.legend(frameon=False, fontsize=8)
        return svg(figure)


def reliability(
    confidence: NDArray[np.floating], accuracy: NDArray[np.floating], counts: NDArray[np.integer], title: str
) -> str:
    """Observed frequency of an AU against its predicted probability, one point per bin, sized by its frames."""
    with drawing(3.2, 3.0) as (figure, axes):
        axes.plot([0, 1], [0, 1], color=GREY, linewidth=1, linestyle="--")
        shown = counts > 0
        sizes = 12 + 160 * counts[shown] / max(int(counts.max()), 1)
        axes.scatter(confidence[shown], accuracy[shown], s=sizes, color=BLUE, alpha=0.8)
        axes.set(xlim=(0, 1), ylim=(0, 1), xlabel="predicted", ylabel="observed", title=title)
        return svg(figure)


def risk(coverage: NDArray[np.floating], wrong: NDArray[np.floating], title: str) -> str:
    """Share of wrong answers against the share of answers given, surest first."""
    with drawing(3.2, 3.0) as (figure, axes):
        axes.plot(coverage, wrong, color=BLUE, linewidth=1.5)
        axes.set(xlim=(0, 1), ylim=(0, None), xlabel="coverage", ylabel="wrong among them", title=title)
        axes.grid(axis="y", color=LIGHT)
        return svg(figure)


@contextmanager
def drawing(width: float, height: float) -> Iterator[tuple[Figure, Axes]]:
    """A figure of that many inches with one pair of axes, in the house style."""
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(width, height), layout="constrained")
        yield figure, figure.add_subplot()


def _name_axes(axes: Axes, columns: Sequence[str], rows: Sequence[str]) -> None:
    axes.set_xticks(range(len(columns)), columns, rotation=45, ha="right", rotation_mode="anchor")
    axes.set_yticks(range(len(rows)), rows)
    axes.tick_params(length=0)
    for spine in axes.spines.values():
        spine.set_visible(False)


def _cycle() -> Iterator[str]:
    while True:
        yield from (BLUE, ORANGE, "#3f8f5b", "#7b4fa3", GREY, "#1b2733")


def svg(figure: Figure) -> str:
    """The figure as an SVG element, the same bytes for the same numbers."""
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None})
    text = buffer.getvalue()
    return text[text.index("<svg") :]
