"""The authors' released checkpoints as models of ours: names, shapes and text side translated (method, section 8).

An adapter: reads tensors, guesses the configuration from their shapes, renames them, computes the folded prototypes
once with the checkpoint's own text tower. `released_behaviour=True` when loading reproduces their forward.
Letters: E expressions, A action units, K contexts, W text width, D width.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from ssm.interface import Preprocessing
from ssm.labels import ACTION_UNITS, BASIC_EXPRESSIONS, BP4D_AUS, DISFA_AUS, EXPRESSIONS, Vocabulary, links
from ssm.model import (  # fmt: skip
    AUTimeConfig,
    BackboneConfig,
    ClipTower,
    ExpertsConfig,
    ExpressionTimeConfig,
    MappingConfig,
    ModelConfig,
    TextConfig,
    TextShape,
    TokenVectors,
)
from ssm.saved.facts import ModelFacts
from ssm.saved.folder import check_fit, read_tensors
from ssm.saved.pretrained import SSM
from ssm.saved.unpickle import read_torch_pickle

AUCorpus = Literal["bp4d", "disfa"]
State = Mapping[str, Tensor]

_HEAD_WIDTH = 64  # OpenAI CLIP: one attention head per 64 channels, in both towers
_AUTHORS_TOWER = "openai/clip-vit-base-patch16"


@dataclass(frozen=True)
class _Family:
    """What differs between the two released model classes."""

    aus: tuple[int, ...]
    expression_time: str
    au_time: str


_FAMILIES: Mapping[AUCorpus, _Family] = {
    "bp4d": _Family(BP4D_AUS, "dfer_temporal_net", "au_temporal_net"),
    "disfa": _Family(DISFA_AUS, "temporal_net", "temporal_net_au"),
}


def import_released(
    checkpoint: Path, au_corpus: AUCorpus | None = None, descriptions: Mapping[str, Sequence[str]] | None = None
) -> SSM:
    """The model of a released `.pt`/`.pth`/`.safetensors` file, folded, in evaluation mode.

    `au_corpus` is guessed from the names where it is None. `descriptions` ("fe_descriptions", "au_descriptions") are
    for the record only: the file holds the texts as vectors. ValueError names what was expected and what came.
    """
    state = read_state(checkpoint)
    corpus = au_corpus or guess_corpus(state, checkpoint)
    family = _FAMILIES[corpus]
    if f"{family.expression_time}.cls_token" not in state:
        raise ValueError(f"{checkpoint}: not a {corpus} model: it lacks {family.expression_time}.cls_token")
    try:
        config = _config(state, family, checkpoint)
        texts = _texts(config.vocabulary, corpus, descriptions)
        vectors = _token_vectors(state, texts)
        tensors = _translate(state, config, family, vectors)
        tower = _tower(state, checkpoint)
    except KeyError as error:
        raise ValueError(f"{checkpoint}: not a released SSM checkpoint: it lacks {error.args[0]!r}") from error
    except (IndexError, RuntimeError) as error:
        raise ValueError(f"{checkpoint}: not a released SSM checkpoint: shapes do not fit: {error}") from error
    model = SSM(config, text_shape=_shape(texts, vectors, len(config.vocabulary.expressions), tower))
    check_fit(model.state_dict(), tensors, checkpoint)
    model.load_state_dict(tensors)
    assert model.text is not None
    model.text.use_tower(tower)
    model.facts = ModelFacts(
        preprocessing=Preprocessing(image_size=config.backbone.image_size),
        data={
            "origin": "weights released by the authors of arXiv 2604.10541, imported",
            "file": checkpoint.name,
            "au_corpus": corpus,
            "descriptions": "as given" if descriptions else "assumed: the file holds them as vectors only",
            "preprocessing": "assumed: CLIP's mean and deviation, the largest centred square",
        },
    )
    return model.fold()


def read_state(checkpoint: Path) -> dict[str, Tensor]:
    """The checkpoint's tensors under the released names: no `module.` or `state.` in front, inputs and outputs out."""
    found = read_tensors(checkpoint) if checkpoint.suffix == ".safetensors" else read_torch_pickle(checkpoint)
    state = {re.sub(r"^(state\.)?(module\.)?", "", name): tensor for name, tensor in found.items()}
    if "encoder.conv1.weight" not in state:
        raise ValueError(
            f"{checkpoint}: not a released SSM checkpoint: expected names such as 'encoder.conv1.weight' and 'au_head"
            f".weight'; it holds {', '.join(sorted(found)[:4])}"
        )
    return {name: tensor.float() if tensor.is_floating_point() else tensor for name, tensor in state.items()}


