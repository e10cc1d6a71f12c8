"""Who is seen: the resting geometry, colours and habits of one synthetic person.

Lengths are in face units: half the width of an average face is 1, x grows to the person's side, y downwards, the
origin lies between the eyes. Resting shapes vary about as much as a slight AU moves them, so that no single frame
tells a low brow from a lowered one; that is what makes unseen subjects hard.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ssm.labels import ACTION_UNITS

Colour = tuple[float, float, float]  # RGB, 0..255
HAIR_STYLES = ("short", "long", "bob", "receding", "bald", "fringe")

_SKINS: tuple[Colour, ...] = (
    (246, 214, 190),
    (238, 196, 166),
    (224, 178, 144),
    (205, 154, 118),
    (178, 126, 92),
    (141, 95, 68),
    (104, 68, 50),
)
_HAIRS: tuple[Colour, ...] = (
    (34, 28, 26),
    (58, 40, 30),
    (92, 62, 40),
    (140, 98, 58),
    (196, 160, 104),
    (150, 74, 40),
    (150, 148, 146),
)
_IRISES: tuple[Colour, ...] = ((70, 46, 30), (96, 66, 38), (86, 104, 64), (84, 118, 150), (110, 122, 128))


@dataclass(frozen=True)
class Identity:
    """One person. Factors are 1 for the average face; offsets are in face units."""

    width: float  # factor on the whole face
    jaw: float  # factor on the jaw's width
    chin: float  # offset of the chin, downwards
    forehead: float  # offset of the hairline, downwards
    eye_spacing: float
    eye_size: float
    eye_opening: float  # factor on the resting aperture
    eye_tilt: float  # outer corner above (-) or below (+) the inner one
    brow_height: float  # offset, downwards
    brow_thickness: float
    brow_arch: float
    brow_slant: float  # offset of the outer end, downwards
    nose_width: float
    nose_length: float
    mouth_width: float
    mouth_height: float  # offset, downwards
    corner_rest: float  # resting offset of the mouth's corners, downwards
    upper_lip: float
    lower_lip: float
    age: float  # 0..1: depth of the wrinkles that are always there
    wrinkling: float  # factor on the wrinkles that AUs make
    skin: Colour
    lip: Colour
    hair: Colour
    brow: Colour
    iris: Colour
    hair_style: str
    hair_volume: float
    parting: float  # -1..1, where the hairline is highest
    beard: float  # 0 none, else opacity
    moustache: bool
    glasses: Colour | None
    mobility: NDArray[np.float32]  # (A) how far each AU goes on this face, about 1
    lopsided: NDArray[np.float32]  # (A) left minus right intensity, as a share
    texture_seed: int


def draw_identity(rng: np.random.Generator) -> Identity:
    """A random person, a pure function of the generator's state."""

    def about(middle: float, spread: float) -> float:
        return float(middle + spread * np.clip(rng.normal(), -2.0, 2.0))

    skin = _skin(rng)
    hair = _mix(_HAIRS, rng)
    bearded = bool(rng.random() < 0.14)
    count = len(ACTION_UNITS)
    return Identity(
        width=about(1.0, 0.035),
        jaw=about(1.0, 0.06),
        chin=about(0.0, 0.05),
        forehead=about(0.0, 0.06),
        eye_spacing=about(1.0, 0.045),
        eye_size=about(1.0, 0.06),
        eye_opening=about(1.0, 0.10),
        eye_tilt=about(-0.012, 0.02),
        brow_height=about(0.0, 0.03),
        brow_thickness=about(1.0, 0.22),
        brow_arch=about(1.0, 0.35),
        brow_slant=about(0.0, 0.022),
        nose_width=about(1.0, 0.10),
        nose_length=about(0.0, 0.03),
        mouth_width=about(1.0, 0.07),
        mouth_height=about(0.0, 0.025),
        corner_rest=about(0.0, 0.017),
        upper_lip=about(1.0, 0.22),
        lower_lip=about(1.0, 0.20),
        age=float(rng.beta(1.3, 2.2)),
        wrinkling=about(1.0, 0.22),
        skin=skin,
        lip=_lip(skin, rng),
        hair=hair,
        brow=_blend(hair, (40, 30, 26), 0.4),
        iris=_mix(_IRISES, rng),
        hair_style=str(rng.choice(HAIR_STYLES, p=[0.36, 0.22, 0.14, 0.10, 0.06, 0.12])),
        hair_volume=about(1.0, 0.25),
        parting=float(rng.uniform(-1, 1)),
        beard=float(rng.uniform(0.25, 0.8)) if bearded else 0.0,
        moustache=bearded and bool(rng.random() < 0.6),
        glasses=_blend((20, 20, 24), (120, 80, 50), float(rng.random())) if rng.random() < 0.14 else None,
        mobility=rng.normal(1.0, 0.10, count).clip(0.75, 1.25).astype(np.float32),
        lopsided=rng.normal(0.0, 0.06, count).clip(-0.15, 0.15).astype(np.float32),
        texture_seed=int(rng.integers(2**31)),
    )


def _skin(rng: np.random.Generator) -> Colour:
    tone = rng.uniform(0, len(_SKINS) - 1)
    low = min(int(tone), len(_SKINS) - 2)
    return _blend(_SKINS[low], _SKINS[low + 1], tone - low)


def _lip(skin: Colour, rng: np.random.Generator) -> Colour:
    natural = _blend(skin, (176, 74, 78), float(rng.uniform(0.35, 0.6)))
    painted = _blend(natural, (170, 30, 48), 0.6)
    return painted if rng.random() < 0.12 else natural


def _mix(colours: tuple[Colour, ...], rng: np.random.Generator) -> Colour:
    first, second = rng.integers(len(colours), size=2)
    return _blend(colours[first], colours[second], float(rng.uniform(0, 0.35)))


def _blend(first: Colour, second: Colour, share: float) -> Colour:
    mixed = [(1 - share) * one + share * other for one, other in zip(first, second, strict=True)]
    return (mixed[0], mixed[1], mixed[2])
