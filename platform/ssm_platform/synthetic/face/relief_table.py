"""The table of bulges, folds and wrinkles of a face: where they lie, what deepens them, what they move with.

Positions are lateral face coordinates of a resting average face (`identity`); both sides have each row. After the
appearance changes of the FACS manual: which fold an AU makes is what tells it from its neighbours (12 and 14, 23 and
24, 6 and 7, 9 and 10).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

ANCHORS = (
    "fixed",
    "forehead",
    "brow_inner",
    "brow_outer",
    "lower_lid",
    "cheek",
    "wing",
    "corner",
    "half_corner",
    "upper_lip",
    "lower_lip",
    "chin",
)
"""What a feature can move with; `relief` knows how far each has moved."""

Points = tuple[tuple[float, float], ...]


@dataclass(frozen=True)
class Feature:
    """One bulge (a single point or a chain) or crease (a chain). Depths are shares of the light at full intensity."""

    name: str
    points: Points
    width: float  # of a spot, face units
    aus: Mapping[int, float] = field(default_factory=dict)  # depth that each AU adds at full intensity
    rest: float = 0.0  # depth on every face
    age: float = 0.0  # depth on a face of age 1
    anchor: str = "fixed"
    bulge: bool = False


def _crease(
    name: str, points: Points, width: float, anchor: str, aus: Mapping[int, float], rest: float = 0.0, age: float = 0.0
) -> Feature:
    return Feature(name, points, width, aus, rest, age, anchor)


def _bulge(
    name: str, points: Points, width: float, anchor: str, aus: Mapping[int, float], rest: float = 0.0
) -> Feature:
    return Feature(name, points, width, aus, rest, 0.0, anchor, bulge=True)


_FOREHEAD = (
    _crease("central line 1", ((0.0, -0.66), (0.16, -0.68), (0.30, -0.64)), 0.026, "forehead", {1: 0.34}, age=0.06),
    _crease("central line 2", ((0.0, -0.78), (0.17, -0.80), (0.33, -0.75)), 0.026, "forehead", {1: 0.34}, age=0.06),
    _crease("central line 3", ((0.0, -0.90), (0.15, -0.92), (0.28, -0.88)), 0.024, "forehead", {1: 0.24}, age=0.04),
    _crease("lateral line 1", ((0.36, -0.66), (0.54, -0.74), (0.72, -0.68)), 0.026, "forehead", {2: 0.34}, age=0.05),
    _crease("lateral line 2", ((0.38, -0.78), (0.55, -0.86), (0.72, -0.80)), 0.026, "forehead", {2: 0.32}, age=0.05),
    _bulge("brow ridge", ((0.22, -0.50), (0.60, -0.52)), 0.12, "brow_inner", {4: 0.06}, rest=0.09),
    _bulge("forehead", ((0.0, -0.78), (0.30, -0.80)), 0.34, "fixed", {}, rest=0.05),
)

_FROWN = (
    _crease("furrow", ((0.055, -0.30), (0.062, -0.40), (0.075, -0.52)), 0.024, "brow_inner", {4: 0.46}, age=0.10),
    _crease("mid furrow", ((0.0, -0.56), (0.0, -0.40)), 0.026, "brow_inner", {4: 0.10}),
    _bulge("corrugator", ((0.13, -0.56),), 0.075, "brow_inner", {4: 0.22}),
    _crease("procerus line", ((0.0, -0.25), (0.07, -0.24)), 0.024, "fixed", {4: 0.20, 9: 0.34}, age=0.05),
)

_EYES = (
    _crease(
        "socket",
        ((0.22, -0.27), (0.42, -0.31), (0.62, -0.24)),
        0.075,
        "brow_outer",
        {4: 0.05, 1: -0.04, 2: -0.05},
        rest=0.13,
    ),
    _crease("inner socket", ((0.17, -0.20), (0.20, -0.10)), 0.06, "fixed", {4: 0.10}, rest=0.12),
    _crease("crow's foot 1", ((0.67, -0.17), (0.76, -0.23), (0.84, -0.30)), 0.020, "fixed", {6: 0.42}, age=0.06),
    _crease("crow's foot 2", ((0.68, -0.12), (0.78, -0.13), (0.87, -0.14)), 0.020, "fixed", {6: 0.44}, age=0.06),
    _crease("crow's foot 3", ((0.67, -0.07), (0.76, -0.03), (0.84, 0.02)), 0.020, "fixed", {6: 0.40}, age=0.05),
    _crease(
        "infraorbital furrow",
        ((0.20, 0.03), (0.36, 0.10), (0.54, 0.09), (0.66, 0.02)),
        0.030,
        "cheek",
        {6: 0.42, 9: 0.10},
        age=0.14,
    ),
    _bulge("lid pouch", ((0.28, -0.02), (0.41, 0.0), (0.54, -0.02)), 0.036, "lower_lid", {7: 0.20, 6: 0.05}, rest=0.03),
    _crease("lid line", ((0.26, 0.02), (0.41, 0.048), (0.57, 0.02)), 0.022, "lower_lid", {7: 0.42}, age=0.06),
    _crease("lid corner line", ((0.625, -0.10), (0.69, -0.105)), 0.018, "fixed", {7: 0.22}),
)

_NOSE = (
    _bulge("bridge", ((0.0, -0.22), (0.0, 0.20)), 0.085, "fixed", {}, rest=0.14),
    _bulge("tip", ((0.0, 0.29),), 0.115, "wing", {}, rest=0.24),
    _bulge("wing", ((0.145, 0.31),), 0.07, "wing", {9: 0.06, 10: 0.05}, rest=0.08),
    _crease("wing edge", ((0.175, 0.22), (0.212, 0.30), (0.185, 0.37)), 0.024, "wing", {9: 0.30, 10: 0.22}, rest=0.17),
    _crease("underside", ((0.0, 0.41), (0.13, 0.405)), 0.030, "wing", {}, rest=0.26),
    _crease("side", ((0.105, -0.10), (0.125, 0.16)), 0.045, "fixed", {}, rest=0.075),
    _crease("root wrinkle 1", ((0.0, -0.15), (0.06, -0.13), (0.13, -0.08)), 0.022, "fixed", {9: 0.44}),
    _crease("root wrinkle 2", ((0.0, -0.05), (0.07, -0.03), (0.15, 0.02)), 0.022, "fixed", {9: 0.44}),
    _crease("side wrinkle", ((0.10, 0.10), (0.17, 0.03), (0.22, -0.04)), 0.022, "fixed", {9: 0.36}),
    _crease("side wrinkle 2", ((0.13, 0.17), (0.20, 0.10), (0.25, 0.03)), 0.022, "fixed", {9: 0.28}),
)

_CHEEKS = (
    _bulge("cheek", ((0.53, 0.22),), 0.20, "cheek", {6: 0.24, 12: 0.18}, rest=0.09),
    _bulge("cheek bone", ((0.66, 0.06),), 0.16, "fixed", {6: 0.06}, rest=0.06),
    _bulge("infraorbital triangle", ((0.30, 0.20),), 0.10, "wing", {10: 0.20, 9: 0.14}),
    _crease("cheek hollow", ((0.72, 0.45), (0.62, 0.72)), 0.11, "fixed", {26: 0.12}, rest=0.07),
    _crease(
        "nasolabial, upper",
        ((0.215, 0.27), (0.27, 0.37), (0.34, 0.46)),
        0.032,
        "wing",
        {10: 0.52, 9: 0.34, 12: 0.30},
        rest=0.05,
        age=0.20,
    ),
    _crease(
        "nasolabial, lower",
        ((0.35, 0.46), (0.43, 0.55), (0.48, 0.66)),
        0.032,
        "half_corner",
        {12: 0.50, 10: 0.24, 14: 0.10, 20: 0.10},
        rest=0.03,
        age=0.18,
    ),
)

_MOUTH = (
    _crease("philtrum", ((0.045, 0.46), (0.06, 0.60)), 0.028, "upper_lip", {}, rest=0.06),
    _crease("corner shade", ((0.36, 0.72),), 0.034, "corner", {12: 0.14, 14: 0.16, 24: 0.10}, rest=0.12),
    _crease("dimple", ((0.455, 0.69),), 0.036, "corner", {14: 0.52}),
    _crease("bracket", ((0.440, 0.58), (0.475, 0.66), (0.485, 0.74), (0.46, 0.83)), 0.024, "corner", {14: 0.38}),
    _bulge("dimple bulge", ((0.58, 0.70),), 0.075, "corner", {14: 0.20}),
    _crease("depressor fold", ((0.385, 0.76), (0.43, 0.85), (0.45, 0.96)), 0.028, "corner", {15: 0.40}, age=0.12),
    _bulge("depressor pouch", ((0.33, 0.90),), 0.075, "corner", {15: 0.20}),
    _crease("stretch line 1", ((0.44, 0.60), (0.475, 0.74), (0.46, 0.88)), 0.024, "corner", {20: 0.34}),
    _crease("stretch line 2", ((0.545, 0.62), (0.585, 0.76), (0.56, 0.92)), 0.024, "corner", {20: 0.24}),
    _bulge("lower lip", ((0.05, 0.79), (0.14, 0.79)), 0.045, "lower_lip", {17: 0.06}, rest=0.10),
    _crease("under lip", ((0.0, 0.885), (0.16, 0.875)), 0.045, "lower_lip", {17: 0.10}, rest=0.17),
    _crease("upper pleat 1", ((0.045, 0.56), (0.045, 0.645)), 0.018, "upper_lip", {23: 0.30}),
    _crease("upper pleat 2", ((0.135, 0.575), (0.125, 0.65)), 0.018, "upper_lip", {23: 0.30}),
    _crease("lower pleat 1", ((0.05, 0.845), (0.05, 0.92)), 0.018, "lower_lip", {23: 0.27}),
    _crease("lower pleat 2", ((0.14, 0.835), (0.15, 0.905)), 0.018, "lower_lip", {23: 0.27}),
    _bulge("press, above", ((0.06, 0.615), (0.22, 0.635)), 0.050, "upper_lip", {24: 0.30}),
    _bulge("press, below", ((0.06, 0.880), (0.22, 0.865)), 0.050, "lower_lip", {24: 0.30}),
    _crease("press, edge below", ((0.0, 0.945), (0.20, 0.925)), 0.030, "lower_lip", {24: 0.30}),
)

_PEBBLES = (
    (0.035, 1.00),
    (0.105, 1.03),
    (0.065, 1.085),
    (0.0, 1.06),
    (0.15, 1.095),
    (0.02, 1.14),
    (0.10, 1.155),
    (0.19, 1.03),
)

_CHIN = (
    _bulge("chin", ((0.0, 1.10),), 0.19, "chin", {17: 0.14}, rest=0.10),
    _crease("mentolabial fold", ((0.0, 0.915), (0.13, 0.935), (0.23, 0.985)), 0.032, "chin", {17: 0.55}, age=0.05),
    *(_crease(f"pebble {n}", (at,), 0.026, "chin", {17: 0.34}) for n, at in enumerate(_PEBBLES)),
)

FEATURES: tuple[Feature, ...] = (*_FOREHEAD, *_FROWN, *_EYES, *_NOSE, *_CHEEKS, *_MOUTH, *_CHIN)
"""Every row, forehead to chin."""
