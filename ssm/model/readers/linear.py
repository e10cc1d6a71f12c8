"""The method's own reader: a linear map and the cosine to the fused prototypes, over smoothed frames (section 5)."""

from __future__ import annotations

from typing import Self

from torch import nn

from ssm.model.config import ModelConfig
from ssm.model.heads import add_semantic
from ssm.model.readers.base import AUInputs, AUReader, AUReading


class LinearReader(AUReader):
    """`Linear(x) + w cos(x, t') / temperature` of x, the frames after their local attention."""

    def __init__(self, width: int, labels: int, scale: float) -> None:
        super().__init__()
        self.linear = nn.Linear(width, labels)
        self.scale = scale

    @classmethod
    def of(cls, config: ModelConfig, grid: tuple[int, int] | None) -> Self:
        """The reader of a configuration."""
        return cls(config.width, len(config.vocabulary.aus), config.semantic_weight / config.temperature)

    def read(self, inputs: AUInputs) -> AUReading:
        """Logits before smoothing, and their semantic part."""
        rows = None if inputs.texts is None else inputs.texts.fused
        return AUReading(*add_semantic(self.linear, self.scale, inputs.over_time(inputs.pooled), rows))
