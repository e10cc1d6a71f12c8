"""Valence and arousal of a test side: smoothed as validation chose, scored with intervals, and drawn.

The half-window of the box is that with the greatest mean CCC over the tables it is fitted on; of equal ones the least.
Frame scores without smoothing stand beside. Legend: N frames, K = 2 dimensions.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import numpy as np
from matplotlib.patches import Circle, Patch
from numpy.typing import NDArray

from ssm.interface import box
from ssm.labels import AFFECT
from ssm.metrics import AffectTable, affect_figures, mean_ccc, sums_by_subject
from ssm_platform.base.figures import BLUE, GREY, LIGHT, ORANGE, drawing, svg
from ssm_platform.evaluate.scores import AffectPath, Interval, VAScores

HALF_WINDOWS = (0, 2, 5, 10, 25, 50, 100)
"""The grid of half-windows."""

_BINS = 20  # of a picture's side
_PATHS, _POINTS = 3, 120  # sequences drawn over time, and points of each


def smoothed(table: AffectTable, half_window: int) -> AffectTable:
    """The table with its predictions smoothed within each stretch of frames."""
    found = box(table.predictions, half_window, table.lengths).astype(np.float32)
    return replace(table, predictions=found)


def fit_half_window(tables: Iterable[AffectTable]) -> int:
    """The half-window of the grid for all tables together; 0 where none has a CCC."""
    known = [table for table in tables if not np.isnan(mean_ccc(sums_by_subject(table).sum(0)))]
    if not known:
        return 0

    def quality(half_window: int) -> float:
        return float(np.mean([mean_ccc(sums_by_subject(smoothed(one, half_window)).sum(0)) for one in known]))

    return max(HALF_WINDOWS, key=lambda half_window: (round(quality(half_window), 9), -half_window))


def affect_scores(corpus: str, table: AffectTable, half_window: int) -> VAScores:
    """Scores of one corpus under the fitted half-window."""
    final = smoothed(table, half_window)
    figures, plain = affect_figures(final), affect_figures(table)
    return VAScores(
        corpus=corpus,
        frames=(int(figures.frames[0]), int(figures.frames[1])),
        subjects=figures.subjects,
        half_window=half_window,
        ccc=Interval.each(figures.ccc),
        pcc=Interval.each(figures.pcc),
        rmse=Interval.each(figures.rmse),
        sagr=Interval.each(figures.sagr),
        mean_ccc=Interval.of(figures.mean_ccc),
        mean_ccc_frames=Interval.of(plain.mean_ccc),
        density=tuple(_density(final, column) for column in range(len(AFFECT))),
        paths=_paths(final),
    )


def scatter_figure(scores: VAScores) -> str:
    """Predictions against labels, both dimensions on one picture each."""
    with drawing(6.4, 3.2) as (figure, first):
        first.set_axis_off()
        for place, name in enumerate(AFFECT):
            axes = figure.add_subplot(1, 2, place + 1)
            counts = np.array(scores.density[place], np.float64)
            axes.imshow(np.log1p(counts), cmap="Blues", origin="lower", extent=(-1, 1, -1, 1))
            axes.plot([-1, 1], [-1, 1], color=GREY, linewidth=1, linestyle="--")
            axes.set(xlabel="labelled", ylabel="predicted", title=name.capitalize())
        return svg(figure)


def circumplex_figure(scores: VAScores) -> str:
    """A few sequences over time in the plane of valence and arousal: labels grey, predictions in colour."""
    with drawing(3.6, 3.4) as (figure, axes):
        axes.add_patch(_circle())
        axes.axhline(0, color=LIGHT, linewidth=1)
        axes.axvline(0, color=LIGHT, linewidth=1)
        for path, colour in zip(scores.paths, (BLUE, ORANGE, "#3f8f5b"), strict=False):
            axes.plot(*np.array(path.labelled).T, color=GREY, linewidth=0.9)
            axes.plot(*np.array(path.predicted).T, color=colour, linewidth=1.3, label=path.sequence)
        axes.set(xlim=(-1, 1), ylim=(-1, 1), xlabel="valence", ylabel="arousal", title="Over time (grey: labels)")
        if scores.paths:
            axes.legend(frameon=False, fontsize=7, loc="lower right")
        return svg(figure)


def _circle() -> Patch:
    return Circle((0, 0), 1, fill=False, color=LIGHT, linewidth=1)


def _density(table: AffectTable, column: int) -> tuple[tuple[int, ...], ...]:
    """Frames by predicted (rows, from -1) and labelled value (columns)."""
    labels = table.labels[:, column]
    known = ~np.isnan(labels)
    edges = np.linspace(-1, 1, _BINS + 1)
    counts, _, _ = np.histogram2d(table.predictions[known, column], labels[known], bins=(edges, edges))
    return tuple(tuple(row) for row in counts.astype(int).tolist())


def _paths(table: AffectTable) -> tuple[AffectPath, ...]:
    """The longest stretches that are labelled throughout, thinned."""
    ends = np.cumsum(table.lengths)
    spans = [(int(end - length), int(end), name) for end, length, name in zip(
        ends, table.lengths, table.sequences, strict=True
    )]  # fmt: skip
    whole = [span for span in spans if not np.isnan(table.labels[span[0] : span[1]]).any()]
    longest = sorted(whole, key=lambda span: (span[0] - span[1], span[2]))[:_PATHS]
    return tuple(
        AffectPath(
            sequence=name,
            labelled=_points(table.labels[first:last]),
            predicted=_points(table.predictions[first:last]),
        )
        for first, last, name in longest
    )


def _points(values_NK: NDArray[np.float32]) -> tuple[tuple[float, float], ...]:
    rows = np.unique(np.linspace(0, len(values_NK) - 1, min(_POINTS, len(values_NK))).round().astype(int))
    return tuple((round(float(v), 3), round(float(a), 3)) for v, a in values_NK[rows])
