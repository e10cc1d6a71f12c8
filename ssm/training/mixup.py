"""Mixup on AU clips (method, section 6): one share ~ Beta(alpha, alpha) per step, one partner clip per clip.

Share and partners are pure functions of (seed, step) over the *global* batch, so that they do not depend on how it is
split over workers. Every frame of a clip shares its partner. Letters: B clips, T frames, A AUs.

A mixed picture's loss is share * BCE(own labels) + (1 - share) * BCE(partner's labels), each over what that clip
labels. As BCE is linear in its target this is BCE at a mixed target with a weight per entry. Asking that both clips
label an AU instead would drop most labels as soon as corpora with different AU sets meet in a batch (BP4D and DISFA
share 5 of 15), although most shares are near 0 or 1 and the picture then shows the labelled face almost alone.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

_STREAM = 1  # keeps these draws apart from others of the same (seed, step)
VA_STREAM = 3
"""The same for clips of valence and arousal."""


@dataclass(frozen=True)
class Mix:
    """The draw of one step: the share of a clip itself, and its partner's row in the global batch."""

    share: float
    partners: Tensor  # int64 B (global)


def draw_mix(size: int, alpha: float, seed: int, step: int, among: int | None = None, stream: int = _STREAM) -> Mix:
    """The mix of a global batch of `size` clips at `step`; partners are rows of it, or of `among` other clips."""
    generator = np.random.default_rng(np.random.SeedSequence((seed, step, stream)))
    share = float(generator.beta(alpha, alpha))
    return Mix(share, torch.from_numpy(np.resize(generator.permutation(among or size), size)))


def mix_clips(clips: Tensor, partners: Tensor, share: float) -> Tensor:
    """share * clips + (1 - share) * partners, for normalised clips of one shape."""
    return torch.lerp(partners, clips, share)


def mix_targets(
    targets_BTA: Tensor, mask_BTA: Tensor, partner_targets_BTA: Tensor, partner_mask_BTA: Tensor, share: float
) -> tuple[Tensor, Tensor]:
    """Mixed targets and the weight of each entry, both float B T A; weight 0 where neither clip labels the AU."""
    own, other = share * mask_BTA.float(), (1 - share) * partner_mask_BTA.float()
    weights = own + other
    positive = own * known(targets_BTA, mask_BTA) + other * known(partner_targets_BTA, partner_mask_BTA)
    return positive / weights.clamp_min(torch.finfo(weights.dtype).tiny), weights


def known(targets_BTA: Tensor, mask_BTA: Tensor) -> Tensor:
    """Targets with 0 in place of whatever stands where nothing is known (a nan would survive a weight of 0)."""
    return targets_BTA.float().masked_fill(~mask_BTA, 0.0)
