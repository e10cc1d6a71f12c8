"""Figures of expression predictions against what several people said of each clip, not only against their majority.

Hard labels are the special case: the divergence is then the mean negative log likelihood, and the agreement the share
of clips that are right. Letters: N clips, E expressions.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ssm.metrics.predictions import ExpressionTable

_FLOOR = 1e-7  # a probability of exactly 0 in float32 must not make a divergence infinite


@dataclass(frozen=True)
class SoftFigures:
    """How near a model comes to the distribution of people's votes."""

    divergence: float  # mean KL(votes || prediction) in nats
    agreement: float  # mean share of votes for the class that the model names: a random voter agrees with it so often
    ceiling: float  # the same for a model that always names the most voted class: no model can do better


def soft_figures(table: ExpressionTable) -> SoftFigures:
    """The figures of a table; one without shares counts its labels as unanimous votes."""
    shares = _shares(table).astype(np.float64)
    predicted = np.clip(table.probabilities.astype(np.float64), _FLOOR, 1.0)
    said = np.where(shares > 0, shares, 1.0)  # 0 log 0 is 0
    divergence = (shares * (np.log(said) - np.log(predicted))).sum(1)
    named = table.probabilities.argmax(1)
    return SoftFigures(
        divergence=float(divergence.mean()),
        agreement=float(shares[np.arange(len(shares)), named].mean()),
        ceiling=float(shares.max(1).mean()),
    )


def _shares(table: ExpressionTable) -> NDArray[np.float32]:
    if table.shares is not None:
        return table.shares
    return np.eye(len(table.expressions), dtype=np.float32)[table.labels]
