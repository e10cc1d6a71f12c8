"""The noise floor: how far the figures move with the choice of held-out people, from repeated half splits.

Known from one set of predictions, without training again.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ssm.interface import THRESHOLDS
from ssm.metrics import (
    AffectTable,
    AUTable,
    confusion_by_subject,
    f1_score,
    macro,
    mean_ccc,
    ranked_area,
    scores_by_subject,
    sums_by_subject,
    unweighted_recall,
)
from ssm_platform.evaluate.predictions import Tables
from ssm_platform.evaluate.scores import NoiseFloor

SPLITS = 40
"""Repeats of the half splits behind the noise floor."""


def noise_floor(tables: Tables, repeats: int = SPLITS, seed: int = 0) -> NoiseFloor:
    """How far the figures move with the choice of held-out subjects: halves, drawn `repeats` times.

    In each repeat the subjects are halved; thresholds are fitted on one half and applied to the other, so the figure
    holds what repeated subject-exclusive splits show, without training again. Standard deviations, means over corpora.
    """
    spreads: dict[str, list[float]] = {"macro_f1": [], "auc": [], "uar": [], "ccc": []}
    for table in tables.values():
        if len(table.subjects) < 4:
            continue
        halves = _halves(len(table.subjects), repeats, seed)
        if isinstance(table, AUTable):
            spreads["macro_f1"].append(_spread([_macro_f1_of_half(table, half) for half in halves]))
            ranked = scores_by_subject(table)
            spreads["auc"].append(_spread([float(macro(ranked_area(ranked[half].sum(0)))) for half in halves]))
        elif isinstance(table, AffectTable):
            sums = sums_by_subject(table)
            spreads["ccc"].append(_spread([float(mean_ccc(sums[half].sum(0))) for half in halves]))
        else:
            counts = confusion_by_subject(table)
            spreads["uar"].append(_spread([float(unweighted_recall(counts[half].sum(0))) for half in halves]))
    known = {name: [value for value in values if not np.isnan(value)] for name, values in spreads.items()}
    means = {name: float(np.mean(values)) if values else None for name, values in known.items()}
    return NoiseFloor(repeats=repeats, **means)


def _spread(scores: Sequence[float]) -> float:
    """Standard deviation over the halves in which the score exists; nan where that is none."""
    found = [score for score in scores if not np.isnan(score)]
    return float(np.std(found)) if found else float("nan")


def _halves(subjects: int, repeats: int, seed: int) -> list[NDArray[np.bool_]]:
    generator = np.random.default_rng(seed)
    return [generator.permutation(subjects) < subjects // 2 for _ in range(repeats)]


def _macro_f1_of_half(table: AUTable, half: NDArray[np.bool_]) -> float:
    """Macro F1 on the subjects of `half`, each AU at the threshold (no vote) that is best on the other subjects."""
    inside = half[table.subject]
    hits = np.stack([_hits_at_best(table, column, inside) for column in range(len(table.aus))])
    return float(macro(f1_score(hits)))


def _hits_at_best(table: AUTable, column: int, inside: NDArray[np.bool_]) -> NDArray[np.int64]:
    scores, labels = table.probabilities[:, column], table.labels[:, column]
    grid = THRESHOLDS
    reached = np.searchsorted(grid, scores.astype(np.float64), side="right")
    f1 = f1_score(_hits_at_every(reached[~inside], labels[~inside], len(grid)))
    best = len(grid) // 2 if np.isnan(f1).all() else int(np.nanargmax(f1))
    counts: NDArray[np.int64] = _hits_at_every(reached[inside], labels[inside], len(grid))[best]
    return counts


def _hits_at_every(reached: NDArray[np.intp], labels: NDArray[np.int8], thresholds: int) -> NDArray[np.int64]:
    """Hits (thresholds, 3) when a frame is positive that reaches more than as many thresholds."""
    above = [
        np.bincount(reached[labels == value], minlength=thresholds + 1)[::-1].cumsum()[::-1][1:] for value in (1, 0)
    ]
    return np.stack([above[0], above[1], (labels == 1).sum() - above[0]], axis=1).astype(np.int64)