def guess_corpus(state: State, checkpoint: Path) -> AUCorpus:
    """Which of the two released model classes the names belong to."""
    for corpus, family in _FAMILIES.items():
        if f"{family.expression_time}.cls_token" in state:
            return corpus
    tried = ", ".join(family.expression_time for family in _FAMILIES.values())
    raise ValueError(f"{checkpoint}: cannot tell the AU corpus: none of these parts is in the file: {tried}")


def _config(state: State, family: _Family, checkpoint: Path) -> ModelConfig:
    vocabulary = _vocabulary(state, family, checkpoint)
    time = f"{family.expression_time}.temporal_transformer.layers.0"
    width, frames = state[f"{family.expression_time}.cls_token"].shape[-1], _positions(state, family) - 1
    neighbours = state[f"{family.au_time}.layers.0.relative_position_bias"].shape
    return ModelConfig(
        vocabulary=vocabulary,
        backbone=_backbone(state),
        width=width,
        frames=frames,
        text=TextConfig(tower=_AUTHORS_TOWER, style="facs", contexts=state["prompt_learner1.ctx"].shape[-2],
                        shared_contexts=state["prompt_learner1.ctx"].ndim == 2),
        mapping=MappingConfig(prior="explicit", matrix=tuple(map(tuple, state["init_map"].tolist()))),
        expression_time=ExpressionTimeConfig(
            heads=state[f"{time}.0.fn.fn.to_qkv.weight"].shape[0] // (3 * _HEAD_WIDTH),
            hidden=state[f"{time}.1.fn.fn.net.0.weight"].shape[0],
        ),
        au_time=AUTimeConfig(
            heads=neighbours[0], radius=neighbours[1] // 2, smoothing=state["au_smooth.weight"].shape[-1]
        ),
    )  # fmt: skip


def _vocabulary(state: State, family: _Family, checkpoint: Path) -> Vocabulary:
    aus, classes = len(state["au_head.weight"]), len(state["dfer_head.weight"])
    if aus != len(family.aus):
        raise ValueError(f"{checkpoint}: au_head has {aus} rows; this corpus has {len(family.aus)} AUs {family.aus}")
    known = {len(BASIC_EXPRESSIONS): BASIC_EXPRESSIONS, len(EXPRESSIONS): EXPRESSIONS}
    if classes not in known:
        raise ValueError(f"{checkpoint}: dfer_head has {classes} rows; released models have {sorted(known)}")
    return Vocabulary(aus=family.aus, expressions=known[classes])


def _backbone(state: State) -> BackboneConfig:
    width, _, patch, _ = state["encoder.conv1.weight"].shape
    depth = _count(state, r"encoder\.transformer\.resblocks\.(\d+)\.")
    gates = sorted({int(hit) for hit in _hits(state, r"encoder\.transformer\.resblocks\.(\d+)\.mlp\.gate\.weight")})
    if gates != list(range(depth - len(gates), depth)) or not gates:
        raise ValueError(f"expected experts in the last blocks of {depth}; the file has them in {gates}")
    first = f"encoder.transformer.resblocks.{gates[0]}.mlp.private_experts"
    side = round((len(state["encoder.positional_embedding"]) - 1) ** 0.5)
    return BackboneConfig(
        name="vit_base_patch16_clip_224.openai",
        image_size=side * patch,
        options={
            "embed_dim": width, "depth": depth, "num_heads": width // _HEAD_WIDTH, "patch_size": patch,
            "act_layer": "quick_gelu",
        },
        experts=ExpertsConfig(
            blocks=len(gates),
            count=_count(state, re.escape(first) + r"\.(\d+)\."),
            hidden=len(state[f"{first}.0.fc1.weight"]),
            # Their shared expert copies CLIP's weights but not its QuickGELU; found by matching the reference outputs.
            shared_activation="gelu",
        ),
    )  # fmt: skip


def _translate(state: State, config: ModelConfig, family: _Family, vectors: TokenVectors) -> dict[str, Tensor]:
    """All tensors of our model, under our names."""
    learner = [state[f"prompt_learner{side}.ctx"] for side in (1, 2)]
    contexts = torch.stack(learner) if config.text.shared_contexts else torch.cat(learner)
    tensors = {
        "text.contexts": contexts, "text.body": vectors.body,
        "text.start": vectors.start, "text.end": vectors.end,
        "mapping.prior": state["init_map"], "mapping.delta_au_to_fe": state["delta_map1"],
        "mapping.delta_fe_to_au": state["delta_map2"], "mapping.gate_au_to_fe": state["alpha"].reshape(()),
        "mapping.gate_fe_to_au": state["beta"].reshape(()), "smoothing.weight": state["au_smooth.weight"],
        "fe_head.linear.weight": state["dfer_head.weight"], "fe_head.linear.bias": state["dfer_head.bias"],
        "au_head.linear.weight": state["au_head.weight"], "au_head.linear.bias": state["au_head.bias"],
    }  # fmt: skip
    tensors |= _visual(state)
    tensors |= _renamed(state, f"{family.expression_time}.", "expression_time.", _EXPRESSION_TIME)
    tensors |= _renamed(state, f"{family.au_time}.layers.0.", "au_time.", _AU_TIME)
    return {name: tensor.contiguous() for name, tensor in tensors.items()}


