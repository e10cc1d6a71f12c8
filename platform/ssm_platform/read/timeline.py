"""Plots of a table: AU timelines with the expression above them, one picture per face."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ssm.labels import ACTION_UNITS, Vocabulary
from ssm_platform.base import part_path
from ssm_platform.read.tables import read_table

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MOST_FACES = 8
"""Faces that get a picture: those in most frames."""

_POINTS = 2000  # along the time axis; more would not be seen
_INK, _SOFT, _MARK = "#1f6f8b", "#cfe3ea", "#b4532a"


def plot_faces(table: Path, vocabulary: Vocabulary, stem: Path) -> list[Path]:
    """`<stem>.face0.png`, ... of a written table; no file where no face was found."""
    frames = read_table(table)
    present = frames[frames["success"] == 1]
    counts = present["face_id"].value_counts()
    written = []
    for face_id in sorted(int(face) for face in counts.index[:MOST_FACES]):
        rows = present[present["face_id"] == face_id]
        path = stem.with_name(f"{stem.name}.face{face_id}.png")
        part = part_path(path, ".png")
        timeline(rows, vocabulary, f"face {face_id}").savefig(part, dpi=110)
        part.replace(path)
        written.append(path)
    return written


def timeline(rows: Any, vocabulary: Vocabulary, title: str) -> Figure:
    """The figure of one face's rows (a pandas frame)."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    timed = rows["timestamp"].notna().any()
    time = rows["timestamp" if timed else "frame"].to_numpy(float)
    figure = Figure(figsize=(11, 2.2 + 0.34 * len(vocabulary.aus)), layout="constrained")
    FigureCanvasAgg(figure)
    keep = _thinned(len(time))
    ratios = [1, max(1.2, len(vocabulary.aus) / 5)] if vocabulary.expressions else [1]
    panels = figure.subplots(len(ratios), 1, sharex=True, height_ratios=ratios, squeeze=False)[:, 0]
    if vocabulary.expressions:
        names = list(vocabulary.expressions)
        panels[0].stackplot(time[keep], rows[names].to_numpy(float)[keep].T, labels=names)
        panels[0].set(ylim=(0, 1), ylabel="expression")
        panels[0].legend(loc="center left", bbox_to_anchor=(1.0, 0.5), fontsize=8, frameon=False)
    panels[0].set_title(title)
    _au_rows(panels[-1], time, rows, vocabulary, keep)
    panels[-1].set_xlabel("seconds" if timed else "picture")
    return figure


def _au_rows(axes: Any, time: NDArray[np.float64], rows: Any, vocabulary: Vocabulary, keep: NDArray[np.intp]) -> None:
    """One band per AU: the probability as an area, presence as a line under it."""
    for place, code in enumerate(vocabulary.au_codes):
        floor = -float(place)
        height = rows[code].to_numpy(float)[keep] * 0.75
        if f"{code}_u" in rows:
            _shade(axes, time[keep], rows[f"{code}_u"].to_numpy(float)[keep], floor)
        axes.fill_between(time[keep], floor, floor + height, color=_SOFT, linewidth=0)
        axes.plot(time[keep], floor + height, color=_INK, linewidth=0.8)
        here = rows[f"{code}_c"].to_numpy(float)[keep] == 1
        axes.plot(time[keep], np.where(here, floor - 0.08, np.nan), color=_MARK, linewidth=2.5)
    labels = [f"{ACTION_UNITS[number].code} {ACTION_UNITS[number].name}" for number in vocabulary.aus]
    axes.set_yticks(-np.arange(len(labels), dtype=float) + 0.3, labels, fontsize=8)
    axes.set_ylim(-len(labels) + 0.7, 1)


def _shade(axes: Any, time: NDArray[np.float64], doubts: NDArray[np.float64], floor: float) -> None:
    """Grey behind an AU's band, the darker the less is known."""
    if len(time) > 1:
        shown = np.nan_to_num(np.clip(doubts, 0, 1))[None]
        extent = (float(time[0]), float(time[-1]), floor - 0.12, floor + 0.8)
        axes.imshow(shown, extent=extent, aspect="auto", cmap="Greys", vmin=0, vmax=1.6, zorder=0)


def _thinned(length: int) -> NDArray[np.intp]:
    return np.unique(np.linspace(0, length - 1, min(length, _POINTS)).astype(np.intp))
