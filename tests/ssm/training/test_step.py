"""The training step on the real model: resumed == straight, accumulated == whole, two workers == one, golden curve.

A numeric change that is meant: delete golden/loss_curve.json, run once to write it anew, look at what changed, commit.
"""

from __future__ import annotations

import copy
import json
import math
import pickle
import subprocess
import sys
from pathlib import Path

import pytest
import tiny_training as tiny
import torch
from torch import Tensor, nn

from ssm.model.config import BackboneConfig, TextConfig
from ssm.training.batch import FEBatch
from ssm.training.mixup import draw_mix
from ssm.training.step import TrainConfig, TrainStep
from ssm.training.watch import TrainingDiverged

FOUR = ("fe", "au", "fe_semantic", "au_semantic")
GOLDEN = Path(__file__).parent / "golden" / "loss_curve.json"


def _flat(state: object) -> list[Tensor]:
    if isinstance(state, Tensor):
        return [state]
    values = state.values() if isinstance(state, dict) else state if isinstance(state, list) else []
    return [tensor for value in values for tensor in _flat(value)]


def _equal(one: object, other: object) -> bool:
    pairs = zip(_flat(one), _flat(other), strict=True)
    return all(torch.equal(a.nan_to_num(-1), b.nan_to_num(-1)) for a, b in pairs)


def test_losses_fall() -> None:
    step = tiny.tiny_step()
    first, *_, last = (result.floats() for result in tiny.train(step, range(40), total=40))
    assert last["loss/fe"] < 0.7 * first["loss/fe"]
    assert last["loss/au"] < first["loss/au"]
    assert set(first) == {
        "total", "grad_norm", *(f"loss/{n}" for n in FOUR), "lr/visual_encoder", "lr/experts", "lr/mapping", "lr/rest"
    }  # fmt: skip


@pytest.mark.parametrize("model", ["plain", *tiny.MODELS])
def test_resumed_run_equals_the_straight_run_bit_for_bit(tmp_path: Path, model: str) -> None:
    changes = tiny.MODELS.get(model, {})
    straight = tiny.tiny_step(**changes)
    tiny.train(straight, range(6))
    half = tiny.tiny_step(**changes)
    tiny.train(half, range(3))
    torch.save(half.state_dict(), tmp_path / "state.pt")
    resumed = tiny.tiny_step(seed=99, **changes)
    resumed.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    tiny.train(resumed, range(3, 6))
    assert _equal(straight.state_dict(), resumed.state_dict())


def test_golden_loss_curve() -> None:
    step = tiny.tiny_step()
    curve = [{k: v for k, v in r.floats().items() if not k.startswith("lr/")} for r in tiny.train(step, range(10), 10)]
    if not GOLDEN.is_file():
        GOLDEN.parent.mkdir(exist_ok=True)
        GOLDEN.write_text(json.dumps(curve, indent=1) + "\n")
        pytest.fail(f"wrote {GOLDEN}, which was absent: look at what changed, commit it and run again")
    for number, (found, kept) in enumerate(zip(curve, json.loads(GOLDEN.read_text()), strict=True)):
        assert found == pytest.approx(kept, rel=1e-3), f"step {number}"


@pytest.mark.parametrize("slices", [2, 4])
def test_accumulation_changes_rounding_only(slices: int) -> None:
    whole, cut = tiny.tiny_step(), tiny.tiny_step(tiny.fast_with(accumulation=slices))
    for a, b in zip(tiny.train(whole, range(4)), tiny.train(cut, range(4)), strict=True):
        assert a.floats() == pytest.approx(b.floats(), rel=1e-4)


@pytest.mark.parametrize("world", tiny.WORKER_RUNS)
def test_any_number_of_workers_equals_one(tmp_path: Path, world: int) -> None:
    script, result, runs_of = tiny.__file__, tmp_path / "runs.pt", tiny.WORKER_RUNS[world]
    command = [sys.executable, script]
    ends = [str(world), str(tmp_path / "store"), str(result)]
    workers = [subprocess.Popen([*command, str(rank), *ends]) for rank in range(world)]
    alone = {name: tiny.tiny_step(tiny.fast_with(**changes), **tiny.model_of(name)) for name, changes, _ in runs_of}
    curves = {name: [r.floats() for r in tiny.train(alone[name], range(steps), run=name)] for name, _, steps in runs_of}
    assert [worker.wait(timeout=250) for worker in workers] == [0] * world
    runs = torch.load(result, weights_only=True)
    assert runs.pop("taken"), "mixup's partners are those of the gathered batch, bit for bit"
    for name, run in runs.items():
        expected = curves[name]
        for number, (found, one) in enumerate(zip(run["floats"], expected, strict=True)):
            assert found == pytest.approx(one, rel=1e-4, abs=1e-4), f"step {number}"
        for key, tensor in alone[name].state_dict()["model"].items():
            torch.testing.assert_close(run["model"][key], tensor, rtol=1e-2, atol=2e-3)


