"""Evidence for the maps: which AUs the model itself sees on clips of which expression. An option; the method has none.

Through the heads alone the maps do not learn: prototypes are free to move as well, so the gradient that reaches D1 and
D2 through a gate of 0.1 has no tendency towards the true association (docs/results.md measures it). Here the clips
say it directly. With p_a the probability of AU a on a clip of expression e, without gradient,

    loss = - sum_a p_a (log M1[e, a] + log M2[a, e]),

whose minimum over many clips is M1[e] ~ P(a | e) and M2[a] ~ P(e | a), each within the mass that the prior gave it.
Letters: B clips, T frames, A AUs.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ssm.model import PriorMapping


def map_evidence(mapping: PriorMapping, au_logits_BTA: Tensor, labels_B: Tensor, known_B: Tensor) -> Tensor:
    """Sum of the loss over clips that have a class (`known_B`) other than neutral, which is never learned."""
    shown_BA = au_logits_BTA.detach().float().sigmoid().mean(1)
    tiny = torch.finfo(shown_BA.dtype).tiny
    links_BA = mapping.au_to_fe()[labels_B].clamp_min(tiny).log() + mapping.fe_to_au().T[labels_B].clamp_min(tiny).log()
    told_B = known_B & ~mapping.neutral[labels_B]
    return -((shown_BA * links_BA).sum(1) * told_B).sum()
