"""Preprocessing: geometry that keeps proportions, one pure draw per clip, and a fingerprint that follows the pixels."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from pydantic import ValidationError

from ssm.interface.preprocessing import CLIP_MEAN, CLIP_STD, Preprocessing, center, normalise
from ssm.training.augmentation import AU_AUGMENTATION, FE_AUGMENTATION, Augmentation, augment


def _ramp(count: int, height: int, width: int) -> NDArray[np.uint8]:
    """Frames whose red is the column and green the row (scaled to 0..200), so that geometry can be read off."""
    frames = np.zeros((count, height, width, 3), np.float64)
    frames[..., 0] = np.linspace(0, 200, width)
    frames[..., 1] = np.linspace(0, 200, height)[:, None]
    return frames.round().astype(np.uint8)


def test_center_takes_the_largest_square_from_the_middle() -> None:
    frames = np.zeros((2, 40, 60, 3), np.uint8)
    frames[:, :, 10:50] = 255
    assert (center(frames, Preprocessing(image_size=16)) == 255).all()


def test_center_of_frames_of_the_right_size_is_the_identity() -> None:
    frames = np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3), dtype=np.uint8)
    assert (center(frames, Preprocessing(image_size=32)) == frames).all()


def test_resize_cuts_the_middle_of_the_enlarged_frame() -> None:
    frames = _ramp(1, 256, 256)
    cut = center(frames, Preprocessing(image_size=224, resize=256))
    assert (cut == frames[:, 16:240, 16:240]).all()


@pytest.mark.parametrize("interpolation", ["auto", "linear", "area"])
@pytest.mark.parametrize("side", [20, 40, 200])
def test_center_keeps_the_mean_of_a_smooth_picture(interpolation: str, side: int) -> None:
    config = Preprocessing.model_validate({"image_size": 32, "interpolation": interpolation})
    out = center(_ramp(1, side, side), config)
    assert out.shape == (1, 32, 32, 3)
    assert np.allclose(out[..., :2].mean(), 100, atol=1.5)


def test_center_of_no_frames_is_empty() -> None:
    assert center(np.zeros((0, 9, 9, 3), np.uint8), Preprocessing(image_size=8)).shape == (0, 8, 8, 3)


@pytest.mark.parametrize(
    ("frames", "complaint"),
    [
        (np.zeros((2, 8, 8, 3), np.float32), "uint8 array, got float32"),
        (np.zeros((2, 8, 8), np.uint8), r"N H W 3, got shape \(2, 8, 8\)"),
        (np.zeros((2, 8, 8, 4), np.uint8), r"got shape \(2, 8, 8, 4\)"),
        (np.zeros((2, 0, 8, 3), np.uint8), "got shape"),
        ([[1]], "got list"),
    ],
)
def test_frames_of_another_kind_are_refused(frames: NDArray[np.uint8], complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        center(frames, Preprocessing())
    with pytest.raises(ValueError, match=complaint):
        augment(frames, FE_AUGMENTATION, 8, seed=0)


def test_fingerprint_is_stable_and_follows_every_field() -> None:
    base = Preprocessing()
    assert base.fingerprint() == "43506658eee15284fe04b03e9ea39c09e7731605a829937a1fdd2045bf732fae"
    assert Preprocessing.model_validate_json(base.model_dump_json()).fingerprint() == base.fingerprint()
    assert Preprocessing(resize=224).fingerprint() == base.fingerprint()
    others = [
        Preprocessing(image_size=112),
        Preprocessing(resize=256),
        Preprocessing(interpolation="area"),
        Preprocessing(mean=(0.5, 0.5, 0.5)),
        Preprocessing(std=(0.5, 0.5, 0.5)),
        Preprocessing(grey=True),
        Preprocessing(standardise=True),
    ]
    assert len({config.fingerprint() for config in [base, *others]}) == 8


def test_settings_that_cannot_work_name_value_and_rule() -> None:
    with pytest.raises(ValidationError, match="resize is 100: it must be at least image_size, 224"):
        Preprocessing(resize=100)
    with pytest.raises(ValidationError, match="scale is"):
        Augmentation(scale=(0.0, 1.0))
    with pytest.raises(ValidationError, match="ratio is"):
        Augmentation(ratio=(1.2, 0.8))
    with pytest.raises(ValidationError, match="Extra inputs"):
        Preprocessing.model_validate({"size": 3})


def test_normalise_equals_the_formula() -> None:
    clips = torch.randint(0, 256, (2, 3, 5, 4, 3), dtype=torch.uint8)
    expected = (clips / 255 - torch.tensor(CLIP_MEAN)) / torch.tensor(CLIP_STD)
    out = normalise(clips, Preprocessing())
    torch.testing.assert_close(out, expected.permute(0, 1, 4, 2, 3), atol=1e-5, rtol=0)
    assert out.is_contiguous()
    assert normalise(clips, Preprocessing(), torch.bfloat16).dtype == torch.bfloat16
    with pytest.raises(ValueError, match=r"uint8 B T H W 3, got torch.float32"):
        normalise(clips.float(), Preprocessing())


@pytest.mark.parametrize("spec", [FE_AUGMENTATION, AU_AUGMENTATION, Augmentation(rotation=20, brightness=0.5)])
def test_augmentation_is_one_draw_per_clip_and_a_function_of_the_seed(spec: Augmentation) -> None:
    frames = np.repeat(_ramp(1, 50, 40), 4, axis=0)
    first = augment(frames, spec, 24, seed=7)
    assert first.shape == (4, 24, 24, 3)
    assert (first == first[:1]).all()
    assert (first == augment(frames, spec, 24, seed=7)).all()
    assert any((first != augment(frames, spec, 24, seed=seed)).any() for seed in (8, 9))


def test_augmentation_without_ranges_is_a_plain_resize() -> None:
    frames = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3), dtype=np.uint8)
    assert (augment(frames, Augmentation(), 32, seed=3) == frames).all()
    smooth = _ramp(2, 96, 96)
    difference = augment(smooth, Augmentation(), 32, seed=3).astype(int) - center(smooth, Preprocessing(image_size=32))
    assert np.abs(difference).max() <= 2


def test_flip_mirrors_columns_only() -> None:
    frames = np.random.default_rng(1).integers(0, 256, (2, 16, 16, 3), dtype=np.uint8)
    assert (augment(frames, Augmentation(flip=1.0), 16, seed=0) == frames[:, :, ::-1]).all()


def test_brightness_scales_pixels_within_its_range() -> None:
    frames = np.full((1, 8, 8, 3), 100, np.uint8)
    levels = [int(augment(frames, Augmentation(brightness=0.5), 8, seed)[0, 0, 0, 0]) for seed in range(200)]
    assert 50 <= min(levels) < 60
    assert 140 < max(levels) <= 150


def test_rotation_turns_about_the_middle_by_at_most_its_angle() -> None:
    frames = np.zeros((1, 101, 101, 3), np.uint8)
    frames[0, 49:52, 80:83] = 255  # a dot 31 pixels right of the middle
    for seed in range(20):
        turned = augment(frames, Augmentation(rotation=30), 101, seed)[0, ..., 0].astype(float)
        rows, columns = np.mgrid[:101, :101]
        y, x = (rows * turned).sum() / turned.sum() - 50, (columns * turned).sum() / turned.sum() - 50
        assert np.hypot(x, y) == pytest.approx(31, abs=0.3)
        assert abs(np.degrees(np.arctan2(y, x))) <= 30.5


def test_cuts_stay_in_their_range_of_area() -> None:
    frames = _ramp(1, 256, 256)
    for seed in range(50):
        out = augment(frames, Augmentation(scale=(0.5, 0.6)), 64, seed)[0].astype(float)
        share = (out[..., 0].max() - out[..., 0].min()) * (out[..., 1].max() - out[..., 1].min()) / 200**2
        assert 0.45 < share < 0.65


def test_a_grey_model_sees_what_opencv_calls_grey_and_no_colour() -> None:
    clips = torch.randint(0, 256, (2, 3, 8, 6, 3), dtype=torch.uint8)
    plain = Preprocessing(mean=(0.0, 0.0, 0.0), std=(1 / 255, 1 / 255, 1 / 255), grey=True)
    out = normalise(clips, plain)
    assert out.is_contiguous()
    torch.testing.assert_close(out[:, :, 0], out[:, :, 1], atol=0, rtol=0)
    torch.testing.assert_close(out[:, :, 0], out[:, :, 2], atol=0, rtol=0)
    theirs = np.stack([cv2.cvtColor(frame.numpy(), cv2.COLOR_RGB2GRAY) for frame in clips.flatten(0, 1)])
    assert (out[:, :, 0].flatten(0, 1) - torch.from_numpy(theirs).float()).abs().max() <= 0.51  # theirs is rounded
    grey = clips[..., :1].expand_as(clips)
    torch.testing.assert_close(normalise(grey, plain), normalise(grey, plain.model_copy(update={"grey": False})))


def test_a_standardised_frame_knows_no_light_and_no_contrast() -> None:
    clips = torch.randint(60, 120, (2, 3, 8, 6, 3), dtype=torch.uint8)
    own = Preprocessing(mean=(0.0, 0.1, 0.2), std=(1.0, 0.5, 0.25), standardise=True)
    out = normalise(clips, own).permute(0, 1, 3, 4, 2)
    for (b, t), frame in zip(np.ndindex(2, 3), clips.flatten(0, 1).double().numpy(), strict=True):
        expected = ((frame - frame.mean()) / (frame.std() + 1) - own.mean) / own.std
        np.testing.assert_allclose(out[b, t].numpy(), expected, atol=1e-5)
    brighter = normalise(clips * 2 + 10, own).permute(0, 1, 3, 4, 2)  # an affine change of light
    assert (brighter - out).abs().max() < 0.3  # the one grey level that keeps flat frames finite
    flat = torch.full((1, 1, 8, 6, 3), 255, dtype=torch.uint8)
    assert normalise(flat, Preprocessing(mean=(0.0,) * 3, std=(1.0,) * 3, standardise=True)).abs().max() == 0
