"""What of a test side is judged: the AUs and expressions that some training corpus labels, and no others.

Pure functions of tables; says in words what was left out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from ssm.labels import AFFECT
from ssm.metrics import AffectTable, AUTable, ExpressionPredictions, ExpressionTable
from ssm_platform.evaluate.predictions import Table, Tables, shares


def trained_labels(test: Tables, trained: Tables) -> tuple[Tables, list[str]]:
    """`test` cut down to the AUs and classes that some table of `trained` has; what was cut, in words."""
    taught = {label for table in trained.values() for label in _labels(table)}
    kept: dict[str, Table] = {}
    cut = []
    for corpus, table in test.items():
        labels = _labels(table)
        if untaught := [label for label in labels if label not in taught]:
            cut.append(f"{corpus}: {', '.join(untaught)}, which no training corpus labels")
        columns = [column for column, label in enumerate(labels) if label in taught]
        if (judged := _of_columns(table, columns)) is not None:
            kept[corpus] = judged
    return kept, cut


def _labels(table: Table) -> list[str]:
    """What a table's columns are called: "AU12", "happiness", "valence"."""
    if isinstance(table, AffectTable):
        return list(AFFECT)
    return [f"AU{au}" for au in table.aus] if isinstance(table, AUTable) else list(table.expressions)


def _of_columns(table: Table, columns: Sequence[int]) -> Table | None:
    """The table with these columns only; None where nothing is left."""
    if len(columns) == len(_labels(table)):
        return table
    if not columns or isinstance(table, AffectTable):
        return None
    return _of_aus(table, columns) if isinstance(table, AUTable) else _of_classes(table, columns)


def _of_aus(table: AUTable, columns: Sequence[int]) -> AUTable:
    return replace(
        table,
        aus=tuple(table.aus[column] for column in columns),
        probabilities=table.probabilities[:, columns],
        labels=table.labels[:, columns],
        doubts=None if table.doubts is None else table.doubts[:, columns],
        tilted=None if table.tilted is None else table.tilted[:, columns],
    )


def _of_classes(table: ExpressionTable, columns: Sequence[int]) -> ExpressionTable | None:
    """The clips of these classes, with probabilities among them; None where there is no such clip."""
    rows = np.flatnonzero(np.isin(table.labels, columns))
    gathered = ExpressionPredictions([table.expressions[column] for column in columns])
    for row in rows:
        among = shares(table.probabilities[row, columns])
        label = columns.index(int(table.labels[row]))
        said = None if table.shares is None else shares(table.shares[row, columns]).astype(np.float32)
        gathered.update(table.clips[row], table.subjects[table.subject[row]], among, label, said)
    return gathered.table() if len(rows) else None
