"""When a model that gives evidence had better not answer: a level of doubt, fitted on validation for a wanted risk."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field


class Abstention(BaseModel):
    """Fitted by `ssm.metrics.fit_abstention`, saved with a model."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    risk: float = Field(gt=0, lt=1, description="share of wrong answers that was asked for, among those given")
    doubt: float = Field(gt=0, le=1, description="an answer with more doubt is withheld")
    coverage: float = Field(gt=0, le=1, description="share of validation's answers that are given at this level")

    def withheld(self, doubts: NDArray[Any]) -> NDArray[np.bool_]:
        """Which answers are."""
        return np.asarray(doubts > np.float32(self.doubt))
