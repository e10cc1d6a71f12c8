"""The map as teacher: what a face's expression says of its action units, where nobody has coded them.

The row of the map AU->FE that belongs to an FE clip's class (M1, method section 4; without gradient, clamped to 1) is
the target of the AU head on that clip, with a small weight, for the AUs that the prior links to any expression. So AU
labels of drawn faces and expression labels of real ones meet on real faces. What is learned is FACS's prototypes, not
what a person's face shows: `ssm.metrics.consistency` of such a model says that it was taught, not that it sees.
Letters: B clips, E expressions, A action units.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch

from ssm.model import SSMNetwork
from ssm.training.batch import FEPart


@dataclass(frozen=True)
class MapTeacher:
    """Gives FE clips AU targets from the model's own map, each of weight `weight` against 1 of a coded label."""

    model: SSMNetwork
    weight: float

    def __post_init__(self) -> None:
        if self.model.mapping is None:
            raise ValueError("expression_teacher needs the map between AUs and expressions: model.mapping.enabled")

    @torch.no_grad()
    def __call__(self, fe: FEPart) -> FEPart:
        """The same clips with AU targets (B A) and their weights."""
        mapping = self.model.mapping
        assert mapping is not None
        linked_A = (mapping.prior > mapping.prior.min(0).values).any(0) & (mapping.prior.max(0).values > 0)
        known_B1 = fe.class_mask.any(1, keepdim=True)
        targets_BA = mapping.au_to_fe().float().clamp(0, 1)[fe.labels]
        return replace(fe, au_targets=targets_BA, au_weights=self.weight * (known_B1 & linked_A).float())
