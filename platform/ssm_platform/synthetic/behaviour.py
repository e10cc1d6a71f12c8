"""Tables of how faces behave: how often each AU shows in a lab, what shows together, what an expression is made of.

Prevalences of the published AUs are the corpora's own (their readers hold them); the others are modest guesses.
Co-occurrence and expression prototypes follow FACS/EMFACS practice; nothing here is learned by or shown to a model.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from ssm.labels import EXPRESSIONS, NEUTRAL
from ssm_platform.synthetic.face.muscles import AU_ORDER

Table = NDArray[np.float64]

ACTIVE = 1.5
"""Intensity (0-5) from which a perfect coder calls an AU active; rounds to DISFA's 2."""

_FILMED: Mapping[int, float] = MappingProxyType(
    {
        1: 22.0, 2: 16.0, 4: 24.0, 5: 14.0, 6: 26.0, 7: 26.0, 9: 10.0, 10: 20.0, 12: 34.0, 14: 14.0, 15: 18.0,
        17: 22.0, 20: 12.0, 23: 12.0, 24: 14.0, 25: 36.0, 26: 22.0,
    }
)  # fmt: skip

UNPUBLISHED: Mapping[str, Mapping[int, float]] = MappingProxyType(
    {
        "bp4d": {5: 3.0, 9: 6.0, 20: 4.0, 25: 36.0, 26: 14.0},
        "affwild2_va": _FILMED,
        "affwild2_mtl": _FILMED,
        "afewva": _FILMED,
        "disfa": {5: 2.5, 7: 12.0, 10: 5.0, 14: 6.0, 15: 6.0, 17: 10.0, 20: 3.5, 23: 3.0, 24: 4.0},
    }
)
"""Percent of frames for AUs whose prevalence a corpus does not publish."""

_TOGETHER: Mapping[tuple[int, int], float] = MappingProxyType(
    {
        (1, 2): 0.75, (1, 4): 0.10, (1, 5): 0.35, (2, 5): 0.40, (2, 4): -0.10, (1, 26): 0.15,
        (4, 7): 0.45, (4, 9): 0.40, (4, 15): 0.25, (4, 17): 0.25, (4, 12): -0.30, (4, 6): -0.10,
        (6, 7): 0.50, (6, 12): 0.80, (6, 10): 0.50, (6, 25): 0.40, (7, 10): 0.45, (7, 12): 0.45, (7, 9): 0.35,
        (9, 10): 0.50, (10, 12): 0.45, (10, 17): 0.25, (10, 14): 0.20, (12, 14): 0.25, (12, 25): 0.45,
        (12, 15): -0.35, (12, 17): -0.20, (12, 24): -0.30, (12, 23): -0.20,
        (14, 17): 0.30, (14, 24): 0.30, (14, 15): 0.20, (15, 17): 0.60, (15, 24): 0.20, (15, 20): 0.20,
        (17, 23): 0.40, (17, 24): 0.50, (17, 25): -0.25, (17, 26): -0.25, (23, 24): 0.50,
        (23, 25): -0.35, (24, 25): -0.50, (24, 26): -0.35, (20, 25): 0.30, (4, 20): 0.15,
        (25, 26): 0.75, (5, 26): 0.35, (5, 25): 0.25,
    }
)  # fmt: skip

ELSEWHERE = 0.04
"""Chance of an AU that has nothing to do with the expression; such AUs are weak."""

_PROTOTYPES: Mapping[str, Mapping[int, float]] = MappingProxyType(
    {
        "happiness": {6: 0.76, 12: 0.86, 25: 0.50, 7: 0.25, 10: 0.12, 26: 0.15},
        "sadness": {1: 0.78, 4: 0.70, 15: 0.78, 17: 0.45, 7: 0.12},
        "neutral": {},
        "anger": {4: 0.82, 7: 0.70, 23: 0.68, 5: 0.38, 24: 0.36, 17: 0.25, 25: 0.15},
        "surprise": {1: 0.78, 2: 0.80, 5: 0.70, 26: 0.72, 25: 0.78},
        "disgust": {9: 0.74, 10: 0.70, 15: 0.32, 17: 0.45, 4: 0.30, 7: 0.30},
        "fear": {1: 0.76, 2: 0.55, 4: 0.72, 5: 0.72, 20: 0.70, 7: 0.40, 25: 0.65, 26: 0.40},
        "contempt": {14: 0.85, 12: 0.60},
        "anxiety": {1: 0.72, 4: 0.70, 20: 0.40, 25: 0.60, 14: 0.25},
        "helplessness": {1: 0.76, 4: 0.55, 15: 0.62, 26: 0.55, 25: 0.55, 17: 0.25},
        "disappointment": {1: 0.55, 4: 0.62, 15: 0.72, 25: 0.35, 14: 0.35, 24: 0.25},
    }
)


def prevalence(corpus: str, published: Mapping[int, float]) -> Table:
    """Share of frames (A) in which each AU is active in a lab corpus; `published` in percent."""
    percent = {**UNPUBLISHED[corpus], **published}
    return np.array([percent[number] for number in AU_ORDER]) / 100


def co_occurrence() -> Table:
    """Correlation (A A) of the AUs' latent drives: the nearest positive definite matrix to the table."""
    wished = np.eye(len(AU_ORDER))
    for (first, second), value in _TOGETHER.items():
        row, column = AU_ORDER.index(first), AU_ORDER.index(second)
        wished[row, column] = wished[column, row] = value
    values, vectors = np.linalg.eigh(wished)
    matrix = (vectors * np.maximum(values, 0.05)) @ vectors.T
    scale = 1 / np.sqrt(np.diag(matrix))
    return np.asarray(matrix * scale[:, None] * scale)


def prototypes(expressions: tuple[str, ...] = EXPRESSIONS) -> Table:
    """Chance (E A) that an expression alone, without a second one mixed in, shows each AU."""
    table = np.full((len(expressions), len(AU_ORDER)), ELSEWHERE)
    for row, expression in enumerate(expressions):
        for number, chance in _PROTOTYPES[expression].items():
            table[row, AU_ORDER.index(number)] = chance
    return table


def association(expressions: tuple[str, ...], blend: float) -> Table:
    """P(AU | expression) (E A) as drawn: the prototype, plus what a mixed-in expression adds (`BLENDED` of its AUs)."""
    own = prototypes(expressions)
    partners = blend_partners(expressions) @ own
    blended = np.array([0.0 if name == NEUTRAL else blend for name in expressions])
    return np.asarray(own + (1 - own) * blended[:, None] * BLENDED * partners)


BLENDED = 0.5
"""Chance that an AU of a mixed-in expression shows."""


def blend_partners(expressions: tuple[str, ...]) -> Table:
    """Chance (E E) of each second expression: any other but neutral, all alike."""
    chance = np.ones((len(expressions), len(expressions))) - np.eye(len(expressions))
    chance[:, [name == NEUTRAL for name in expressions]] = 0
    return np.asarray(chance / chance.sum(axis=1, keepdims=True))
