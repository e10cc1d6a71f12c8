"""Fine-tuning: which weights of a saved model another one starts from, and what keeps its own."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_model import CONVNEXT, LABELS, clips, small_config, small_model, with_text

from ssm.labels.vocabulary import Vocabulary
from ssm.training.transfer import take_over


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model with a text side, of seed 1."""
    folder = tmp_path_factory.mktemp("saved") / "model"
    small_model(with_text(), seed=1).save_pretrained(folder)
    return folder


def test_the_same_configuration_takes_over_everything_that_learns(saved: Path) -> None:
    model, source = small_model(with_text(), seed=2), small_model(with_text(), seed=1)
    taken = take_over(model, saved)
    assert sorted(taken) == sorted(name for name, weight in model.named_parameters() if weight.requires_grad)
    want, got = source.fold()(fe_clips=clips(1)), model.fold()(fe_clips=clips(1))
    torch.testing.assert_close(got.fe_logits, want.fe_logits)


def test_other_labels_keep_their_own_heads_and_maps(saved: Path) -> None:
    swapped = Vocabulary(aus=LABELS.aus, expressions=tuple(reversed(LABELS.expressions)))
    model = small_model(with_text().model_copy(update={"vocabulary": swapped}), seed=2)
    before = {name: weight.clone() for name, weight in model.named_parameters()}
    taken = set(take_over(model, saved))
    own = {name for name, weight in before.items() if torch.equal(dict(model.named_parameters())[name], weight)}
    assert {"fe_head.linear.weight", "text.contexts"} <= own - taken
    assert not any(name.startswith("mapping.delta") for name in taken)
    assert {"au_head.linear.weight", "smoothing.weight", "text.projection.weight"} <= taken


def test_other_prompts_are_the_new_models_own_and_another_text_side_takes_no_text(saved: Path) -> None:
    model = small_model(with_text(scramble=3), seed=2)
    body = model.text.body.clone()
    assert "text.projection.weight" in take_over(model, saved)
    assert torch.equal(model.text.body, body)
    plain = small_model(small_config(), seed=2)
    assert not any(name.startswith(("text.", "mapping.")) for name in take_over(plain, saved))


def test_what_cannot_be_a_start_is_refused_and_nothing_is_taken(saved: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no weight of its backbone fits backbone 'convnext_atto'"):
        take_over(small_model(small_config(backbone=CONVNEXT)), saved)
    with pytest.raises(ValueError, match="cannot read a saved model here"):
        take_over(small_model(with_text()), tmp_path)
    broken = tmp_path / "broken"
    small_model(with_text(), seed=1).save_pretrained(broken)
    tensors = load_file(broken / "model.safetensors")
    tensors["fe_head.linear.weight"][0, 0] = torch.nan
    save_file(tensors, broken / "model.safetensors")
    model = small_model(with_text(), seed=2)
    before = model.fe_head.linear.bias.clone()
    with pytest.raises(ValueError, match=r"fe_head\.linear\.weight holds NaN"):
        take_over(model, broken)
    assert torch.equal(model.fe_head.linear.bias, before)
