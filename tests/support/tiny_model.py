"""Configurations of models small enough to build and run in a test of `ssm`."""

from __future__ import annotations

import torch

from ssm import SSM
from ssm.labels.vocabulary import Vocabulary
from ssm.model.config import AUTimeConfig, BackboneConfig, ExpertsConfig, ExpressionTimeConfig, ModelConfig, TextConfig

SIZE, FRAMES = 32, 4
LABELS = Vocabulary(aus=(1, 4, 12, 15), expressions=("happiness", "sadness", "neutral"))
EXPERTS = ExpertsConfig(blocks=2, hidden=16, scale=0.7)
VIT = BackboneConfig(
    name="vit_tiny_patch16_224",
    image_size=SIZE,
    options={"embed_dim": 32, "depth": 3, "num_heads": 2},
    experts=EXPERTS,
)
CONVNEXT = BackboneConfig(
    name="convnext_atto", image_size=SIZE, options={"depths": [1, 1, 1, 1], "dims": [8, 16, 24, 32]}, experts=EXPERTS
)
CONVNEXT_LINEAR = BackboneConfig(
    name="convnextv2_atto",
    image_size=SIZE,
    options={"depths": [1, 1, 1, 1], "dims": [8, 16, 24, 32], "conv_mlp": False},
    experts=EXPERTS,
)


def small_config(**changes: object) -> ModelConfig:
    """Three transformer blocks of width 32 on 32-pixel frames, without a text tower; `changes` replace fields."""
    config = ModelConfig(
        vocabulary=LABELS,
        backbone=VIT,
        width=16,
        frames=FRAMES,
        text=TextConfig(tower=None, contexts=2),
        expression_time=ExpressionTimeConfig(heads=2, head_width=8, hidden=32),
        au_time=AUTimeConfig(heads=2),
    )
    return config.model_copy(update=changes)


def with_text(**changes: object) -> ModelConfig:
    """`small_config` with the embedded tower."""
    return small_config(text=TextConfig(contexts=2, style="label").model_copy(update=changes))


def small_model(config: ModelConfig, seed: int = 0) -> SSM:
    """The model of a configuration, the same for the same seed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return SSM(config)


def clips(count: int, frames: int = FRAMES, seed: int = 0) -> torch.Tensor:
    """Random normalised clips (count, frames, 3, SIZE, SIZE)."""
    return torch.randn(count, frames, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(seed))
