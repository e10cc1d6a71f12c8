"""The doctor's page: a `Diagnosis` as one self-contained HTML file with its plots inside.

Knows how a report looks and nothing about how its numbers came to be. Colours and type are those of the run report.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Callable, Mapping

import jinja2
import matplotlib
import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ssm_platform.base.figures import BLUE, GREY, LIGHT, ORANGE, STYLE
from ssm_platform.corpora.doctor.diagnosis import Diagnosis
from ssm_platform.records import Task

_LISTED = 400  # bad lines on the page; issues.csv holds all
_INK = "#1b2733"
_TITLES: Mapping[Task, str] = {
    "au": "Frames with each action unit",
    "fe": "Clips of each expression",
    "va": "Frames with positive affect",
}


def render(diagnosis: Diagnosis) -> str:
    """The page as text."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("ssm_platform.corpora.doctor", "."),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
    )
    bad = [issue for issue in diagnosis.issues if issue.severity != "note"]
    return environment.get_template("page.html.j2").render(
        d=diagnosis, figures=_figures(diagnosis), bad=bad, listed=bad[:_LISTED]
    )


def _figures(diagnosis: Diagnosis) -> dict[str, str]:
    """Title -> picture, for what there is to draw."""
    if not diagnosis.records:
        return {}
    count, wide = len(diagnosis.labels), max(5.0, 0.5 * len(diagnosis.labels) + 1.6)
    title = _TITLES[diagnosis.task]
    figures = {title: _picture(wide, 3.0, lambda axes: _balance(axes, diagnosis))}
    if len(diagnosis.parts) > 1:
        tall = 0.34 * len(diagnosis.parts) + 1.3
        figures["The same, part by part (%)"] = _picture(wide, tall, lambda axes: _by_part(axes, diagnosis))
    figures["Frames per record"] = _picture(4.6, 2.8, lambda axes: _length_bars(axes, diagnosis))
    if count > 1 and diagnosis.together:
        side = 0.36 * count + 1.2
        figures["Active together"] = _picture(side + 0.4, side, lambda axes: _co_occurrence(axes, diagnosis))
    return figures


def _picture(width: float, height: float, draw: Callable[[Axes], None]) -> str:
    """A figure as a data URI (SVG)."""
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(width, height), layout="constrained")
        draw(figure.add_subplot())
        buffer = io.BytesIO()
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    return "data:image/svg+xml;base64," + base64.b64encode(buffer.getvalue()).decode()


def _balance(axes: Axes, diagnosis: Diagnosis) -> None:
    at = np.arange(len(diagnosis.labels))
    axes.bar(at, [label.percent for label in diagnosis.labels], width=0.62, color=BLUE, label="here")
    published = [
        (index, label.published) for index, label in enumerate(diagnosis.labels) if label.published is not None
    ]
    if published:
        places, values = np.array(published, float).T
        axes.hlines(values, places - 0.38, places + 0.38, color=ORANGE, linewidth=1.8, label="published")
        axes.legend(frameon=False, fontsize=8)
    for index, label in enumerate(diagnosis.labels):
        axes.annotate(f"{label.percent:.1f}", (index, label.percent), ha="center", va="bottom", fontsize=7, color=_INK)
    _name(axes, at, diagnosis)
    axes.set_ylabel("% of clips" if diagnosis.task == "fe" else "% of scored frames")
    axes.grid(axis="y", color=LIGHT)
    axes.set_axisbelow(True)


def _by_part(axes: Axes, diagnosis: Diagnosis) -> None:
    values = np.array([[np.nan if p is None else p for p in part.percents] for part in diagnosis.parts], float)
    top = max(float(np.nanmax(values, initial=0.0)), 1.0)
    axes.imshow(values, cmap="Blues", vmin=0, vmax=top, aspect="auto")
    _write_cells(axes, values, top)
    _name(axes, np.arange(len(diagnosis.labels)), diagnosis)
    axes.set_yticks(range(len(diagnosis.parts)), [part.part for part in diagnosis.parts])
    _bare(axes)


def _co_occurrence(axes: Axes, diagnosis: Diagnosis) -> None:
    values = np.array([[np.nan if v is None else v for v in row] for row in diagnosis.together], float)
    np.fill_diagonal(values, np.nan)
    axes.imshow(values, cmap="Blues", vmin=0, vmax=100)
    _write_cells(axes, values, 100.0)
    _name(axes, np.arange(len(values)), diagnosis)
    axes.set_yticks(range(len(values)), [label.label for label in diagnosis.labels])
    axes.set_ylabel("of the frames of this AU, % that also show")
    _bare(axes)


def _length_bars(axes: Axes, diagnosis: Diagnosis) -> None:
    lengths = diagnosis.lengths
    if lengths is None:
        return
    axes.stairs(lengths.counts, lengths.edges, fill=True, color=BLUE)
    axes.axvline(lengths.median, color=ORANGE, linewidth=1.5, label=f"median {lengths.median:g}")
    axes.set_xlabel("frames")
    axes.set_ylabel("records")
    axes.legend(frameon=False, fontsize=8)


def _write_cells(axes: Axes, values: npt.NDArray[np.float64], top: float) -> None:
    for row, column in np.ndindex(*values.shape):
        value = values[row, column]
        if np.isfinite(value):
            colour = "white" if value > 0.55 * top else _INK
            axes.text(column, row, f"{value:.0f}", ha="center", va="center", fontsize=7, color=colour)


def _name(axes: Axes, at: npt.NDArray[np.int64], diagnosis: Diagnosis) -> None:
    axes.set_xticks(at, [label.label for label in diagnosis.labels], rotation=40, ha="right", rotation_mode="anchor")


def _bare(axes: Axes) -> None:
    axes.tick_params(length=0, color=GREY)
    for spine in axes.spines.values():
        spine.set_visible(False)
