"""Valence and arousal answered: one pass, streams, smoothing and reasons that add up, and a folder that keeps them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tiny_training as tiny
import torch

from ssm import SSM
from ssm.inference.predictor import Predictor
from ssm.interface import Preprocessing, Smoothing, box, normalise
from ssm.model import AffectConfig, LabelAffect
from ssm.saved import ModelFacts

PREPROCESSING = Preprocessing(image_size=tiny.SIZE)


def saved(folder: Path, head: str, half_window: int = 6) -> Predictor:
    model = tiny.tiny_model(3, **tiny.WITH_AFFECT, affect=AffectConfig(head=head))
    with torch.no_grad():
        for name, parameter in model.affect_head.named_parameters():
            parameter += 0.1 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(len(name)))
    model.save_pretrained(
        folder, facts=ModelFacts(preprocessing=PREPROCESSING, smoothing=Smoothing(affect=half_window))
    )
    return Predictor.from_pretrained(folder, batch=2)


def frames(count: int) -> np.ndarray:
    return np.random.default_rng(count).integers(0, 256, (count, tiny.SIZE, tiny.SIZE, 3), dtype=np.uint8)


@pytest.mark.parametrize("head", ["features", "labels"])
def test_a_saved_model_smooths_as_its_facts_say_and_a_stream_equals_the_whole(head: str, tmp_path: Path) -> None:
    predictor = saved(tmp_path / "model", head)
    pictures = frames(30)
    whole = predictor.predict(pictures)
    assert whole.affect is not None
    clips = np.concatenate([pictures, np.repeat(pictures[-1:], 2, axis=0)]).reshape(8, tiny.FRAMES, *pictures.shape[1:])
    with torch.inference_mode():
        plain = predictor.model(va_clips=normalise(torch.from_numpy(clips), PREPROCESSING)).affect
    assert plain.abs().max() <= 1
    expected = box(plain.flatten(0, 1)[:30].numpy(), 6)
    assert whole.affect == pytest.approx(expected, abs=1e-5)
    assert not np.allclose(whole.affect, plain.flatten(0, 1)[:30].numpy(), atol=1e-3)
    for piece in (1, 7):
        windows = list(predictor.stream(pictures[start : start + piece] for start in range(0, 30, piece)))
        assert np.concatenate([window.affect for window in windows]) == pytest.approx(whole.affect, abs=1e-6)
    assert predictor.read(clips[:2]).affect == pytest.approx(plain[:2].numpy(), abs=1e-5)
    assert SSM.from_pretrained(tmp_path / "model").facts.smoothing == Smoothing(affect=6)


def test_terms_of_the_label_head_add_up_to_its_answer(tmp_path: Path) -> None:
    predictor = saved(tmp_path / "model", "labels")
    model, head = predictor.model, predictor.model.affect_head
    assert isinstance(head, LabelAffect)
    clips = normalise(torch.from_numpy(frames(8)).view(2, tiny.FRAMES, tiny.SIZE, tiny.SIZE, 3), PREPROCESSING)
    with torch.inference_mode():
        features, prototypes = model.encode_clips(clips), model.prototypes()
        terms = head.terms(*model.affect_inputs(features, prototypes))
        whole = (terms.base + terms.by_au.sum(-1) + terms.by_expression.sum(-1)).tanh()
        assert torch.allclose(whole, model.read_affect(features, prototypes), atol=1e-5)
        answers = predictor.read(frames(8).reshape(2, tiny.FRAMES, tiny.SIZE, tiny.SIZE, 3))
    assert answers.affect_why == pytest.approx(terms.by_au.mean(1).numpy(), abs=1e-4)
    assert predictor.predict(frames(8)).window_affect_why.shape == (2, 2, len(tiny.AUS))


def test_a_model_without_affect_answers_none_and_one_with_features_gives_no_reasons(tmp_path: Path) -> None:
    plain = Predictor(tiny.tiny_model(), PREPROCESSING).predict(frames(5))
    assert plain.affect is None
    found = saved(tmp_path / "model", "features").predict(frames(5))
    assert found.affect is not None
    assert found.window_affect_why is None
