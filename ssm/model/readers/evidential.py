"""Beta evidence for each AU of each frame, in the place of a logit (methods, 2; after UAU-Net's AB-ENN).

    (l+, l-) = Linear_a(x) + w s_A / 2 (+, -)

DEVIATION: no smoothing over time behind it: smoothed log-odds would have no S.
Letters: B clips, T frames, A action units, D width.
"""

from __future__ import annotations

from typing import Self

from torch import Tensor, nn

from ssm.model.config import FocusConfig, ModelConfig
from ssm.model.heads import cosine_scores
from ssm.model.precision import full, island
from ssm.model.readers.base import AUInputs, AUReader, AUReading
from ssm.model.readers.evidence import Evidence


class EvidentialReader(AUReader):
    """Evidence from the frames after their local attention."""

    gives_evidence = True
    smooths = False

    def __init__(self, width: int, labels: int, scale: float, focus: FocusConfig) -> None:
        super().__init__()
        self.evidence = nn.Linear(width, 2 * labels)
        self.labels, self.scale, self.focus = labels, scale, focus

    @classmethod
    def of(cls, config: ModelConfig, grid: tuple[int, int] | None) -> Self:
        """The reader of a configuration."""
        scale = config.semantic_weight / config.temperature
        return cls(config.width, len(config.vocabulary.aus), scale, config.au_reader.focus)

    def read(self, inputs: AUInputs) -> AUReading:
        """Evidence, and the logits of the probability that it stands for."""
        features = inputs.over_time(inputs.pooled)
        with island(features):
            features = full(features)
            scores = self.evidence(features).unflatten(-1, (self.labels, 2))
            semantic = None
            if inputs.texts is not None:
                semantic = self.scale * cosine_scores(features, inputs.texts.fused)
            return evidential_reading(scores, semantic, self.focus)


def evidential_reading(scores_BTA2: Tensor, semantic_BTA: Tensor | None, focus: FocusConfig) -> AUReading:
    """The reading of l+ and l-, each with its half of the semantic part."""
    positive, negative = scores_BTA2.unbind(-1)
    if semantic_BTA is not None:
        positive, negative = positive + semantic_BTA / 2, negative - semantic_BTA / 2
    evidence = Evidence.from_scores(positive, negative)
    return AUReading(evidence.untilted(focus), semantic_BTA, evidence.pairs)
