"""A picture is read as the clip that repeats it, and encoded once."""

from __future__ import annotations

import numpy as np
import pytest
import tiny_training as tiny

from ssm.inference import predictor
from ssm.inference.predictor import Predictor
from ssm.interface.preprocessing import Preprocessing


def test_windows_that_end_in_a_repeat_are_encoded_once_with_equal_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    reader = Predictor(tiny.tiny_model(), Preprocessing(image_size=tiny.SIZE))
    shape = (3, tiny.FRAMES, tiny.SIZE, tiny.SIZE, 3)
    clips = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    clips[0, 1:] = clips[0, 0]
    clips[1, 2:] = clips[1, 1]
    seen: list[int] = []
    reader.model.backbone.register_forward_pre_hook(lambda _, inputs: seen.append(len(inputs[0])))
    once = reader.read(clips)
    monkeypatch.setattr(predictor, "_distinct", lambda *_: None)
    repeated = reader.read(clips)
    assert seen == [1 + 2 + tiny.FRAMES, 3 * tiny.FRAMES]
    np.testing.assert_allclose(once.au_probability, repeated.au_probability, atol=1e-5)
    np.testing.assert_allclose(once.expression, repeated.expression, atol=1e-5)


@pytest.mark.parametrize("frames", [1, 2])
def test_clips_without_a_repeat_at_the_end_go_as_they_are(frames: int) -> None:
    moving = np.arange(2 * tiny.FRAMES, dtype=np.uint8).reshape(2, tiny.FRAMES, 1, 1, 1)
    clips = np.broadcast_to(moving, (2, tiny.FRAMES, 8, 8, 3)).copy()
    assert predictor._distinct(clips, "cpu") is None
    clips[1, :frames] = 0  # a repeat at the start is not one at the end
    assert predictor._distinct(clips, "cpu") is None
