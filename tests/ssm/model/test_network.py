"""SSM as a whole: sides, gradients, folding, ablations by configuration, bad input."""

from __future__ import annotations

import copy
import pickle

import pytest
import tiny_model as tiny
import torch

from ssm import SSM
from ssm.model.config import MappingConfig, ModelConfig
from ssm.training import TrainConfig, TrainStep

E, A, T = len(tiny.LABELS.expressions), len(tiny.LABELS.aus), tiny.FRAMES


@pytest.fixture(scope="module")
def shared_model() -> SSM:
    """A model with the embedded tower, in evaluation mode and folded; tests must not change it."""
    return tiny.small_model(tiny.with_text()).fold()


def test_outputs_are_typed_and_shaped(shared_model: SSM) -> None:
    output = shared_model(tiny.clips(2), tiny.clips(3, seed=1))
    shapes = {name: tuple(value.shape) for name, value in vars(output).items() if value is not None}
    assert shapes == {
        "fe_logits": (2, E), "fe_semantic_logits": (2, E), "au_logits": (3, T, A), "au_semantic_logits": (3, T, A),
        "map_au_to_fe": (E, A), "map_fe_to_au": (A, E),
    }  # fmt: skip


def test_aus_of_expression_clips_are_read_where_asked_for(shared_model: SSM) -> None:
    clips = tiny.clips(2)
    asked = shared_model(fe_clips=clips, fe_aus=True).fe_au_logits
    torch.testing.assert_close(asked, shared_model(au_clips=clips).au_logits, atol=1e-4, rtol=1e-4)


