"""What is known of a saved model without loading it: where it is, what it takes, what its answers mean.

Imports no torch: the processes that decode and find faces, and those that speak HTTP, need no more than this.
"""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

from ssm.interface import DecisionRule, Preprocessing
from ssm.labels import Vocabulary
from ssm_platform.base import default_place
from ssm_platform.models.registry import Registry


class ModelDescription(BaseModel):
    """What a model takes and what its answers mean."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    version: str = Field(description="SHA-256 of weights and configuration: equal means equal answers")
    frames: int = Field(description="frames T of a clip")
    vocabulary: Vocabulary = Field(description="action units and expressions, in the order of all columns")
    preprocessing: Preprocessing = Field(description="how a face becomes the model's input")
    precision: str = Field(description="type its products are taken in: float32 or bfloat16")
    rule: DecisionRule = Field(description="when an AU counts as present")
    fitted: bool = Field(description="whether the rule was fitted; if not it is 0.5 without a vote")


def locate(model: str, registry: str | None) -> Path:
    """The folder of a saved model: `model` itself, or what the registry has under that alias or version."""
    folder = Path(model)
    if folder.is_dir():
        return folder.absolute()
    if "/" in model:
        raise ValueError(f"{model}: no such folder of a saved model")
    return _registry(registry).resolve(model)


def pinned(model: str, registry: str | None) -> str:
    """`model` as something that does not change under a running service: a folder, or the version an alias means."""
    if Path(model).is_dir() or "/" in model:
        return str(locate(model, registry))
    return _registry(registry).version(model)


def registry_uri(registry: str | None) -> str:
    """The registry named, else the one beside the runs, as every process of a cluster understands it: absolute."""
    uri = registry or f"{default_place()}/registry"
    return uri if "://" in uri else str(Path(uri).absolute())


def _registry(uri: str | None) -> Registry:
    return Registry(registry_uri(uri))
