"""Soft labels in the loss, still images in the model, the map as teacher, faces as mixup partners."""

from __future__ import annotations

from dataclasses import replace

import pytest
import tiny_training as tiny
import torch
import torch.nn.functional as F

from ssm.interface.preprocessing import Preprocessing, normalise
from ssm.training.batch import au_part, fe_part
from ssm.training.collective import SingleProcess
from ssm.training.losses import expression_losses
from ssm.training.teaching import MapTeacher

pytestmark = pytest.mark.usefixtures("one_thread")

B, E = 6, 5
GENERATOR = torch.Generator().manual_seed(3)
LOGITS = torch.randn(B, E, generator=GENERATOR)
LABELS = torch.tensor([0, 1, 2, 0, 1, 2])
MASK = torch.ones(B, E, dtype=torch.bool)
MASK[::2, 3:] = False


def test_one_hot_shares_are_hard_labels_bit_for_bit() -> None:
    hard, soft = (LOGITS.clone().requires_grad_() for _ in range(2))
    losses = expression_losses(hard, LABELS, MASK)
    again = expression_losses(soft, LABELS, MASK, F.one_hot(LABELS, E).float())
    assert torch.equal(losses, again)
    losses.sum().backward()
    again.sum().backward()
    assert hard.grad is not None
    assert soft.grad is not None
    torch.testing.assert_close(hard.grad, soft.grad, rtol=0, atol=1e-7)


def test_shares_give_torchs_cross_entropy_among_the_corpus_classes() -> None:
    shares = torch.rand(B, E, generator=GENERATOR).masked_fill(~MASK, 0)
    shares = shares / shares.sum(1, keepdim=True)
    found = expression_losses(LOGITS, LABELS, MASK, shares)
    for row in range(B):
        kept = MASK[row]
        want = F.cross_entropy(LOGITS[row, kept][None].double(), shares[row, kept][None].double())
        assert float(found[row]) == pytest.approx(float(want), abs=1e-6)


@pytest.mark.parametrize("votes", [False, True])
def test_smoothing_is_torchs_among_the_corpus_classes(votes: bool) -> None:
    shares = torch.rand(B, E, generator=GENERATOR).masked_fill(~MASK, 0)
    shares = shares / shares.sum(1, keepdim=True)
    logits = LOGITS.clone().requires_grad_()
    found = expression_losses(logits, LABELS, MASK, shares if votes else None, 0.1)
    for row in range(B):
        kept = MASK[row]
        target = shares[row, kept][None].double() if votes else LABELS[row : row + 1]
        want = F.cross_entropy(LOGITS[row, kept][None].double(), target, label_smoothing=0.1)
        assert float(found[row].detach()) == pytest.approx(float(want), abs=1e-6)
    found.sum().backward()
    assert logits.grad is not None
    assert torch.isfinite(logits.grad).all()
    assert not logits.grad[~MASK].any()


def test_a_clip_without_pixels_has_no_loss_whatever_its_shares() -> None:
    mask = MASK.clone()
    mask[1] = False
    logits = LOGITS.clone().requires_grad_()
    losses = expression_losses(logits, LABELS, mask, torch.full((B, E), 0.2).masked_fill(~mask, 0), 0.1)
    losses.sum().backward()
    assert losses[1] == 0
    assert logits.grad is not None
    assert torch.isfinite(logits.grad).all()
    assert not logits.grad[1].any()


@pytest.mark.parametrize("side", ["fe", "both"])
def test_stills_and_clips_in_one_batch_read_as_their_repeats_do(side: str) -> None:
    model = tiny.tiny_model().eval()
    batch = tiny.stills(tiny.fe_batch(0, 4), [1, 2, tiny.FRAMES, 1])
    clips = normalise(batch.clips, Preprocessing(image_size=tiny.SIZE))
    au = normalise(tiny.au_batch(0).clips, Preprocessing(image_size=tiny.SIZE)) if side == "both" else None
    with torch.no_grad():
        repeated, once = (
            model(fe_clips=clips, au_clips=au),
            model(fe_clips=clips, au_clips=au, fe_distinct=batch.distinct),
        )
    torch.testing.assert_close(once.fe_logits, repeated.fe_logits, rtol=1e-4, atol=1e-4)
    if au is not None:
        torch.testing.assert_close(once.au_logits, repeated.au_logits, rtol=1e-4, atol=1e-4)


def test_a_still_is_encoded_once() -> None:
    model, seen = tiny.tiny_model().eval(), []
    model.backbone.register_forward_pre_hook(lambda _, inputs: seen.append(len(inputs[0])))
    batch = tiny.stills(tiny.fe_batch(0, 4), [1, 1, 2, 1])
    model(fe_clips=normalise(batch.clips, Preprocessing(image_size=tiny.SIZE)), fe_distinct=batch.distinct)
    assert seen == [5]


def test_a_step_on_stills_trains_as_on_their_repeats_where_gates_draw_no_noise() -> None:
    quiet = {"experts": tiny.tiny_config().backbone.experts.model_copy(update={"noise": 0.0})}
    backbone = tiny.tiny_config().backbone.model_copy(update=quiet)
    batch, au = tiny.stills(tiny.fe_batch(0), [1] * tiny.FE_BATCH), tiny.au_batch(0)
    found = [tiny.tiny_step(backbone=backbone)(fe, au, 0, 20).floats() for fe in (batch, replace(batch, distinct=None))]
    assert found[0] == pytest.approx(found[1], rel=1e-3)


def test_the_map_teaches_linked_aus_of_known_clips() -> None:
    model = tiny.tiny_model()
    batch = tiny.fe_batch(0)
    tiny.unread(batch, 1)
    part = MapTeacher(model, 0.25)(fe_part(batch))
    assert part.au_targets is not None
    assert part.au_weights is not None
    assert model.mapping is not None
    torch.testing.assert_close(part.au_targets, model.mapping.au_to_fe().clamp(0, 1)[batch.labels].detach())
    linked = (model.mapping.prior == 1).any(0)
    assert torch.equal(part.au_weights[0], 0.25 * linked.float())
    assert not part.au_weights[1].any()
    assert float(part.taught) == pytest.approx(float(part.au_weights.sum()))


def test_the_teacher_needs_a_map() -> None:
    mapping = tiny.tiny_config().mapping.model_copy(update={"enabled": False})
    with pytest.raises(ValueError, match="expression_teacher needs the map"):
        tiny.tiny_step(tiny.fast_with(expression_teacher=0.1), mapping=mapping)


@pytest.mark.parametrize("option", [{"au_partners": "faces"}, {"expression_teacher": 0.2}])
def test_options_cut_into_slices_give_the_same_step(option: dict[str, object]) -> None:
    whole, cut = (tiny.tiny_step(tiny.fast_with(accumulation=count, **option)) for count in (1, 2))
    one, two = (tiny.train(step, range(3))[-1].floats() for step in (whole, cut))
    assert one == pytest.approx(two, rel=1e-3)


def test_faces_mix_into_au_clips_and_bring_no_label() -> None:
    fe, au = tiny.fe_batch(0), tiny.au_batch(0)
    part = au_part(au, 0.4, 1, 5, SingleProcess(), fe)
    assert 0.5 <= part.share <= 1
    assert part.partners is not None
    assert all(any(torch.equal(partner, clip) for clip in fe.clips) for partner in part.partners)
    torch.testing.assert_close(part.weights, part.share * au.mask.float())
    assert torch.equal(part.targets[au.mask], au.targets[au.mask])
