"""AUs frame by frame from pooled features, as the entries of the ABAW challenges read them (arXiv 2603.12693).

`e -> hidden, ReLU, -> A`, without text and with nothing over time. Chosen by `reading="frames"`, not by `au_reader`.
"""

from __future__ import annotations

from typing import Self

from ssm.model.config import ModelConfig
from ssm.model.heads import FrameHead
from ssm.model.precision import full, island
from ssm.model.readers.base import AUInputs, AUReader, AUReading


class FrameReader(AUReader):
    """`FrameHead` as a reader; its weights have the same names."""

    smooths = False

    def __init__(self, head: FrameHead) -> None:
        super().__init__()
        self.net = head.net

    @classmethod
    def of(cls, config: ModelConfig, grid: tuple[int, int] | None) -> Self:
        """The reader of a configuration."""
        return cls(FrameHead(config.width, config.frame_hidden, len(config.vocabulary.aus)))

    def read(self, inputs: AUInputs) -> AUReading:
        """Logits alone."""
        with island(inputs.pooled):
            return AUReading(self.net(full(inputs.pooled)))
