"""Every `model.*` field acts: two models that differ in it alone start or compute otherwise, from the same seed.

The leaves come from the schema: a new field without a row fails. Observed are the tensors a model starts with and what
it computes once its weights have left their start, where gates of zero hide what stands behind them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from tiny_model import FRAMES, LABELS, clips, small_model, with_text

from ssm.labels import prompts
from ssm.model.config import ModelConfig
from ssm_platform.base.overrides import describe_fields, override

Observe = Callable[[ModelConfig], Any]


pytestmark = pytest.mark.usefixtures("one_thread")  # equal settings must be bit-equal, or a difference proves nothing


def start(config: ModelConfig) -> str:
    """Names, shapes and values of every tensor of a fresh model."""
    parts = [(name, tensor.contiguous().numpy()) for name, tensor in small_model(config).state_dict().items()]
    return _digest(*(f"{name} {array.shape} ".encode() + array.tobytes() for name, array in parts))


def computed(config: ModelConfig) -> str:
    """Logits and maps in evaluation."""
    return _output(config, training=False)


def trained(config: ModelConfig) -> str:
    """As `computed`, in training mode."""
    return _output(config, training=True)


@torch.no_grad()
def _output(config: ModelConfig, training: bool) -> str:
    model = small_model(config).train(training)
    generator = torch.Generator().manual_seed(1)
    for parameter in model.parameters():
        parameter += 0.3 * torch.randn(parameter.shape, generator=generator)
    rows = torch.arange(2)
    output = model(clips(2), clips(2, seed=1), fe_row_ids=rows, au_row_ids=rows, noise_key=3)
    return _digest(*(b"-" if value is None else value.numpy().tobytes() for value in vars(output).values()))


def _digest(*parts: bytes) -> str:
    return hashlib.sha256(b"".join(parts)).hexdigest()


def columns(config: ModelConfig) -> Any:
    """Labels and the number of logits of each side."""
    model = small_model(config).eval()
    output = model(clips(1), clips(1))
    return model.vocabulary, output.fe_logits.shape, output.au_logits.shape


def takes_frames(config: ModelConfig) -> int:
    """The longest FE clip that the model takes."""
    model = small_model(config).eval()
    for count in range(1, 3 * FRAMES):
        try:
            model(clips(1, frames=count))
        except ValueError:
            return count - 1
    return 3 * FRAMES


def takes_size(config: ModelConfig) -> list[int]:
    """The frame sizes that the model takes."""
    model, taken = small_model(config).eval(), []
    for size in (32, 48):
        try:
            model(torch.zeros(1, FRAMES, 3, size, size))
            taken.append(size)
        except ValueError:
            pass
    return taken


def asked_of_timm(config: ModelConfig) -> Any:
    """What timm is asked for; its hub is out of reach of a test."""
    asked, create = [], timm.create_model

    def build(name: str, *, pretrained: bool, **options: Any) -> Any:
        asked.append((name, pretrained))
        return create(name, pretrained=False, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(timm, "create_model", build)
        small_model(config)
    return asked


def layout(config: ModelConfig) -> bool:
    """Whether the network's pixels have their colours innermost."""
    model, seen = small_model(config).eval(), []
    hook = lambda net, given: seen.append(given[0].is_contiguous(memory_format=torch.channels_last))  # noqa: E731
    model.backbone.net.register_forward_pre_hook(hook)
    model(clips(1))
    return seen[0]


