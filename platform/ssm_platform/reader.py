"""A saved model made ready to read clips: what serving, the command line and notebooks load.

`ClipReader` is `ssm.predictor.Predictor` with a version; `ModelDescription` is everything its callers need to make
clips for it and to name what it says, without holding the model. `locate` finds a model by folder, alias or version.
A folder whose preprocessing does not fit its weights, its fingerprints or this code is refused.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from ssm.predictor import Answers, Predictor
from ssm.preprocessing import Preprocessing
from ssm.rules import DecisionRule
from ssm.saving import CONFIG, WEIGHTS
from ssm.vocabulary import Vocabulary
from ssm_platform.registry import Registry

DEFAULT_REGISTRY = "runs/registry"
"""Where training publishes models unless told otherwise."""

_CHUNK = 2**22


class ModelDescription(BaseModel):
    """What a model takes and what its answers mean."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    version: str = Field(description="SHA-256 of weights and configuration: equal means equal answers")
    frames: int = Field(description="frames T of a clip")
    vocabulary: Vocabulary = Field(description="action units and expressions, in the order of all columns")
    preprocessing: Preprocessing = Field(description="how a face becomes the model's input")
    rule: DecisionRule = Field(description="when an AU counts as present")
    fitted: bool = Field(description="whether the rule was fitted; if not it is 0.5 without a vote")


class ClipReader:
    """A model on its device. Not for use by several threads at once."""

    def __init__(self, folder: str | Path, device: str = "auto", threads: int | None = None) -> None:
        """Load `folder`; ValueError names what is absent, damaged or does not fit together."""
        if threads is not None:
            torch.set_num_threads(threads)
        self._predictor = Predictor.from_pretrained(folder, device=_device(device), local_files_only=True)
        self.description = ModelDescription(
            version=_version(Path(folder)),
            frames=self._predictor.frames,
            vocabulary=self._predictor.model.vocabulary,
            preprocessing=self._predictor.preprocessing,
            rule=self._predictor.rule,
            fitted=self._predictor.model.facts.rule is not None,
        )

    def read(self, clips: NDArray[np.uint8]) -> Answers:
        """Clips uint8 (B, T, S, S, 3), as `ssm.preprocessing.center` cuts them. ValueError for others."""
        self.check(clips)
        return self._predictor.read(clips)

    def check(self, clips: NDArray[Any]) -> None:
        """ValueError unless the array is a batch of clips for this model."""
        size, frames = self.description.preprocessing.image_size, self.description.frames
        if clips.dtype != np.uint8 or clips.ndim != 5 or clips.shape[1:] != (frames, size, size, 3) or not len(clips):
            raise ValueError(
                f"clips are {clips.dtype} {list(clips.shape)}: must be uint8 [B, {frames}, {size}, {size}, 3]"
            )

    def blank(self) -> NDArray[np.uint8]:
        """The smallest input: one grey clip."""
        size = self.description.preprocessing.image_size
        return np.full((1, self.description.frames, size, size, 3), 128, np.uint8)


def locate(model: str, registry: str | None) -> Path:
    """The folder of a saved model: `model` itself, or what the registry has under that alias or version."""
    folder = Path(model)
    if folder.is_dir():
        return folder.absolute()
    if "/" in model:
        raise ValueError(f"{model}: no such folder of a saved model")
    return Registry(registry or DEFAULT_REGISTRY).resolve(model)


def pinned(model: str, registry: str | None) -> str:
    """`model` as something that does not change under a running service: a folder, or the version an alias means."""
    if Path(model).is_dir() or "/" in model:
        return str(locate(model, registry))
    return Registry(registry or DEFAULT_REGISTRY).version(model)


def _version(folder: Path) -> str:
    digest = hashlib.sha256()
    for name in (CONFIG, WEIGHTS):
        with (folder / name).open("rb") as file:
            while chunk := file.read(_CHUNK):
                digest.update(chunk)
    return digest.hexdigest()


def _device(name: str) -> str:
    if name != "auto":
        return name
    return "cuda" if torch.cuda.is_available() else "cpu"
