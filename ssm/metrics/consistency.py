"""FACS consistency: does an AU's probability rank faces of the expressions that FACS links to it above the others?

Where nobody has coded AUs, expressions still say something of them: a happy face should show AU 6 and AU 12 more often
than others. For each AU the ROC-AUC of its probability is taken, images of linked expressions against all others. It
is no AU accuracy: an expression is not its AUs, faces of other expressions show them too, and a model that reads the
expression alone and repeats its prototype would score as high. Letters: N images, A AUs, E expressions, S subjects.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Consistency:
    """One AU against the expressions that FACS links to it, or one of them."""

    au: int
    linked: tuple[str, ...]
    images: int  # of the linked expressions
    others: int
    auc: float  # nan where one side is empty
    low: float  # 95 % bootstrap interval
    high: float


def facs_consistency(
    probabilities_NA: NDArray[Any],
    labels_N: NDArray[Any],
    aus: Sequence[int],
    expressions: Sequence[str],
    links: Mapping[str, Sequence[int]],
    *,
    replicates: int = 1000,
    seed: int = 0,
) -> list[Consistency]:
    """For each AU that an expression is linked to: all of its expressions together, then each of them alone.

    `labels_N` are places in `expressions`. Intervals are over images, each drawn with replacement.
    """
    found = []
    for column, au in enumerate(aus):
        linked = tuple(name for name in expressions if au in links.get(name, ()))
        groups = [linked, *((name,) for name in linked)] if len(linked) > 1 else [linked]
        for group in groups if linked else []:
            positive = np.isin(labels_N, [expressions.index(name) for name in group])
            others = ~np.isin(labels_N, [expressions.index(name) for name in linked])
            found.append(_compare(au, group, probabilities_NA[:, column], positive, others, replicates, seed))
    return found


def _compare(
    au: int,
    linked: tuple[str, ...],
    scores_N: NDArray[Any],
    positive: NDArray[np.bool_],
    others: NDArray[np.bool_],
    replicates: int,
    seed: int,
) -> Consistency:
    high_side, low_side = scores_N[positive], scores_N[others]
    if not len(high_side) or not len(low_side):
        return Consistency(au, linked, len(high_side), len(low_side), np.nan, np.nan, np.nan)
    generator = np.random.default_rng(seed)
    drawn = [
        area(generator.choice(high_side, len(high_side)), generator.choice(low_side, len(low_side)))
        for _ in range(replicates)
    ]
    low, high = np.quantile(drawn, (0.025, 0.975)).tolist() if drawn else (np.nan, np.nan)
    return Consistency(au, linked, len(high_side), len(low_side), area(high_side, low_side), low, high)


def area(positive: NDArray[Any], negative: NDArray[Any]) -> float:
    """Chance that a positive scores above a negative, ties counting half."""
    ordered = np.sort(negative)
    below, upto = np.searchsorted(ordered, positive, "left"), np.searchsorted(ordered, positive, "right")
    return float((below + upto).mean() / (2 * len(ordered)))
