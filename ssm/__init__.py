"""SSM: joint recognition of facial action units and expressions, as plain PyTorch (arXiv 2604.10541).

Knows no Ray, no files of corpora and no server; see `ssm.model` for the model and `ssm.step` for its training step.
The names below load on first use, so that a module which only wants the label tables does not pay for torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ssm.config import ModelConfig
    from ssm.model import SSM, SSMOutput
    from ssm.vocabulary import Vocabulary

__all__ = ["SSM", "ModelConfig", "SSMOutput", "Vocabulary"]

_HOMES = {"SSM": "ssm.model", "SSMOutput": "ssm.model", "ModelConfig": "ssm.config", "Vocabulary": "ssm.vocabulary"}


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module 'ssm' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