_EXPRESSION_TIME = {
    "cls_token": "cls", "pos_embedding": "positions", "gate": "residual", "ln": "norm",
    "temporal_transformer.layers.0.0.fn.norm": "norm1", "temporal_transformer.layers.0.0.fn.fn.to_qkv": "qkv",
    "temporal_transformer.layers.0.0.fn.fn.to_out.0": "out", "temporal_transformer.layers.0.1.fn.norm": "norm2",
    "temporal_transformer.layers.0.1.fn.fn.net.0": "fc1", "temporal_transformer.layers.0.1.fn.fn.net.3": "fc2",
}  # fmt: skip
_AU_TIME = {"norm": "norm", "to_q": "q", "to_k": "k", "relative_position_bias": "bias", "channel_gate": "channel_gate"}
_BLOCK = {
    "attn.in_proj_": "attn.qkv.", "attn.out_proj.": "attn.proj.", "ln_1.": "norm1.", "ln_2.": "norm2.",
    "mlp.c_fc.": "mlp.fc1.", "mlp.c_proj.": "mlp.fc2.", "mlp.shared_fc1.": "mlp.shared.fc1.",
    "mlp.shared_fc2.": "mlp.shared.fc2.", "mlp.gate.": "mlp.gate.", "mlp.alpha": "mlp.alpha",
}  # fmt: skip


def _visual(state: State) -> dict[str, Tensor]:
    """OpenAI-CLIP's visual names, and the experts', to timm's and ours."""
    net = "backbone.net."
    tensors = {
        net + "patch_embed.proj.weight": state["encoder.conv1.weight"],
        net + "cls_token": state["encoder.class_embedding"].view(1, 1, -1),
        net + "pos_embed": state["encoder.positional_embedding"][None],
        net + "head.weight": state["encoder.proj"].T,
        net + "head.bias": torch.zeros(state["encoder.proj"].shape[1]),
    }
    tensors |= _renamed(state, "encoder.", net, {"ln_pre": "norm_pre", "ln_post": "norm"})
    for number in range(_count(state, r"encoder\.transformer\.resblocks\.(\d+)\.")):
        source, target = f"encoder.transformer.resblocks.{number}.", f"{net}blocks.{number}."
        tensors |= _renamed(state, source, target, _BLOCK)
        if f"{source}mlp.private_experts.0.fc1.weight" in state:
            tensors |= _experts(state, source + "mlp.private_experts.", target + "mlp.")
    return tensors


def _experts(state: State, source: str, target: str) -> dict[str, Tensor]:
    """One tensor for all experts of a block; ours multiply from the right."""
    numbers = range(_count(state, re.escape(source) + r"(\d+)\."))
    weights = {layer: torch.stack([state[f"{source}{n}.fc{layer}.weight"].T for n in numbers]) for layer in (1, 2)}
    biases = {layer: torch.stack([state[f"{source}{n}.fc{layer}.bias"] for n in numbers]) for layer in (1, 2)}
    return {f"{target}w{layer}": weights[layer] for layer in (1, 2)} | {
        f"{target}b{layer}": biases[layer] for layer in (1, 2)
    }


def _renamed(state: State, source: str, target: str, names: Mapping[str, str]) -> dict[str, Tensor]:
    """The tensors below `source` whose name goes on with a key of `names`, moved below `target`."""
    return {
        target + new + name[len(source + old) :]: tensor
        for name, tensor in state.items()
        for old, new in names.items()
        if name.startswith(source + old) and (old[-1] in "._" or name[len(source + old) :][:1] in (".", ""))
    }


def _token_vectors(state: State, texts: tuple[str, ...]) -> TokenVectors:
    """Description vectors of all labels, out of the embedded prompts: `suffix` is description, end, padding."""
    rows = [row for side in (1, 2) for row in state[f"prompt_learner{side}.token_suffix"]]
    ends = [_end_of_text(row) for row in rows]
    end = rows[0][ends[0]]
    for text, row, place in zip(texts, rows, ends, strict=True):
        if not torch.equal(row[place], end):
            raise ValueError(f"cannot find the end token in the embedded prompt of {text!r}: it differs between labels")
    body = [row[:place] for row, place in zip(rows, ends, strict=True)]
    return TokenVectors(
        texts=texts,
        body=torch.nn.utils.rnn.pad_sequence(body, batch_first=True),
        lengths=torch.tensor(ends),
        start=state["prompt_learner1.token_prefix"][0, 0],
        end=end,
    )


