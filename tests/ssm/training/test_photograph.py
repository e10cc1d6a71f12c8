"""Photograph: off it changes nothing; each range does what it says, alike on all frames of a clip."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from ssm.training.augmentation import Augmentation, augment
from ssm.training.photograph import Photograph

SIDE = 48
CLIP = np.random.default_rng(0).integers(0, 256, (3, SIDE, SIDE, 3), dtype=np.uint8)
SMOOTH = cv2.GaussianBlur(CLIP[0], (0, 0), 3)[None]


def detail(frames: NDArray[np.uint8]) -> float:
    return float(np.abs(np.diff(frames.astype(int), axis=2)).mean())


def test_off_it_hands_back_what_it_got() -> None:
    assert Photograph().shown(CLIP, 1) is CLIP
    spec = Augmentation(scale=(0.5, 1.0), flip=0.5, brightness=0.3)
    assert spec.photograph.off
    toned = spec.model_copy(update={"photograph": Photograph(grey=1.0)})
    plain, grey = augment(CLIP, spec, 32, 7), augment(CLIP, toned, 32, 7)
    want = np.stack([cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY) for frame in plain])
    assert (grey == want[..., None]).all()  # the warp's draws are the same


def test_a_pure_function_of_its_seed_alike_on_all_frames() -> None:
    spec = Photograph(grey=0.5, colour=0.3, contrast=0.3, blur=2, resolution=0.3, jpeg=30)
    still = np.repeat(CLIP[:1], 4, axis=0)
    one, again, other = spec.shown(still, 5), spec.shown(still, 5), spec.shown(still, 6)
    assert (one == again).all()
    assert (one != other).any()
    assert (one == one[:1]).all()


@pytest.mark.parametrize("spec", [Photograph(blur=4), Photograph(resolution=0.2)])
def test_blur_and_resolution_take_detail(spec: Photograph) -> None:
    assert np.mean([detail(spec.shown(CLIP, seed)) < detail(CLIP) for seed in range(10)]) > 0.7


def test_colour_moves_channels_apart_and_contrast_widens_or_narrows() -> None:
    flat = np.full((1, SIDE, SIDE, 3), 100, np.uint8)
    channels = Photograph(colour=0.5).shown(flat, 1)[0, 0, 0].astype(int)
    assert len(set(channels.tolist())) == 3
    spread = [Photograph(contrast=0.5).shown(SMOOTH, seed).std() for seed in range(20)]
    assert min(spread) < SMOOTH.std() < max(spread)


def test_a_jpeg_pass_is_one_of_its_quality() -> None:
    shown = Photograph(jpeg=40).shown(SMOOTH, 3)
    assert 0 < np.abs(shown.astype(int) - SMOOTH).mean() < 40
    assert np.corrcoef(shown.ravel(), SMOOTH.ravel())[0, 1] > 0.9  # channels are where they were
