"""L1 and L2 of the method (section 6): cross-entropy of expressions, binary cross-entropy of AUs.

They return weighted *sums*: who knows the global count divides by it, so that any split of a batch over micro-batches
or workers gives the same loss. Letters: B clips, T frames, A AUs, E expressions.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def expression_losses(
    logits_BE: Tensor,
    labels_B: Tensor,
    class_mask_BE: Tensor,
    shares_BE: Tensor | None = None,
    smoothing: float = 0.0,
) -> Tensor:
    """Cross-entropy of each clip (B) among the classes of its own corpus, to its label or to shares of the classes.

    `smoothing` of the target is spread over those classes alike (Szegedy et al., 2016, section 7).
    A class outside the mask has probability and gradient exactly zero; a label outside it makes the loss infinite.
    A clip without any class (its pixels could not be read) has loss and gradient exactly zero.
    """
    known_B = class_mask_BE.any(1)
    logits = logits_BE.float().masked_fill(~class_mask_BE & known_B[:, None], -torch.inf)
    if shares_BE is None and not smoothing:
        return F.cross_entropy(logits, labels_B, reduction="none") * known_B
    if shares_BE is None:
        shares_BE = F.one_hot(labels_B, logits.shape[1]).float()
    if smoothing:
        alike_BE = class_mask_BE / class_mask_BE.sum(1, keepdim=True).clamp_min(1)
        shares_BE = (1 - smoothing) * shares_BE + smoothing * alike_BE
    logs = logits.log_softmax(1)
    return -(shares_BE * logs.masked_fill(shares_BE == 0, 0.0)).sum(1) * known_B  # 0 * -inf would be nan


def expression_loss(
    logits_BE: Tensor,
    labels_B: Tensor,
    class_mask_BE: Tensor,
    weights_B: Tensor | None,
    shares_BE: Tensor | None = None,
    smoothing: float = 0.0,
) -> Tensor:
    """Sum over clips of `expression_losses`, each times its weight where there are weights."""
    losses_B = expression_losses(logits_BE, labels_B, class_mask_BE, shares_BE, smoothing)
    return losses_B.sum() if weights_B is None else (losses_B * weights_B).sum()


def au_loss(logits_BTA: Tensor, targets_BTA: Tensor, weights_BTA: Tensor) -> Tensor:
    """Sum of the binary cross-entropy over labelled entries; weight 0 means unknown and has gradient exactly zero."""
    return F.binary_cross_entropy_with_logits(logits_BTA.float(), targets_BTA, weight=weights_BTA, reduction="sum")
