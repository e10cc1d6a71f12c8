"""How much each loss weighs, and how that changes over training (method, section 6)."""

from __future__ import annotations

import math
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field


class EvidentialLoss(BaseModel):
    """The loss of readers that give Beta evidence; its asymmetry is the model's `au_reader.focus`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    form: Literal["expected", "type2"] = Field(
        default="expected", description="expected cross-entropy under the Beta, or its marginal likelihood (type2)"
    )
    regulariser: float = Field(
        default=0.1, ge=0, description="weight, beside the AU loss, of the divergence of misleading evidence from none"
    )
    ramp: float = Field(default=1 / 3, gt=0, le=1, description="training progress over which that weight rises from 0")


class LatentLoss(BaseModel):
    """The loss of readers with a latent variable."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    posterior: float = Field(
        default=0.5, gt=0, lt=1, description="share of the AU loss on what labels say; the rest is on what pictures say"
    )
    divergence: float = Field(default=0.1, ge=0, description="weight, beside the AU loss, of KL(posterior || prior)")
    ramp: float = Field(default=1 / 3, gt=0, le=1, description="training progress over which that weight rises from 0")


class LossConfig(BaseModel):
    """How the losses are weighed."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    fe: float = Field(default=1.0, ge=0, description="weight of L1, cross-entropy of the expression logits")
    fe_smoothing: float = Field(
        default=0.0, ge=0, lt=1, description="share of each target of L1 and L3 spread over its corpus's classes"
    )
    au: float = Field(default=2.0, ge=0, description="weight of L2, binary cross-entropy of the AU logits")
    au_from: float = Field(
        default=0.0, ge=0, lt=1, description="training progress up to which AU losses count nothing; 0: as published"
    )
    au_rise: float = Field(
        default=0.0, ge=0, le=1, description="training progress over which they then rise to their weights; 0: at once"
    )
    prevalence: tuple[Annotated[float, Field(gt=0, lt=1)], ...] = Field(
        default=(),
        description="share of the training frames that show each AU of the vocabulary; given, L2 is weighted by rarity "
        "and asymmetric (methods, 3); (): as published",
    )
    fe_semantic: float = Field(default=1.0, ge=0, description="weight of L3, as L1 on the semantic logits; ramped")
    au_semantic: float = Field(default=1.0, ge=0, description="weight of L4, as L2 on the semantic logits; ramped")
    map_evidence: float = Field(
        default=0.0, ge=0, description="weight of `ssm.training.evidence`, by which the maps learn; 0: as published"
    )
    evidential: EvidentialLoss = Field(default=EvidentialLoss(), description="of Beta evidence")
    latent: LatentLoss = Field(default=LatentLoss(), description="of a latent variable")
    affect: float = Field(default=1.0, ge=0, description="weight of 1 - CCC of valence and arousal")
    ramp: float = Field(default=10.0, gt=0, description="steepness of the ramp on L3 and L4 over training progress")
    momentum: float = Field(
        default=0.95, ge=0, lt=1, description="momentum of the running mean each loss is divided by"
    )


def ramp(progress: float, steepness: float = 10.0) -> float:
    """0 at the start of training, 1 (to 1e-4) at its end."""
    return 2 / (1 + math.exp(-steepness * progress)) - 1


def rise(progress: float, over: float) -> float:
    """0 at the start of training, 1 from `over` on, straight between; 1 throughout where `over` is 0."""
    return min(1.0, progress / over) if over else 1.0


def arrival(config: LossConfig, progress: float) -> float:
    """The factor on every AU loss: 0 up to `au_from`, 1 from `au_rise` later on.

    A net from scratch whose features hardly differ from one picture to the next is pushed by the AU losses, which ask
    for the rates of AUs first, along what all pictures share, and their gradient drowns that of the expressions for a
    thousand steps (docs/real_faces.md). Let it first find what tells pictures apart.
    """
    return 0.0 if progress < config.au_from else rise(progress - config.au_from, config.au_rise)
