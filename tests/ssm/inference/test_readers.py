"""Every AU reader through saving, loading, folding, predicting and explaining: one small matrix."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tiny_model as tiny
import torch

from ssm import SSM
from ssm.inference.predictor import Predictor
from ssm.interface import normalise
from ssm.interface.abstention import Abstention
from ssm.interface.preprocessing import Preprocessing
from ssm.model.config import AUReaderConfig, GraphConfig, LatentConfig
from ssm.model.readers.table import READERS
from ssm.saved import ModelFacts

KINDS = list(READERS)
LEVEL = Abstention(risk=0.1, doubt=0.6, coverage=0.5)
A, T = len(tiny.LABELS.aus), tiny.FRAMES


def _model(kind: str) -> SSM:
    """Away from its start, with two descriptions of each AU where a reader looks at them."""
    reader = AUReaderConfig(
        kind=kind, graph=GraphConfig(heads=2, neighbours=2), latent=LatentConfig(hidden=8, width=3)
    )  # fmt: skip
    config = tiny.with_text().model_copy(update={"au_reader": reader})
    if READERS[kind].needs_texts:
        config = config.model_copy(update={"text": config.text.model_copy(update={"style": "llm"})})
    model = tiny.small_model(config)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.1 * torch.randn(parameter.shape, generator=generator)
    return model


@pytest.fixture(scope="module", params=KINDS)
def saved(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[SSM, Path]:
    """A model and the folder that it was saved into."""
    model, folder = _model(request.param), tmp_path_factory.mktemp("models") / request.param
    model.save_pretrained(folder, facts=ModelFacts(preprocessing=Preprocessing(image_size=tiny.SIZE), abstention=LEVEL))
    return model, folder


def test_a_saved_model_answers_without_its_tower_as_the_live_one(saved: tuple[SSM, Path]) -> None:
    model, folder = saved
    loaded, clips = SSM.from_pretrained(folder), tiny.clips(3)
    assert ("built after" in (folder / "README.md").read_text()) == (model.config.au_reader.kind != "linear")
    assert loaded.text is None or not loaded.text._tower
    with torch.no_grad():
        live, found = model.eval()(clips, clips), loaded(clips, clips)
        alone = loaded(au_clips=clips[1:2])
    for name, value in vars(live).items():
        if value is not None:
            torch.testing.assert_close(getattr(found, name), value, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(alone.au_logits[0], found.au_logits[1], atol=1e-4, rtol=1e-4)
    assert loaded.text is None or not loaded.text._tower, "nothing asked for it"


def test_a_predictor_gives_doubts_places_and_reasons_where_the_reader_knows_them(saved: tuple[SSM, Path]) -> None:
    model, folder = saved
    predictor, reader = Predictor.from_pretrained(folder, batch=2), model.au_head
    frames = np.random.default_rng(0).integers(0, 255, (2 * T + 1, tiny.SIZE, tiny.SIZE, 3), np.uint8)
    clips = frames[: 2 * T].reshape(2, T, tiny.SIZE, tiny.SIZE, 3)
    whole = predictor.predict(frames)
    pieces = list(predictor.stream([frames[:3], frames[3:]]))
    assert whole.why is not None
    if reader.gives_evidence:
        assert whole.au_uncertainty.shape == whole.au_probability.shape
        assert ((whole.au_uncertainty > 0) & (whole.au_uncertainty <= 1)).all()
        np.testing.assert_array_equal(whole.au_withheld, whole.au_uncertainty > np.float32(0.6))
        joined = np.concatenate([piece.au_uncertainty for piece in pieces])
        np.testing.assert_allclose(joined, whole.au_uncertainty, atol=1e-5)
        with torch.inference_mode():
            seen = normalise(torch.from_numpy(clips), predictor.preprocessing)
            alpha, beta = model.eval()(au_clips=seen).au_evidence.flatten(0, 1).double().unbind(-1)
        doubt = 2 / (2 + (alpha - 1) + (beta - 1) * (alpha + beta) / alpha)  # an absence weighed p
        np.testing.assert_allclose(whole.au_uncertainty[: 2 * T], doubt, atol=1e-4)
    else:
        assert (whole.au_uncertainty, whole.au_withheld) == (None, None)
    if reader.needs_texts:
        where = predictor.where(clips)
        assert where.shape == (2, T, A, *model.backbone.grid)
        np.testing.assert_allclose(where.sum((-2, -1)), 1, atol=1e-5)
    else:
        with pytest.raises(ValueError, match="looks at no places: train with 'hiva' for heat maps"):
            predictor.where(clips)


def test_weights_of_another_reader_are_refused(tmp_path: Path) -> None:
    _model("evidential").save_pretrained(tmp_path / "one")
    config = tmp_path / "one" / "config.json"
    config.write_text(config.read_text().replace('"kind": "evidential"', '"kind": "linear"'))
    with pytest.raises(ValueError, match=r"lacks au_head\.linear.*of another AU reader: au_reader\.kind must be"):
        SSM.from_pretrained(tmp_path / "one")
