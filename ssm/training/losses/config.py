"""How much each loss weighs, and how that changes over training (method, section 6)."""

from __future__ import annotations

import math

from pydantic import BaseModel, ConfigDict, Field


class LossConfig(BaseModel):
    """How the losses are weighed."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    fe: float = Field(default=1.0, ge=0, description="weight of L1, cross-entropy of the expression logits")
    au: float = Field(default=2.0, ge=0, description="weight of L2, binary cross-entropy of the AU logits")
    fe_semantic: float = Field(default=1.0, ge=0, description="weight of L3, as L1 on the semantic logits; ramped")
    au_semantic: float = Field(default=1.0, ge=0, description="weight of L4, as L2 on the semantic logits; ramped")
    map_evidence: float = Field(
        default=0.0, ge=0, description="weight of `ssm.training.evidence`, by which the maps learn; 0: as published"
    )
    affect: float = Field(default=1.0, ge=0, description="weight of 1 - CCC of valence and arousal")
    ramp: float = Field(default=10.0, gt=0, description="steepness of the ramp on L3 and L4 over training progress")
    momentum: float = Field(
        default=0.95, ge=0, lt=1, description="momentum of the running mean each loss is divided by"
    )


def ramp(progress: float, steepness: float = 10.0) -> float:
    """0 at the start of training, 1 (to 1e-4) at its end."""
    return 2 / (1 + math.exp(-steepness * progress)) - 1
