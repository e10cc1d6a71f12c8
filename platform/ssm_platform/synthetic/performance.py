"""One recorded clip, whole: who, how the face moves, where the head is, what the scene is. Pure functions of seeds.

A lab performance is a long frontal recording in one room; a wild one a short clip of a film. Letters: T frames, A AUs.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ssm_platform.synthetic import dynamics
from ssm_platform.synthetic.dynamics import Drive, Intensity
from ssm_platform.synthetic.face.camera import Occluder, Scene, backdrop
from ssm_platform.synthetic.face.identity import Colour, Identity, draw_identity
from ssm_platform.synthetic.face.muscles import AU_ORDER, Motion
from ssm_platform.synthetic.face.pose import Pose
from ssm_platform.synthetic.face.render import render

FACE_SCALE = 0.335  # frame sides per face unit: a face crop as the owners cut it
_UNILATERAL = 0.25  # share of dimplers (14) that show on one side


@dataclass(frozen=True)
class Performance:
    """Everything that `frames` draws, and the truth about it: `intensity` (T A), 0-5."""

    face: Identity
    motion: Motion
    pose: Pose
    scene: Scene
    intensity: Intensity
    size: int

    def frames(self) -> Iterator[NDArray[np.uint8]]:
        """RGB frames (H W 3 uint8), one per row of `intensity`."""
        return render(self.face, self.motion, self.pose, self.scene, self.size)


def stream(seed: int, *keys: str | int) -> np.random.Generator:
    """A generator that depends on the seed and on every key, and on nothing else."""
    return np.random.default_rng([seed, *(zlib.crc32(str(key).encode()) for key in keys)])


def person(seed: int, corpus: str, who: str | int) -> Identity:
    """The face of a subject."""
    return draw_identity(stream(seed, corpus, "person", who))


def lab_performance(
    face: Identity, rng: np.random.Generator, room: np.random.Generator, drive: Drive, frames: int, rate: float,
    nuisance: float, size: int,
) -> Performance:  # fmt: skip
    """A long recording; `room` fixes what stays the same over a subject's sequences."""
    intensity = dynamics.lab_course(rng, frames, rate, drive)
    turn = room.normal(0, [0.06, 0.05, 0.03]) * nuisance
    sway = dynamics.drift(rng, frames, rate, 5, seconds=1.5) * np.array([0.07, 0.05, 0.035, 0.006, 0.006]) * nuisance
    shake = dynamics.tremor(rng, frames, 2) * 0.0015
    scale = np.full(frames, FACE_SCALE * room.normal(1, 0.025))
    pose = Pose.of(turn + sway[:, :3], scale, sway[:, 3:] + shake + room.normal(0, 0.008, 2))
    return Performance(face, _motion(rng, intensity, rate), pose, _room(room, nuisance, size), intensity, size)


def wild_performance(
    face: Identity, rng: np.random.Generator, intensity: Intensity, rate: float, nuisance: float, size: int
) -> Performance:
    """A short clip whose face goes through `intensity` (T A)."""
    frames = len(intensity)
    turn = np.clip(rng.normal(0, [0.24, 0.12, 0.11]) * nuisance, -0.55, 0.55)
    sway = dynamics.drift(rng, frames, rate, 5, seconds=0.7) * np.array([0.05, 0.035, 0.025, 0.008, 0.008]) * nuisance
    scale = np.full(frames, FACE_SCALE * np.clip(rng.normal(1, 0.05 * nuisance), 0.8, 1.2))
    pose = Pose.of(np.clip(turn + sway[:, :3], -0.6, 0.6), scale, sway[:, 3:] + rng.normal(0, 0.02 * nuisance, 2))
    scene = _film(rng, nuisance, size)
    return Performance(face, _motion(rng, intensity, rate), pose, scene, intensity, size)


def _motion(rng: np.random.Generator, intensity: Intensity, rate: float) -> Motion:
    frames = len(intensity)
    au = np.repeat(intensity[:, None] / np.float32(dynamics.TOP), 2, axis=1)
    if rng.random() < _UNILATERAL:
        au[:, int(rng.integers(2)), AU_ORDER.index(14)] *= 0.25
    look = dynamics.drift(rng, frames, rate, 2, seconds=0.6) * np.array([0.035, 0.012])
    return Motion(au=au, blink=dynamics.blinks(rng, frames, rate), gaze=np.clip(look, -0.07, 0.07).astype(np.float32))


def _room(rng: np.random.Generator, nuisance: float, size: int) -> Scene:
    angle = rng.normal(-np.pi / 2, 0.5 * nuisance)
    contrast = rng.uniform(0.6, 0.95)
    return Scene(
        background=backdrop(rng, size, 0.10 * nuisance),
        cloth=_cloth(rng),
        light=(float(contrast * np.cos(angle)), float(contrast * np.sin(angle))),
        ambient=float(rng.uniform(0.66, 0.8)),
        gain=_tint(rng, 0.06 * nuisance, 0.02 * nuisance),
        blur=0.35 * nuisance,
        noise=1.2 * nuisance,
        seed=int(rng.integers(2**31)),
    )


def _film(rng: np.random.Generator, nuisance: float, size: int) -> Scene:
    angle = rng.normal(-np.pi / 2, 1.0 * nuisance)
    contrast = rng.uniform(0.4, 1.15)
    poor = min(1.0, 0.35 * nuisance)
    return Scene(
        background=backdrop(rng, size, min(1.0, nuisance)),
        cloth=_cloth(rng),
        light=(float(contrast * np.cos(angle)), float(contrast * np.sin(angle))),
        ambient=float(rng.uniform(0.45, 0.8)),
        gain=_tint(rng, 0.16 * nuisance, 0.06 * nuisance),
        gamma=float(np.exp(rng.normal(0, 0.18 * nuisance))),
        blur=float(rng.uniform(0.4, 1.2) * nuisance) if rng.random() < poor else 0.0,
        noise=float(rng.uniform(0.8, 5.0) * nuisance),
        quality=int(rng.integers(22, 70)) if rng.random() < poor else None,
        shrink=float(rng.uniform(0.5, 0.85)) if rng.random() < 0.7 * poor else 1.0,
        occluder=_occluder(rng) if rng.random() < 0.12 * nuisance else None,
        seed=int(rng.integers(2**31)),
    )


def _occluder(rng: np.random.Generator) -> Occluder:
    """A hand, a strand of hair or a microphone."""
    skin, hair = (214.0, 168.0, 138.0), (60.0, 42.0, 32.0)
    side = float(rng.choice([-1, 1]))
    things = (
        Occluder((side * 0.95, 1.5), (side * rng.uniform(0.35, 0.7), rng.uniform(0.5, 1.0)), 0.20, skin),
        Occluder((side * 0.55, -1.1), (side * 0.85, rng.uniform(-0.1, 0.5)), 0.12, hair),
        Occluder((side * 0.9, 1.7), (side * rng.uniform(0.05, 0.3), rng.uniform(0.95, 1.2)), 0.13, (40.0, 40.0, 44.0)),
    )
    return things[int(rng.integers(len(things)))]


def _tint(rng: np.random.Generator, brightness: float, colour: float) -> tuple[float, float, float]:
    gain = np.exp(rng.normal(0, brightness) + rng.normal(0, colour, 3))
    return (float(gain[0]), float(gain[1]), float(gain[2]))


def _cloth(rng: np.random.Generator) -> Colour:
    colour = rng.uniform(30, 200, 3)
    return (float(colour[0]), float(colour[1]), float(colour[2]))
