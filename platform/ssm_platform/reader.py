"""A saved model made ready to read clips: what serving, the command line and notebooks load.

`ClipReader` holds the model on its device and answers uint8 clips; `ModelDescription` is everything its callers need to
make clips for it and to name what it says, without holding the model. A folder whose preprocessing does not fit its
weights, its fingerprints or this code is refused. Letters: B clips, T frames, S side, A action units, E expressions.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from ssm.preprocessing import Preprocessing, normalise
from ssm.saving import CONFIG, WEIGHTS, ModelFacts, read_config
from ssm.vocabulary import Vocabulary
from ssm_platform.assembly import ClipAnswer, Flags, Floats

_CHUNK = 2**22


class ModelDescription(BaseModel):
    """What a model takes and what its answers mean."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    version: str = Field(description="SHA-256 of weights and configuration: equal means equal answers")
    frames: int = Field(description="frames T of a clip")
    vocabulary: Vocabulary = Field(description="action units and expressions, in the order of all columns")
    preprocessing: Preprocessing = Field(description="how a face becomes the model's input")
    rule: dict[str, Any] | None = Field(description="the fitted decision rule; None: 0.5 and no vote")

    def vote(self, probabilities: Floats) -> Flags:
        """Which AUs are present (n, A) in a stretch of frames without a break, by the fitted rule."""
        return probabilities >= 0.5

    @property
    def reach(self) -> int:
        """Frames on either side that the rule looks at."""
        return 0


@dataclass(frozen=True)
class Answers:
    """What the model says of B clips."""

    au_probability: Floats  # B T A
    expression: Floats  # B E
    why: Floats  # B E A

    def __getitem__(self, clip: int) -> ClipAnswer:
        return ClipAnswer(self.au_probability[clip], self.expression[clip], self.why[clip])

    def part(self, start: int, stop: int) -> Answers:
        """The answers to clips start..stop-1."""
        return Answers(self.au_probability[start:stop], self.expression[start:stop], self.why[start:stop])


class ClipReader:
    """A model on its device. Not for use by several threads at once."""

    def __init__(self, folder: str | Path, device: str = "auto", threads: int | None = None) -> None:
        """Load `folder`; ValueError names what is absent, damaged or does not fit together."""
        from ssm.model import SSM

        if threads is not None:
            torch.set_num_threads(threads)
        self.description = describe(Path(folder))
        self._device = torch.device(_device(device))
        self._model = SSM.from_pretrained(Path(folder)).fold().to(self._device)

    @torch.inference_mode()
    def read(self, clips: NDArray[np.uint8]) -> Answers:
        """Clips uint8 (B, T, S, S, 3), as `center` cut them. ValueError for another shape or type."""
        self.check(clips)
        pixels = torch.from_numpy(np.ascontiguousarray(clips)).to(self._device, non_blocking=True)
        inputs = normalise(pixels, self.description.preprocessing)  # B T 3 S S
        model = self._model
        features = model.encode_frames(inputs.flatten(0, 1)).view(*inputs.shape[:2], -1)  # B T D
        prototypes = model.prototypes()
        aus = model.read_aus(features, prototypes)[0].sigmoid()
        expression = model.read_expression(features, prototypes)[0].softmax(-1)
        return Answers(_array(aus), _array(expression), _array(self._why(aus)))

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

    def _why(self, aus_BTA: torch.Tensor) -> torch.Tensor:
        to_expression = self._model.maps()[0]  # E A
        mean = aus_BTA.mean(1)[:, None]
        if to_expression is None:
            return torch.zeros_like(mean).expand(-1, len(self.description.vocabulary.expressions), -1)
        return to_expression * mean


def describe(folder: Path) -> ModelDescription:
    """The description of a saved model, without its weights in memory."""
    saved = read_config(folder)
    return ModelDescription(
        version=_version(folder),
        frames=saved.model.frames,
        vocabulary=saved.model.vocabulary,
        preprocessing=_preprocessing(folder, saved.facts, saved.model.backbone.image_size),
        rule=saved.facts.rule,
    )


def _preprocessing(folder: Path, facts: ModelFacts, image_size: int) -> Preprocessing:
    if facts.preprocessing is None:
        raise ValueError(f"{folder / CONFIG}: the model does not say how its input was prepared")
    preprocessing = Preprocessing.model_validate(facts.preprocessing)
    if preprocessing.image_size != image_size:
        sizes = f"prepares {preprocessing.image_size} pixels, its backbone takes {image_size}"
        raise ValueError(f"{folder / CONFIG}: the preprocessing does not match the model: it {sizes}")
    return preprocessing


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


def _array(tensor: torch.Tensor) -> Floats:
    return tensor.float().cpu().numpy()