@pytest.mark.parametrize("absent", ["fe", "au"])
def test_an_absent_side_has_no_gradient_and_does_not_move(absent: str) -> None:
    step = tiny.tiny_step()
    before = copy.deepcopy(step.state_dict()["model"])
    for number in range(2):
        result = step(
            None if absent == "fe" else tiny.fe_batch(number),
            None if absent == "au" else tiny.au_batch(number),
            number,
            5,
        )
    assert set(result.losses) == {name for name in FOUR if not name.startswith(absent)}
    own = {
        "fe": ("fe_head.", "expression_time.", "mapping.delta_au_to_fe"),
        "au": ("au_head.", "au_time.", "smoothing."),
    }
    for name, tensor in step.state_dict()["model"].items():
        if name.startswith(own[absent]):
            assert torch.equal(tensor, before[name]), name


def test_an_unlabelled_au_has_a_gradient_of_exactly_zero() -> None:
    model = tiny.tiny_model()
    gradients: dict[str, Tensor] = {}
    parameters = dict(model.named_parameters())
    step = TrainStep(model, tiny.FAST, device="cpu")
    for name in ("au_head.linear.weight", "au_head.linear.bias", "smoothing.weight"):
        parameters[name].register_post_accumulate_grad_hook(
            lambda p, name=name: gradients.__setitem__(name, p.grad.clone())
        )
    step(tiny.fe_batch(0), tiny.au_batch(0), 0, 5)
    for name, gradient in gradients.items():
        assert (gradient[3] == 0).all(), name
        assert (gradient[0] != 0).any(), name


def test_a_batch_without_any_au_label_trains_the_other_side() -> None:
    step = tiny.tiny_step()
    au = tiny.au_batch(0)
    au.mask[:] = False
    result = step(tiny.fe_batch(0), au, 0, 5).floats()
    assert result["loss/au"] == 0
    assert result["loss/fe"] > 0
    later = step(tiny.fe_batch(1), tiny.au_batch(1), 1, 5).floats()
    assert math.isfinite(later["total"])
    assert torch.allclose(step.means.values[1], torch.tensor(later["loss/au"]))


@pytest.mark.parametrize("slices", [1, 3])
def test_a_clip_that_could_not_be_read_is_as_if_it_were_not_there(slices: int) -> None:
    whole, with_gap = (tiny.tiny_step(tiny.fast_with(accumulation=slices)) for _ in range(2))
    for number in range(3):
        fe, gap = tiny.fe_batch(number), tiny.fe_batch(number)
        tiny.unread(gap, 1)
        rest = [row for row in range(tiny.FE_BATCH) if row != 1]
        fe = FEBatch(*(None if value is None else value[rest] for value in vars(fe).values()))
        one = whole(fe, tiny.au_batch(number), number, 5).floats()
        other = with_gap(gap, tiny.au_batch(number), number, 5).floats()
        assert other == pytest.approx(one, rel=1e-4)
    for key, tensor in whole.state_dict()["model"].items():
        torch.testing.assert_close(with_gap.state_dict()["model"][key], tensor, rtol=1e-3, atol=2e-4)


@pytest.mark.parametrize("weighting", ["none", "mal"])
def test_a_batch_of_clips_that_could_not_be_read_trains_the_other_side(weighting: str) -> None:
    step = tiny.tiny_step(tiny.fast_with(sample_weighting=weighting))
    fe = tiny.fe_batch(0)
    for row in range(tiny.FE_BATCH):
        tiny.unread(fe, row)
    result = step(fe, tiny.au_batch(0), 0, 5).floats()
    assert result["loss/fe"] == 0
    assert math.isfinite(result["total"])
    assert math.isfinite(step(tiny.fe_batch(1), tiny.au_batch(1), 1, 5).floats()["total"])


def test_without_text_tower_only_the_head_losses_exist() -> None:
    config = tiny.tiny_config()
    step = tiny.tiny_step(text=config.text.model_copy(update={"tower": None}))
    assert {name for result in tiny.train(step, range(2)) for name in result.losses} == {"fe", "au"}


