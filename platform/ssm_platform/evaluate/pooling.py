"""Several corpora's tables as one: every label that any of them has, unknown where a corpus does not label it.

People and clips are named after their corpus, so nobody of one corpus is somebody of another.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ssm.metrics import AffectTable, AUTable, ExpressionTable
from ssm_platform.evaluate.predictions import Table, Tables

POOLED = "pooled"
"""What the pooled figures stand under, where a corpus's name would be."""


def au_tables(tables: Tables) -> dict[str, AUTable]:
    """The AU tables among them, by corpus."""
    return {name: table for name, table in tables.items() if isinstance(table, AUTable)}


def expression_tables(tables: Tables) -> dict[str, ExpressionTable]:
    """The expression tables among them, by corpus."""
    return {name: table for name, table in tables.items() if isinstance(table, ExpressionTable)}


def affect_tables(tables: Tables) -> dict[str, AffectTable]:
    """The tables of valence and arousal among them, by corpus."""
    return {name: table for name, table in tables.items() if isinstance(table, AffectTable)}


def pooled_affect(tables: Mapping[str, AffectTable]) -> AffectTable:
    """At least one table."""
    return AffectTable(
        predictions=np.concatenate([table.predictions for table in tables.values()]),
        labels=np.concatenate([table.labels for table in tables.values()]),
        lengths=tuple(length for table in tables.values() for length in table.lengths),
        sequences=tuple(f"{name}/{one}" for name, table in tables.items() for one in table.sequences),
        subjects=tuple(f"{name}/{one}" for name, table in tables.items() for one in table.subjects),
        subject=_subject(tables.values()),
    )


def pooled_aus(tables: Mapping[str, AUTable]) -> AUTable:
    """At least one table."""
    aus = tuple(dict.fromkeys(au for table in tables.values() for au in table.aus))
    probabilities, labels = [], []
    for table in tables.values():
        columns = [aus.index(au) for au in table.aus]
        probabilities.append(_spread(table.probabilities, columns, len(aus), 0.5))
        labels.append(_spread(table.labels, columns, len(aus), -1))
    evidence = {name: _evidence(tables, name, aus) for name in ("doubts", "tilted")}
    return AUTable(
        aus=aus,
        **evidence,
        probabilities=np.concatenate(probabilities),
        labels=np.concatenate(labels),
        lengths=tuple(length for table in tables.values() for length in table.lengths),
        sequences=tuple(f"{name}/{one}" for name, table in tables.items() for one in table.sequences),
        subjects=tuple(f"{name}/{one}" for name, table in tables.items() for one in table.subjects),
        subject=_subject(tables.values()),
    )


def _evidence(tables: Mapping[str, AUTable], field: str, aus: tuple[int, ...]) -> NDArray[Any] | None:
    """A field that all tables have or none."""
    parts = [
        _spread(values, [aus.index(au) for au in table.aus], len(aus), 0.5)
        for table in tables.values()
        if (values := getattr(table, field)) is not None
    ]
    return np.concatenate(parts) if len(parts) == len(tables) else None


def pooled_expressions(tables: Mapping[str, ExpressionTable]) -> ExpressionTable:
    """At least one table. Each clip keeps its probabilities over its own corpus's classes: 0 for all others."""
    classes = tuple(dict.fromkeys(one for table in tables.values() for one in table.expressions))
    probabilities, labels = [], []
    for table in tables.values():
        columns = [classes.index(one) for one in table.expressions]
        probabilities.append(_spread(table.probabilities, columns, len(classes), 0.0))
        labels.append(np.array(columns, np.intp)[table.labels])
    return ExpressionTable(
        expressions=classes,
        probabilities=np.concatenate(probabilities),
        labels=np.concatenate(labels),
        clips=tuple(f"{name}/{one}" for name, table in tables.items() for one in table.clips),
        subjects=tuple(f"{name}/{one}" for name, table in tables.items() for one in table.subjects),
        subject=_subject(tables.values()),
    )


def _subject(tables: Iterable[Table]) -> NDArray[np.intp]:
    found, first = [], 0
    for table in tables:
        found.append(table.subject + first)
        first += len(table.subjects)
    return np.concatenate(found)


def _spread(values: NDArray[Any], columns: list[int], width: int, absent: float) -> NDArray[Any]:
    """Columns of a table at their places among `width`, `absent` in the others."""
    wide = np.full((len(values), width), absent, values.dtype)
    wide[:, columns] = values
    return wide