def _end_of_text(suffix: Tensor) -> int:
    """Position of the end token: the last row before the padding, whose rows all hold the same vector."""
    different = (suffix != suffix[-1]).any(dim=1).nonzero()
    return int(different[-1]) if len(different) else len(suffix) - 1


def _texts(vocabulary: Vocabulary, corpus: AUCorpus, given: Mapping[str, Sequence[str]] | None) -> tuple[str, ...]:
    """Descriptions, expressions first: the given ones, or those of the authors' style for this corpus."""
    if given is not None:
        texts = (*given["fe_descriptions"], *given["au_descriptions"])
        if len(texts) != len(vocabulary.expressions) + len(vocabulary.aus):
            raise ValueError(f"{len(texts)} descriptions for {vocabulary}")
        return texts
    table = links(f"authors_{corpus}", vocabulary)
    named = (
        ", ".join([name, *(ACTION_UNITS[au].name for au in aus)] if aus else [name, "no active AUs"])
        for name, aus in table.items()
    )
    return (*named, *(ACTION_UNITS[au].name for au in vocabulary.aus))


def _shape(texts: tuple[str, ...], vectors: TokenVectors, expressions: int, tower: ClipTower) -> TextShape:
    return TextShape(
        expression_texts=texts[:expressions], au_texts=texts[expressions:], token_width=vectors.body.shape[2],
        lengths=tuple(vectors.lengths.tolist()), out_width=tower.out_width, projected=True,
    )  # fmt: skip


def _tower(state: State, checkpoint: Path) -> ClipTower:
    """The checkpoint's text tower as transformers' CLIP; its token table is not needed and not there."""
    from transformers import CLIPTextConfig, CLIPTextModelWithProjection

    width, out_width = state["text_encoder.text_projection"].shape
    depth = _count(state, r"text_encoder\.transformer\.resblocks\.(\d+)\.")
    config = CLIPTextConfig(
        vocab_size=2, bos_token_id=0, eos_token_id=1, pad_token_id=0, hidden_size=width, projection_dim=out_width,
        intermediate_size=len(state["text_encoder.transformer.resblocks.0.mlp.c_fc.bias"]), num_hidden_layers=depth,
        num_attention_heads=width // _HEAD_WIDTH, hidden_act="quick_gelu",
        max_position_embeddings=len(state["text_encoder.positional_embedding"]),
    )  # fmt: skip
    net: Any = CLIPTextModelWithProjection(config)
    tensors = {"text_model.embeddings.position_embedding.weight": state["text_encoder.positional_embedding"],
               "text_model.embeddings.token_embedding.weight": torch.zeros(2, width),
               "text_projection.weight": state["text_encoder.text_projection"].T}  # fmt: skip
    tensors |= _renamed(state, "text_encoder.", "text_model.", {"ln_final": "final_layer_norm"})
    for number in range(depth):
        source, target = f"text_encoder.transformer.resblocks.{number}.", f"text_model.encoder.layers.{number}."
        tensors |= _renamed(state, source, target, _TEXT_BLOCK)
        tensors |= _split_attention(state, source, target)
    check_fit(net.state_dict(), tensors, checkpoint)
    net.load_state_dict(tensors)
    return ClipTower(net, tokenizer=None)


_TEXT_BLOCK = {
    "ln_1.": "layer_norm1.", "ln_2.": "layer_norm2.", "mlp.c_fc.": "mlp.fc1.", "mlp.c_proj.": "mlp.fc2.",
    "attn.out_proj.": "self_attn.out_proj.",
}  # fmt: skip


def _split_attention(state: State, source: str, target: str) -> dict[str, Tensor]:
    """OpenAI keeps q, k and v in one matrix, transformers in three."""
    return {
        f"{target}self_attn.{letter}_proj.{kind}": part
        for kind in ("weight", "bias")
        for letter, part in zip("qkv", state[f"{source}attn.in_proj_{kind}"].chunk(3), strict=True)
    }


def _positions(state: State, family: _Family) -> int:
    return state[f"{family.expression_time}.pos_embedding"].shape[1]


def _hits(state: State, pattern: str) -> Iterable[str]:
    match: Callable[[str], re.Match[str] | None] = re.compile(pattern).match
    return (hit.group(1) for hit in map(match, state) if hit)


def _count(state: State, pattern: str) -> int:
    """How many numbered parts of this kind there are."""
    return len(set(_hits(state, pattern)))