def test_mixup_uses_the_partner_of_the_global_draw() -> None:
    mix = draw_mix(tiny.AU_BATCH, 0.4, 1, 0)
    assert not torch.equal(mix.partners, torch.arange(tiny.AU_BATCH))
    mixed = tiny.tiny_step()(None, tiny.au_batch(0), 0, 5).floats()
    plain = tiny.tiny_step(tiny.fast_with(mixup_alpha=0.0))(None, tiny.au_batch(0), 0, 5).floats()
    assert mixed["loss/au"] != plain["loss/au"]


@pytest.mark.parametrize(
    "changes",
    [{"seed": 2}, {"mixup_alpha": 0.2}, {"precision": "bfloat16"}, {"sample_weighting": "mal"}],
)
def test_every_setting_changes_the_run(changes: dict[str, object]) -> None:
    base, other = (tiny.tiny_step(config) for config in (tiny.FAST, tiny.fast_with(**changes)))
    assert tiny.train(base, range(2))[-1].floats() != tiny.train(other, range(2))[-1].floats()


def test_nan_names_loss_and_step_before_any_weight_changes() -> None:
    step = tiny.tiny_step()
    tiny.train(step, range(2))
    with torch.no_grad():
        step.model.get_parameter("fe_head.linear.weight")[0, 0] = torch.nan
    before = copy.deepcopy(step.state_dict()["model"])
    with pytest.raises(TrainingDiverged, match=r"step 2: fe = nan, grad_norm = nan \(finite: au = ") as caught:
        tiny.train(step, range(2, 3))
    assert caught.value.step == 2
    assert _equal(before, step.state_dict()["model"])
    assert pickle.loads(pickle.dumps(caught.value)).values.keys() == caught.value.values.keys()


def test_batches_that_cannot_be_taken_are_refused() -> None:
    step = tiny.tiny_step(tiny.fast_with(accumulation=5))
    with pytest.raises(ValueError, match="got neither"):
        step(None, None, 0, 5)
    with pytest.raises(ValueError, match=r"AU batch of 4 clips .* accumulation = 5"):
        step(tiny.fe_batch(0), tiny.au_batch(0), 0, 5)


def test_a_state_that_does_not_fit_changes_nothing() -> None:
    step = tiny.tiny_step()
    before = copy.deepcopy(step.state_dict())
    state = copy.deepcopy(before)
    state["model"]["fe_head.linear.bias"] = torch.zeros(7)
    with pytest.raises(ValueError, match=r"fe_head.linear.bias is \(7,\), this model needs \(3,\)"):
        step.load_state_dict(state)
    del state["model"]["fe_head.linear.bias"]
    with pytest.raises(ValueError, match=r"model tensors do not fit this model: 1 absent \['fe_head.linear.bias'\]"):
        step.load_state_dict(state)
    with pytest.raises(ValueError, match="parts of the training state"):
        step.load_state_dict({"model": {}})
    assert _equal(before, step.state_dict())


def test_averaged_weights_serve_evaluation_only() -> None:
    step = tiny.tiny_step()
    tiny.train(step, range(3))
    own = copy.deepcopy(step.state_dict()["model"])
    with step.averaged() as model:
        assert not model.training
        assert not torch.equal(model.get_parameter("fe_head.linear.bias"), own["fe_head.linear.bias"])
    assert step.model.training
    assert _equal(own, step.state_dict()["model"])


def test_config_is_strict() -> None:
    with pytest.raises(ValueError, match="Extra inputs"):
        TrainConfig.model_validate({"learning_rate": 1})
    assert TrainConfig.model_validate_json(tiny.FAST.model_dump_json()) == tiny.FAST


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("resnet18", {}, r"backbone\.net\.bn1 is BatchNorm\w*: its statistics depend"),
        ("vit_tiny_patch16_224", {"drop_path_rate": 0.1}, r"drop_path1 is DropPath with 0\.\d+: it draws from hidden"),
        ("vit_tiny_patch16_224", {"attn_drop_rate": 0.2}, r"attn_drop is Dropout with 0\.2"),
    ],
)
def test_what_breaks_the_promises_is_refused_by_name(name: str, options: dict[str, float], message: str) -> None:
    small = {} if name == "resnet18" else {"embed_dim": 32, "depth": 2, "num_heads": 2}
    backbone = BackboneConfig(name=name, image_size=32, options={**small, **options}, experts=None)
    model = tiny.tiny_model(backbone=backbone, text=TextConfig(tower=None))
    with pytest.raises(ValueError, match=message):
        TrainStep(model, tiny.FAST, device="cpu")
    model.backbone.train = lambda mode=True: nn.Module.train(model.backbone, False)  # type: ignore[method-assign]
    TrainStep(model.requires_grad_(True), tiny.FAST, device="cpu")  # frozen in evaluation mode it may hold them
