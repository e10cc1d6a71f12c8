"""A sample video for trying a model out: one person in a wider picture shows one expression after the other.

python jobs/synthesize.py --sample-video sample.mp4
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from ssm_platform.synthetic import dynamics
from ssm_platform.synthetic.dynamics import TOP, Intensity
from ssm_platform.synthetic.face.camera import Scene, backdrop
from ssm_platform.synthetic.face.muscles import AU_ORDER, Motion
from ssm_platform.synthetic.face.pose import Pose
from ssm_platform.synthetic.face.render import render
from ssm_platform.synthetic.media import write_video
from ssm_platform.synthetic.performance import person, stream

RATE = 25.0
SCRIPT: Mapping[str, Mapping[int, float]] = {
    "neutral": {},
    "happiness": {6: 4.0, 12: 4.5, 25: 3.0},
    "surprise": {1: 4.0, 2: 4.0, 5: 4.0, 25: 4.0, 26: 3.5},
    "sadness": {1: 4.0, 4: 3.5, 15: 4.0, 17: 3.0},
    "anger": {4: 4.5, 7: 3.5, 23: 3.5, 24: 2.0},
    "disgust": {9: 4.5, 10: 4.0, 17: 2.5},
    "fear": {1: 4.0, 2: 3.0, 4: 3.5, 5: 4.0, 20: 3.5, 25: 3.0},
}
"""Expression -> AU intensities (0-5) at its apex, in the order of the video."""


def write_sample(path: Path, size: int = 320, seconds: float = 1.6, seed: int = 1) -> Path:
    """Writes the video; each expression lasts `seconds`. The face fills about half of a frame of `size` pixels."""
    rng = stream(seed, "sample")
    intensity = sample_course(seconds)
    frames = len(intensity)
    motion = Motion(
        au=np.repeat(intensity[:, None] / np.float32(TOP), 2, axis=1),
        blink=dynamics.blinks(rng, frames, RATE),
        gaze=np.zeros((frames, 2), np.float32),
    )
    sway = dynamics.drift(rng, frames, RATE, 5, seconds=1.2) * np.array([0.08, 0.05, 0.03, 0.012, 0.008])
    pose = Pose.of(sway[:, :3], np.full(frames, 0.20), sway[:, 3:])
    scene = Scene(background=backdrop(rng, size, 0.4), noise=1.0, seed=seed)
    write_video(path, render(person(seed, "sample", 1), motion, pose, scene, size), size, RATE, quality=20)
    return path


def sample_course(seconds: float) -> Intensity:
    """Intensities (T A) of the whole script: each expression comes and goes."""
    frames = round(seconds * RATE)
    time = (np.arange(frames) + 0.5) / frames
    envelope = np.clip(np.minimum(time, 1 - time) / 0.25, 0, 1)[:, None]
    rows = [[shown.get(number, 0.0) for number in AU_ORDER] for shown in SCRIPT.values()]
    return np.concatenate([envelope * np.array([row]) for row in rows]).astype(np.float32)
