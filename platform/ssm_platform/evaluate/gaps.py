"""Why a figure of a test side is not defined, in words: what the labels, the people or the scores do not allow."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from ssm.labels import AFFECT
from ssm.metrics import AffectTable, AUTable, ExpressionTable
from ssm_platform.evaluate.predictions import Table, Tables


def undefined(tables: Tables) -> list[str]:
    """One line for each thing that leaves figures nan or without an interval."""
    return [f"{corpus}: {line}" for corpus, table in tables.items() for line in _gaps(table)]


def _gaps(table: Table) -> Iterator[str]:
    if len(table.subjects) < 2:
        yield f"one subject ({table.subjects[0]}): no intervals"
    if isinstance(table, AffectTable):
        yield from _affect_gaps(table)
    else:
        yield from _au_gaps(table) if isinstance(table, AUTable) else _expression_gaps(table)


def _affect_gaps(table: AffectTable) -> Iterator[str]:
    for column, name in enumerate(AFFECT):
        known = ~np.isnan(table.labels[:, column])
        labels, found = table.labels[known, column], table.predictions[known, column]
        if not len(labels):
            yield f"{name} has no label: no figures"
        elif np.ptp(labels) == 0:
            yield f"{name} is {labels[0]:.3g} on all of {len(labels)} labelled frames: no CCC and no PCC"
        else:
            if np.ptp(found) == 0:
                yield f"{name} is predicted as {found[0]:.3g} on all frames: its CCC is 0, its PCC is not defined"
            if (shown := _people(table.subject[known])) < 2 <= len(table.subjects):
                yield f"{name} is labelled on {shown} subject: no interval of its CCC"


def _au_gaps(table: AUTable) -> Iterator[str]:
    for column, au in enumerate(table.aus):
        active, inactive = table.labels[:, column] == 1, table.labels[:, column] == 0
        name, scores = f"AU{au}", table.probabilities[active | inactive, column]
        if not len(scores):
            yield f"{name} has no label: no figures"
        elif not active.any():
            yield f"{name} is active on none of {inactive.sum()} labelled frames: no F1, AUC, AP or calibration"
        else:
            if not inactive.any():
                yield f"{name} is active on all of {active.sum()} labelled frames: no AUC, AP or calibration"
            if (shown := _people(table.subject[active])) < 2 <= len(table.subjects):
                yield f"{name} is shown by {shown} subject: no interval of its F1"
            if len(scores) > 1 and np.ptp(scores) == 0:
                yield f"{name} has the same score on all frames: its AUC is 0.5 whatever the labels"


def _expression_gaps(table: ExpressionTable) -> Iterator[str]:
    for column, name in enumerate(table.expressions):
        here = table.labels == column
        if not here.any():
            yield f"{name} has no clip: no recall, and UAR is over the other classes"
        elif (shown := _people(table.subject[here])) < 2 <= len(table.subjects):
            yield f"{name} is shown by {shown} subject: no interval of its recall"


def _people(subject: NDArray[np.intp]) -> int:
    return len(np.unique(subject))
