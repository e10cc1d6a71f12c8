"""What every AU reader takes and gives.

Letters: B clips, T frames, P patches, D width, A action units, M descriptions of an AU.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, Self

from torch import Tensor, nn

from ssm.model.config import ModelConfig


@dataclass(frozen=True)
class Texts:
    """The text side of the AUs, normalised rows."""

    fused: Tensor  # A D, the fused prototypes
    each: Tensor | None = None  # A M D, every description by itself; None where no reader looks at them


@dataclass(frozen=True)
class AUTeaching:
    """What only a step of training knows: labels, and what its draws are made from."""

    targets: Tensor | None = None  # B T A in [0, 1]
    known: Tensor | None = None  # B T A, 0 where a target means nothing
    seeds: Tensor | None = None  # int64 B*T


@dataclass(frozen=True)
class AUInputs:
    """What a reader reads."""

    pooled: Tensor  # B T D
    tokens: Tensor | None  # B T P D, of a backbone that was asked for them
    over_time: Callable[[Tensor], Tensor]  # B T D to B T D, the local frame attention
    texts: Texts | None
    teaching: AUTeaching | None = None  # None in evaluation
    where: bool = False  # whether the places are wanted that each AU was seen at


@dataclass(frozen=True)
class AUReading:
    """What a reader says; what its kind does not know is None."""

    logits: Tensor  # B T A; their sigmoid is the probability
    semantic: Tensor | None = None  # B T A, the logits' textual part, already times w
    evidence: Tensor | None = None  # B T A 2, alpha and beta of each AU's Beta
    posterior: Tensor | None = None  # B T A 2, the same where the labels were seen; in training
    divergence: Tensor | None = None  # B T A, KL from what the labels say to what the picture says; in training
    variance: Tensor | None = None  # B T A, of the representation
    where: Tensor | None = None  # B T A P, shares of the patches, where asked for


class AUReader(nn.Module):
    """A reader. The flags say what the rest of the model must bring along."""

    needs_tokens: ClassVar[bool] = False
    needs_texts: ClassVar[bool] = False  # every description by itself
    needs_labels: ClassVar[bool] = False  # in training
    gives_evidence: ClassVar[bool] = False  # Beta evidence besides logits
    gives_places: ClassVar[bool] = False  # where in the picture it looks for each AU
    smooths: ClassVar[bool] = True  # whether its logits are smoothed over time

    @classmethod
    def check(cls, config: ModelConfig) -> None:
        """ValueError, with the mend, where the configuration lacks what this reader needs."""

    @classmethod
    @abstractmethod
    def of(cls, config: ModelConfig, grid: tuple[int, int] | None) -> Self:
        """The reader of a configuration; `grid` is of the patches, where it needs them."""

    @abstractmethod
    def read(self, inputs: AUInputs) -> AUReading:
        """Logits and whatever else."""

    def forward(self, inputs: AUInputs) -> AUReading:
        """As `read`; a module is called, so that hooks see it."""
        return self.read(inputs)