BASE = with_text()
QUICK_GELU = {"backbone.name": "vit_base_patch16_clip_quickgelu_224"}
ONES = [[1.0] * len(LABELS.aus)] * len(LABELS.expressions)
EVIDENTIAL = {"au_reader.kind": "evidential"}
HIVA = {"au_reader.kind": "hiva", "au_reader.graph.heads": 2, "au_reader.graph.neighbours": 3}
LATENT = {"au_reader.kind": "cvae_evidential"}
EXPLICIT = {"mapping.prior": "explicit", "mapping.matrix": ONES}
FIELDS: dict[str, tuple[dict[str, Any], Any, Observe]] = {
    # what both models have, the other value, what it must change
    "vocabulary.aus": ({}, [1, 4, 12], columns),
    "vocabulary.expressions": ({}, ["happiness", "neutral"], columns),
    "vocabulary.affect": ({}, ["valence", "arousal"], start),
    "affect.head": ({"vocabulary.affect": ["valence", "arousal"]}, "labels", start),
    "backbone.name": ({}, "vit_small_patch16_224", asked_of_timm),
    "backbone.pretrained": ({}, True, asked_of_timm),
    "backbone.image_size": ({}, 48, takes_size),
    "backbone.options": ({}, {"embed_dim": 32, "depth": 2, "num_heads": 2}, start),
    "backbone.experts": ({}, None, start),
    "backbone.channels_last": ({}, True, layout),
    "backbone.experts.blocks": ({}, 1, start),
    "backbone.experts.count": ({}, 3, start),
    "backbone.experts.top": ({}, 1, computed),
    "backbone.experts.hidden": ({}, 8, start),
    "backbone.experts.scale": ({}, 0.2, start),
    "backbone.experts.noise": ({}, 5.0, trained),
    "backbone.experts.shared_activation": (QUICK_GELU, "gelu", computed),
    "backbone.experts.gate_gain": ({}, 1.0, start),
    "backbone.project": (
        {"width": 32, "backbone.options": {"embed_dim": 32, "depth": 3, "num_heads": 2}},
        False,
        start,
    ),
    "backbone.unit_features": ({}, True, computed),
    "backbone.mirrored": ({}, True, computed),
    "reading": ({"text.tower": None, "mapping.enabled": False}, "frames", start),
    "frame_hidden": ({"text.tower": None, "mapping.enabled": False, "reading": "frames"}, 16, start),
    "width": ({}, 24, start),
    "frames": ({}, FRAMES + 1, takes_frames),
    "text.tower": ({}, None, start),
    "text.style": ({}, "anatomy", start),
    "text.style_file": ({}, str(Path(prompts.__file__).parent / "anatomy.json"), start),
    "text.scramble": ({}, 5, start),
    "text.contexts": ({}, 3, start),
    "text.shared_contexts": ({}, True, start),
    "text.position": ({}, "front", computed),
    "text.context_std": ({}, 0.5, start),
    "mapping.enabled": ({}, False, start),
    "mapping.prior": ({}, "uniform", computed),
    "mapping.matrix": (EXPLICIT, [[0.5, *row[1:]] for row in ONES], computed),
    "mapping.on": ({}, 0.7, computed),
    "mapping.off": ({}, 0.3, computed),
    "mapping.seed": ({"mapping.prior": "scrambled"}, 3, computed),
    "mapping.gate": ({}, 0.6, start),
    "mapping.learn": ({}, "au_to_fe", computed),
    "expression_time.heads": ({}, 1, start),
    "expression_time.head_width": ({}, 4, start),
    "expression_time.hidden": ({}, 16, start),
    "au_time.heads": ({}, 4, computed),
    "au_time.radius": ({}, 2, start),
    "au_time.strength": ({}, 0.9, computed),
    "au_time.smoothing": ({}, 3, start),
    "au_reader.kind": ({}, "evidential", start),
    "au_reader.focus.positive": (EVIDENTIAL, 2.0, computed),
    "au_reader.focus.negative": (EVIDENTIAL, 3.0, computed),
    "au_reader.focus.shift": (EVIDENTIAL, 0.1, computed),
    "au_reader.graph.neighbours": (HIVA, 1, computed),
    "au_reader.graph.metric": (HIVA | {"au_reader.graph.neighbours": 2}, "cosine", computed),
    "au_reader.graph.heads": (HIVA, 4, computed),
    "au_reader.latent.hidden": (LATENT, 8, start),
    "au_reader.latent.width": (LATENT, 8, start),
    "au_reader.latent.windows": (LATENT, [1, 3, 5], computed),
    "au_reader.latent.samples": (LATENT, 4, computed),
    "semantic_weight": ({}, 0.5, computed),
    "temperature": ({}, 0.1, computed),
    "released_behaviour": ({}, True, computed),
}


def test_the_table_has_a_row_for_every_field() -> None:
    assert {field.path for field in describe_fields(ModelConfig)} == set(FIELDS)


@pytest.mark.parametrize("observe", [start, computed, trained])
def test_equal_settings_give_equal_models(observe: Observe) -> None:
    assert observe(BASE) == observe(BASE)


@pytest.mark.parametrize("field", FIELDS)
def test_a_field_changes_the_model(field: str) -> None:
    common, value, observe = FIELDS[field]
    base = override(BASE, common)
    assert observe(base) != observe(override(base, {field: value}))
