"""A saved model's weights as the start of another one: fine-tuning, also of imported released checkpoints.

Taken over is every weight that learns and that means the same in both: columns of labels only where those labels are
the same in the same order, the text side only where the tower is the same. Prompts, prior and configuration are the new
model's own.
"""

from __future__ import annotations

from pathlib import Path

import torch

from ssm.model import ModelConfig, SSMNetwork
from ssm.saved import WEIGHTS, read_config, read_tensors


@torch.no_grad()
def take_over(model: SSMNetwork, folder: Path) -> list[str]:
    """Copies what fits from the saved model in `folder` into `model`; returns the names of those tensors.

    ValueError, before anything is copied, where the folder holds no whole model or not one backbone weight fits.
    """
    meaning = _Meaning(model.config, read_config(folder).model)
    found = read_tensors(folder / WEIGHTS)
    own = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    fitting = [name for name in own if name in found and found[name].shape == own[name].shape and meaning.is_kept(name)]
    if not any(name.startswith("backbone.") for name in fitting):
        raise ValueError(
            f"{folder / WEIGHTS}: no weight of its backbone fits backbone {model.config.backbone.name!r} of width "
            f"{model.config.width}; start from a model with the same backbone"
        )
    if broken := [name for name in fitting if not bool(torch.isfinite(found[name]).all())]:
        raise ValueError(f"{folder / WEIGHTS}: {broken[0]} holds NaN or infinite values")
    for name in fitting:
        own[name].copy_(found[name])
    return fitting


class _Meaning:
    """Which names mean the same in two models."""

    def __init__(self, one: ModelConfig, other: ModelConfig) -> None:
        aus = one.vocabulary.aus == other.vocabulary.aus
        expressions = one.vocabulary.expressions == other.vocabulary.expressions
        tower = one.text.tower == other.text.tower
        self._kept = {
            "au_head.": aus,
            "smoothing.": aus,
            "fe_head.": expressions,
            "mapping.delta": aus and expressions,
            "text.contexts": tower and aus and expressions,
            "text.": tower,
        }

    def is_kept(self, name: str) -> bool:
        return all(kept for prefix, kept in self._kept.items() if name.startswith(prefix))
