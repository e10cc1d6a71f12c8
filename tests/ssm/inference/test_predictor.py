"""The predictor: windows equal one pass, streams equal the whole, reasons add up, a saved folder predicts the same."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tiny_training as tiny
import torch
from numpy.typing import NDArray

from ssm import SSM
from ssm.inference.explain import Explainer
from ssm.inference.predictor import Prediction, Predictor
from ssm.interface.preprocessing import Preprocessing, center, normalise
from ssm.interface.rules import AURule, DecisionRule
from ssm.interface.segments import segment_centres
from ssm.model.precision import resolve

PREPROCESSING = Preprocessing(image_size=tiny.SIZE)


def _model(seed: int = 0, **changes: object) -> SSM:
    """A model whose every learned part is away from its start."""
    model = tiny.tiny_model(seed, **changes)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.1 * torch.randn(parameter.shape, generator=generator)
    return model


def _frames(count: int, height: int = tiny.SIZE, width: int = tiny.SIZE) -> NDArray[np.uint8]:
    return np.random.default_rng(count).integers(0, 256, (count, height, width, 3), dtype=np.uint8)


def _rule() -> DecisionRule:
    """Reaches over more than a window, so that votes cross windows."""
    first = AURule(threshold=0.5, half_window=5, votes=6)
    return DecisionRule(rules={au: first if au == 1 else AURule() for au in tiny.AUS})


@pytest.fixture(scope="module")
def predictor() -> Predictor:
    return Predictor(_model(), PREPROCESSING, _rule(), batch=3)


@pytest.mark.parametrize("count", [1, 3, 4, 5, 12, 29])
def test_windows_hold_every_frame_once(predictor: Predictor, count: int) -> None:
    found = predictor.predict(_frames(count))
    windows = -(-count // tiny.FRAMES)
    assert found.au_probability.shape == found.au_present.shape == (count, len(tiny.AUS))
    assert found.window_starts.tolist() == [tiny.FRAMES * w for w in range(windows)]
    assert found.window_expression.shape == (windows, len(tiny.EXPRESSIONS))
    assert np.allclose(found.expression.sum(), 1, atol=1e-5)
    assert np.allclose(found.window_expression.sum(1), 1, atol=1e-5)


def test_prediction_equals_the_models_own_forward_pass(predictor: Predictor) -> None:
    frames = _frames(10)
    found = predictor.predict(frames)
    padded = np.concatenate([frames, frames[-1:], frames[-1:]]).reshape(3, tiny.FRAMES, tiny.SIZE, tiny.SIZE, 3)
    centres = frames[segment_centres(10, tiny.FRAMES)][None]
    with torch.inference_mode():
        windows = normalise(torch.from_numpy(padded), PREPROCESSING)
        output = predictor.model(fe_clips=windows, au_clips=windows)
        clip = predictor.model(fe_clips=normalise(torch.from_numpy(centres), PREPROCESSING))
    assert output.au_logits is not None
    expected = output.au_logits.sigmoid().flatten(0, 1)[:10]
    assert found.au_probability == pytest.approx(expected.numpy(), abs=1e-5)
    assert found.window_expression == pytest.approx(output.fe_logits.softmax(-1).numpy(), abs=1e-5)
    assert found.expression == pytest.approx(clip.fe_logits.softmax(-1)[0].numpy(), abs=1e-5)
    assert (found.au_present == _rule().apply(found.au_probability)).all()


@pytest.mark.parametrize("piece", [1, 7, 100])
@pytest.mark.parametrize("batch", [1, 3])
def test_a_stream_in_pieces_equals_the_whole(predictor: Predictor, piece: int, batch: int) -> None:
    frames = _frames(45)
    whole = predictor.predict(frames)
    streaming = Predictor(predictor.model, PREPROCESSING, _rule(), batch=batch)
    windows = list(streaming.stream(frames[start : start + piece] for start in range(0, 45, piece)))
    assert [window.start for window in windows] == whole.window_starts.tolist()
    probabilities = np.concatenate([window.au_probability for window in windows])
    assert probabilities == pytest.approx(whole.au_probability, abs=1e-5)
    assert (np.concatenate([w.au_present for w in windows]) == whole.au_present).all()
    assert np.stack([w.expression for w in windows]) == pytest.approx(whole.window_expression, abs=1e-5)
    assert whole.window_why is not None
    assert np.stack([w.why for w in windows if w.why is not None]) == pytest.approx(whole.window_why, abs=1e-4)


def test_a_stream_answers_as_it_goes_and_holds_little(predictor: Predictor) -> None:
    given = 0

    def endless() -> object:
        nonlocal given
        while True:
            given += 1
            yield _frames(1)

    stream = predictor.stream(endless())  # type: ignore[arg-type]
    for number in range(1, 8):
        next(stream)
        # what may be ahead: one batch of windows, and the windows that the rule looks at
        assert given <= tiny.FRAMES * (number + predictor.batch + 2)


def test_streams_do_not_leave_inference_mode_on(predictor: Predictor) -> None:
    stream = predictor.stream([_frames(40)])
    next(stream)
    assert not torch.is_inference_mode_enabled()
    assert list(predictor.stream([])) == []


def test_frames_of_any_size_go_through_the_one_geometry(predictor: Predictor) -> None:
    frames = _frames(6, 50, 70)
    one, other = predictor.predict(frames), predictor.predict(center(frames, PREPROCESSING))
    assert (one.au_probability == other.au_probability).all()


def test_reasons_add_up_to_the_semantic_logits() -> None:
    model = _model(1).fold()
    clips = torch.randn(3, tiny.FRAMES, 3, tiny.SIZE, tiny.SIZE)
    explainer = Explainer.of(model)
    assert explainer is not None
    with torch.no_grad():
        features = model.encode_frames(clips.flatten(0, 1)).pooled.view(3, tiny.FRAMES, -1)
        parts = explainer(model.expression_time(features))
        semantic = model(fe_clips=clips).fe_semantic_logits
    assert semantic is not None
    torch.testing.assert_close(parts.base + parts.by_au.sum(-1), semantic, atol=1e-4, rtol=1e-4)


def test_reasons_follow_the_learned_map() -> None:
    """An AU's reason is the map's cell times the clip's match with the AU's text over the norm of the expression."""
    model = _model(2).fold()
    explainer = Explainer.of(model)
    assert explainer is not None
    assert model.mapping is not None
    with torch.no_grad():
        by_au = explainer(model.expression_time(torch.randn(2, tiny.FRAMES, 16))).by_au
        match = by_au / model.mapping.au_to_fe()
    torch.testing.assert_close(match[:, 0, 0] * match[:, 1, 1], match[:, 0, 1] * match[:, 1, 0], rtol=1e-3, atol=1e-3)
    neutral = tiny.EXPRESSIONS.index("neutral")
    assert by_au[:, neutral].abs().max() < by_au[:, 0].abs().max()


@pytest.mark.parametrize("change", ["no text", "no mapping", "one way"])
def test_models_without_mapped_prototypes_predict_without_reasons(change: str) -> None:
    config = tiny.tiny_config()
    changes = {
        "no text": {"text": config.text.model_copy(update={"tower": None})},
        "no mapping": {"mapping": config.mapping.model_copy(update={"enabled": False})},
        "one way": {"mapping": config.mapping.model_copy(update={"learn": "fe_to_au"})},
    }[change]
    found = Predictor(_model(0, **changes), PREPROCESSING).predict(_frames(5))
    assert found.why is None
    assert found.window_why is None


def test_a_saved_folder_predicts_the_same_with_its_rule(predictor: Predictor, tmp_path: Path) -> None:
    model = _model()
    model.facts = model.facts.model_copy(update={"preprocessing": PREPROCESSING, "rule": _rule()})
    model.save_pretrained(tmp_path / "model")
    again = Predictor.from_pretrained(tmp_path / "model", batch=3)
    frames = _frames(21)
    one, other = predictor.predict(frames), again.predict(frames)
    assert again.rule == _rule()
    for name in ("au_probability", "expression", "why", "window_why"):
        assert getattr(one, name) == pytest.approx(getattr(other, name), abs=1e-5), name
    assert (one.au_present == other.au_present).all()
    assert isinstance(other, Prediction)


def test_what_does_not_fit_is_refused(predictor: Predictor) -> None:
    with pytest.raises(ValueError, match="no frames"):
        predictor.predict(_frames(0))
    with pytest.raises(ValueError, match=r"frames must be RGB of shape N H W 3"):
        predictor.predict(_frames(3)[..., :1])
    with pytest.raises(ValueError, match=r"clips are uint8 \[1, 3, 32, 32, 3\]: must be uint8 \[B, 4, 32, 32, 3\]"):
        predictor.read(_frames(3)[None])
    with pytest.raises(ValueError, match="makes 64 pixels, the model takes 32"):
        Predictor(predictor.model, Preprocessing(image_size=64))
    with pytest.raises(ValueError, match="no entry for AU"):
        Predictor(predictor.model, PREPROCESSING, DecisionRule.default([1]))


def test_precision_is_a_setting_of_the_saved_model(tmp_path: Path) -> None:
    """On a CPU auto is float32; bfloat16 moves probabilities a little."""
    model, frames = _model(), _frames(12)
    answers = {}
    for precision in ("auto", "float32", "bfloat16"):
        facts = model.facts.model_copy(update={"preprocessing": PREPROCESSING, "precision": precision})
        model.save_pretrained(tmp_path / precision, facts=facts)
        reader = Predictor.from_pretrained(tmp_path / precision)
        assert reader.precision == ("float32" if precision == "auto" else precision)
        answers[precision] = reader.predict(frames)
    assert np.array_equal(answers["auto"].au_probability, answers["float32"].au_probability)
    moved = np.abs(answers["bfloat16"].au_probability - answers["float32"].au_probability).max()
    assert 0 < moved < 0.02
    assert Predictor.from_pretrained(tmp_path / "auto", precision="bfloat16").precision == "bfloat16"


def test_an_unsupported_precision_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match="precision is 'float16': must be auto, float32 or bfloat16"):
        resolve("float16", torch.device("cpu"))  # type: ignore[arg-type]
    monkeypatch.setattr("torch.cuda.is_bf16_supported", lambda **_: False)
    monkeypatch.setattr("torch.cuda.get_device_name", lambda _: "Old Card")
    assert resolve("auto", torch.device("cuda")) == "float32"
    with pytest.raises(ValueError, match="precision is 'bfloat16', which Old Card does not have: use float32 or auto"):
        resolve("bfloat16", torch.device("cuda"))


def test_compiled_batches_are_filled_to_powers_of_two(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []

    def compiled(call: Callable[..., torch.Tensor], **_: object) -> Callable[..., torch.Tensor]:
        def run(frames: torch.Tensor) -> torch.Tensor:
            sizes.append(len(frames) // tiny.FRAMES)
            return call(frames)

        return run

    monkeypatch.setattr(torch, "compile", compiled)
    model, clips = _model(), _frames(5 * tiny.FRAMES).reshape(5, tiny.FRAMES, tiny.SIZE, tiny.SIZE, 3)
    plain, filled = Predictor(model, PREPROCESSING), Predictor(model, PREPROCESSING, compiled=True)
    for count in (1, 3, 5):
        one, other = plain.read(clips[:count]), filled.read(clips[:count])
        assert one.au_probability == pytest.approx(other.au_probability, abs=1e-5)
    assert sizes == [1, 4, 8]
