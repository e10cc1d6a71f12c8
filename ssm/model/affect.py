"""Valence and arousal per frame, each in [-1, 1]: from features of the AU side, or from the other two tasks' answers.

    features:  tanh(Linear(x'))              x' (B T D) as the AU head reads it
    labels:    tanh(V AU logits + U expression logits + b), so every AU's term V_ka * logit_a says why

In float32 whatever the pass is in. Letters: B clips, T frames, D width, A action units, E expressions, K = 2.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, cast

from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

from ssm.labels import AFFECT
from ssm.model.precision import full, island

_SMALL = 0.02  # deviation of the label head's weights at the start: logits are large, and tanh must not begin flat


class AffectConfig(BaseModel):
    """How valence and arousal are read, where the vocabulary has them."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    head: Literal["features", "labels"] = Field(
        default="features", description="from the AU side's features, or from the AU and expression logits"
    )


@dataclass(frozen=True)
class AffectTerms:
    """The argument of tanh taken apart: `base + by_au.sum(-1) + by_expression.sum(-1)`."""

    base: Tensor  # K
    by_au: Tensor  # B T K A
    by_expression: Tensor  # B T K E


class FeatureAffect(nn.Module):
    """`head="features"`."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.linear = nn.Linear(width, len(AFFECT))

    def forward(self, x_BTD: Tensor) -> Tensor:
        """Valence and arousal (B, T, 2)."""
        with island(x_BTD):
            return cast(Tensor, self.linear(full(x_BTD))).tanh()


class LabelAffect(nn.Module):
    """`head="labels"`."""

    def __init__(self, aus: int, expressions: int) -> None:
        super().__init__()
        self.by_au, self.by_expression = nn.Linear(aus, len(AFFECT)), nn.Linear(expressions, len(AFFECT), bias=False)
        for linear in (self.by_au, self.by_expression):
            nn.init.normal_(linear.weight, std=_SMALL)
        nn.init.zeros_(self.by_au.bias)

    def forward(self, aus_BTA: Tensor, expressions_BE: Tensor) -> Tensor:
        """Valence and arousal (B, T, 2); a clip's expression logits count for each of its frames."""
        with island(aus_BTA):
            whole = self.by_au(full(aus_BTA)) + self.by_expression(full(expressions_BE))[:, None]
            return cast(Tensor, whole).tanh()

    def terms(self, aus_BTA: Tensor, expressions_BE: Tensor) -> AffectTerms:
        """What each AU and each expression adds before tanh."""
        with island(aus_BTA):
            by_au = full(aus_BTA)[:, :, None] * self.by_au.weight
            by_expression = (full(expressions_BE)[:, None] * self.by_expression.weight)[:, None]
            return AffectTerms(self.by_au.bias, by_au, by_expression.expand(-1, aus_BTA.shape[1], -1, -1))