def test_a_side_alone_is_as_beside_the_other(shared_model: SSM) -> None:
    fe, au = tiny.clips(2), tiny.clips(3, seed=1)
    both, only_fe, only_au = shared_model(fe, au), shared_model(fe_clips=fe), shared_model(au_clips=au)
    torch.testing.assert_close(only_fe.fe_logits, both.fe_logits, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(only_au.au_logits, both.au_logits, atol=1e-4, rtol=1e-4)
    assert only_fe.au_logits is None
    assert only_au.fe_logits is None


def test_a_clip_alone_is_as_in_a_batch(shared_model: SSM) -> None:
    clips = tiny.clips(5)
    batch = shared_model(clips, clips)
    for index in range(5):
        alone = shared_model(clips[index : index + 1], clips[index : index + 1])
        torch.testing.assert_close(alone.fe_logits[0], batch.fe_logits[index], atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(alone.au_logits[0], batch.au_logits[index], atol=1e-4, rtol=1e-4)


def test_shorter_clips_and_longer_au_clips_are_taken(shared_model: SSM) -> None:
    assert shared_model(fe_clips=tiny.clips(1, frames=2)).fe_logits.shape == (1, E)
    assert shared_model(au_clips=tiny.clips(1, frames=9)).au_logits.shape == (1, 9, A)


def test_every_trainable_parameter_gets_a_gradient_from_both_sides() -> None:
    for changes in ({}, {"mapping": MappingConfig(learn="none")}, {"mapping": MappingConfig(learn="au_to_fe")}):
        model = tiny.small_model(tiny.with_text().model_copy(update=changes)).train()
        output = model(tiny.clips(2), tiny.clips(3))
        (output.fe_logits.square().sum() + output.au_logits.square().sum()).backward()
        without = [name for name, p in model.named_parameters() if p.requires_grad and p.grad is None]
        assert without == []


def test_an_unlabelled_au_has_a_gradient_of_exactly_zero() -> None:
    model = tiny.small_model(tiny.with_text()).train()
    output = model(au_clips=tiny.clips(3))
    labelled = torch.tensor([True, False, True, False])
    loss = torch.nn.functional.binary_cross_entropy_with_logits(output.au_logits, torch.ones(3, T, A), reduction="none")
    semantic = output.au_semantic_logits.sigmoid()
    ((loss + semantic) * labelled).sum().backward()
    for parameter in (model.au_head.linear.weight, model.au_head.linear.bias, model.smoothing.weight):
        assert parameter.grad is not None
        assert parameter.grad[labelled].any()
        assert not parameter.grad[~labelled].any()
    assert model.mapping is not None
    assert not model.mapping.delta_fe_to_au.grad[~labelled].any()  # type: ignore[index]


@pytest.mark.parametrize("side", ["fe", "au"])
def test_an_absent_side_has_a_gradient_of_exactly_zero(side: str) -> None:
    model = tiny.small_model(tiny.with_text()).train()
    output = model(**{f"{side}_clips": tiny.clips(2)})
    getattr(output, f"{side}_logits").square().sum().backward()
    absent = {"fe": ("au_time.", "au_head.", "smoothing."), "au": ("expression_time.", "fe_head.")}[side]
    grads = {name: parameter.grad for name, parameter in model.named_parameters() if name.startswith(absent)}
    assert grads
    assert all(grad is None or not grad.any() for grad in grads.values())


def test_noise_does_not_depend_on_how_a_batch_is_cut() -> None:
    model = tiny.small_model(tiny.with_text()).train()
    fe, au, fe_rows, au_rows = (
        tiny.clips(2),
        tiny.clips(4, seed=1),
        torch.tensor([3, 8]),
        torch.tensor([3, 4, 9, 2**35]),
    )
    whole = model(fe, au, fe_row_ids=fe_rows, au_row_ids=au_rows, noise_key=11)
    for part in range(2):
        cut = model(
            fe[part::2], au[part::2], fe_row_ids=fe_rows[part::2], au_row_ids=au_rows[part::2], noise_key=11
        )  # fmt: skip
        torch.testing.assert_close(cut.fe_logits, whole.fe_logits[part::2], atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(cut.au_logits, whole.au_logits[part::2], atol=1e-4, rtol=1e-4)
    alone = model(au_clips=au, au_row_ids=au_rows, noise_key=11)
    torch.testing.assert_close(alone.au_logits, whole.au_logits, atol=1e-4, rtol=1e-4)
    other = model(fe, au, fe_row_ids=fe_rows, au_row_ids=au_rows, noise_key=12)
    assert not torch.equal(other.au_logits, whole.au_logits)


def test_folding_changes_nothing_and_needs_no_tower(monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny.small_model(tiny.with_text()).eval()
    clips = tiny.clips(2)
    before = model(clips, clips)
    model.fold()
    model.text._tower.clear()  # type: ignore[union-attr]
    monkeypatch.setattr("ssm.model.text.load_tower", None)
    after = model(clips, clips)
    torch.testing.assert_close(after.fe_logits, before.fe_logits)
    torch.testing.assert_close(after.au_logits, before.au_logits)
    for twin in (copy.deepcopy(model), pickle.loads(pickle.dumps(model)), model.to(torch.float64).to(torch.float32)):
        torch.testing.assert_close(twin(clips).fe_logits, before.fe_logits)
    assert not any("folded" in name for name in model.state_dict())


@pytest.mark.parametrize("change", ["train", "load", "average"])
def test_a_fold_is_forgotten_when_the_weights_change(change: str) -> None:
    """By training, by loading, and by the moving average that validation swaps in."""
    clips = tiny.clips(1)
    model = tiny.small_model(tiny.with_text()).fold()
    before = model(clips).fe_logits
    other = tiny.small_model(tiny.with_text(), seed=1).text.contexts  # type: ignore[union-attr]
    if change == "load":
        model.load_state_dict(model.state_dict() | {"text.contexts": other})
    else:
        step = TrainStep(model.train(), TrainConfig(), device="cpu")
        weights = model.text.contexts if change == "train" else step.average.state_dict()["text.contexts"]  # type: ignore[union-attr]
        weights.data.copy_(other)
        if change == "average":
            with step.averaged() as averaged:
                assert not torch.equal(averaged.fold()(clips).fe_logits, before)  # type: ignore[operator]
            assert torch.equal(model.fold()(clips).fe_logits, before)
            return
    assert not torch.equal(model.eval()(clips).fe_logits, before)


def test_the_logits_are_the_equations_of_the_method() -> None:
    """Both heads against the formulas, from the parts' features."""
    model = tiny.small_model(tiny.with_text()).fold()
    clips = tiny.clips(2)
    output = model(clips, clips)
    frames = model.encode_frames(clips.flatten(0, 1)).pooled.view(2, T, -1)
    prototypes = model.prototypes()
    assert prototypes is not None
    feature, local = model.expression_time(frames), model.au_time(frames)
    unit = torch.nn.functional.normalize
    s_E, s_A = unit(feature, dim=-1) @ prototypes.expressions.T / 0.01, unit(local, dim=-1) @ prototypes.aus.T / 0.01
    torch.testing.assert_close(output.fe_semantic_logits, 0.1 * s_E, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(output.fe_logits, model.fe_head.linear(feature) + 0.1 * s_E, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(output.au_semantic_logits, 0.1 * s_A, atol=1e-4, rtol=1e-4)
    total = model.au_head.linear(local) + 0.1 * s_A
    torch.testing.assert_close(output.au_logits, model.smoothing(total), atol=1e-4, rtol=1e-4)


def test_ablations_are_configuration() -> None:
    clips = tiny.clips(1)
    plain = tiny.small_model(tiny.small_config())(clips, clips)
    assert plain.fe_logits is not None
    assert plain.fe_semantic_logits is None
    assert plain.map_au_to_fe is None
    unmapped = tiny.small_model(tiny.with_text().model_copy(update={"mapping": MappingConfig(enabled=False)}))
    output = unmapped(clips, clips)
    assert output.fe_semantic_logits is not None
    assert output.map_fe_to_au is None
    assert (
        tiny.small_model(tiny.small_config(backbone=tiny.VIT.model_copy(update={"experts": None})))(clips).fe_logits
        is not None
    )


def test_it_is_one_graph_to_the_compiler() -> None:
    """On a CPU too, where the experts' kernel of a plain pass waits for the routing: compiled, they take the other."""
    shallow = tiny.VIT.model_copy(update={"options": {**tiny.VIT.options, "depth": 2}})
    model = tiny.small_model(tiny.small_config(backbone=shallow)).train()
    fe, au, rows = tiny.clips(2), tiny.clips(2, seed=1), torch.arange(2)
    compiled = torch.compile(model, backend="eager", fullgraph=True)
    with torch.autocast("cpu", torch.bfloat16):
        want, got = (m(fe, au, fe_row_ids=rows, au_row_ids=rows, noise_key=5) for m in (model, compiled))
    torch.testing.assert_close(got.fe_logits, want.fe_logits, atol=2e-2, rtol=2e-2)
    torch.testing.assert_close(got.au_logits, want.au_logits, atol=2e-2, rtol=2e-2)


def test_it_runs_in_bfloat16(shared_model: SSM) -> None:
    clips = tiny.clips(1)
    with torch.autocast("cpu", torch.bfloat16):
        output = shared_model(clips, clips)
    reference = shared_model(clips, clips)
    torch.testing.assert_close(output.fe_logits.float(), reference.fe_logits, atol=0.5, rtol=0.1)


@pytest.mark.parametrize(
    ("clips", "message"),
    [
        (torch.zeros(1, 3, T, 32, 32), r"fe_clips must be \(B, T, 3, 32, 32\); got \(1, 3, 4, 32, 32\)"),
        (torch.zeros(3, 32, 32), r"got \(3, 32, 32\)"),
        (torch.zeros(0, T, 3, 32, 32), r"got \(0, 4, 3, 32, 32\)"),
        (torch.zeros(1, T, 3, 64, 64), r"got \(1, 4, 3, 64, 64\)"),
        (torch.zeros(1, T, 3, 32, 32, dtype=torch.uint8), "floating point and normalised; got torch.uint8"),
        (torch.zeros(1, T + 1, 3, 32, 32), "has 5 frames; this model takes at most 4"),
        (torch.full((1, T, 3, 32, 32), float("nan")), "NaN or infinite"),
        (torch.full((1, T, 3, 32, 32), float("inf")), "NaN or infinite"),
    ],
)
def test_bad_clips_are_refused(shared_model: SSM, clips: torch.Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        shared_model(fe_clips=clips)


def test_bad_rows_and_labels_are_refused(shared_model: SSM) -> None:
    with pytest.raises(ValueError, match=r"one row id per clip, 2; got \(3,\)"):
        shared_model(tiny.clips(2), fe_row_ids=torch.arange(3), noise_key=1)
    with pytest.raises(ValueError, match="neither fe_clips nor au_clips"):
        shared_model()
    with pytest.raises(ValueError, match="at least one AU and one expression"):
        ModelConfig(vocabulary={"aus": (), "expressions": ("fear",)})  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="unknown AU 3"):
        ModelConfig(vocabulary={"aus": (3,), "expressions": ("fear",)})  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"au_time\.heads, 8, must divide it"):
        ModelConfig(width=20)
    with pytest.raises(ValueError, match="Extra inputs are not permitted"):
        ModelConfig(widht=20)  # type: ignore[call-arg]
