"""Why this expression: what each AU adds to each expression's semantic logit through the learned map.

The semantic logit of expression e is w / tau * cos(f, t_E'[e]) with t_E' = norm(t_E + S t_A), S = sigmoid(g1) M1
(method, sections 4 and 5). With n[e] = |t_E[e] + S[e] t_A| it is a sum, exactly:

    logit[e] = w / tau / n[e] * <f, t_E[e]>  +  sum_a  w / tau / n[e] * S[e, a] <f, t_A[a]>
             = base[e] + sum_a contribution[e, a]

for the unit-length clip feature f. It explains the semantic part of the logits; the linear head knows no AUs.
Letters: B clips, E expressions, A AUs, D width.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from ssm.model import SSMNetwork


@dataclass(frozen=True)
class Contributions:
    """The semantic logits taken apart: `base + by_au.sum(-1)` gives them back."""

    base: Tensor  # B E, the expression's own text
    by_au: Tensor  # B E A


class Explainer:
    """What `why` needs of a model in evaluation mode, computed once."""

    def __init__(self, own_ED: Tensor, shares_EAD: Tensor, scale: float) -> None:
        norm_E1 = torch.linalg.vector_norm(own_ED + shares_EAD.sum(1), dim=-1, keepdim=True)
        self._own_ED = scale * own_ED / norm_E1
        self._shares_EAD = scale * shares_EAD / norm_E1[:, None]

    @classmethod
    @torch.no_grad()
    def of(cls, model: SSMNetwork) -> Explainer | None:
        """The explainer of `model`; None where no AU enters an expression's prototype."""
        prototypes = model.prototypes()
        own = None if prototypes is None else prototypes.unfused
        if own is None or model.mapping is None or model.mapping.learn == "fe_to_au":
            return None
        strength_EA = model.mapping.gate_au_to_fe.sigmoid() * model.mapping.au_to_fe()
        return cls(own.expressions, strength_EA[:, :, None] * own.aus[None], model.fe_head.scale)

    def __call__(self, features_BD: Tensor) -> Contributions:
        """Contributions for the clips' features, as `SSM.expression_time` gives them."""
        with torch.autocast(features_BD.device.type, enabled=False):
            unit_BD = functional.normalize(features_BD.float(), dim=-1)
            return Contributions(unit_BD @ self._own_ED.T, torch.einsum("bd,ead->bea", unit_BD, self._shares_EAD))
