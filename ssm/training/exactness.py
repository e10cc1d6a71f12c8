"""What the promises of `step` forbid in a model: state that a step changes unseen, and draws of no (seed, step, row).

A batch's statistics would depend on how the batch is cut over workers and are no sum over clips; a dropout draws from
hidden global state, which a resumed run has not.
"""

from __future__ import annotations

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm


def check_exact(model: nn.Module) -> None:
    """ValueError naming the first module that breaks the promises when trained.

    A frozen part that stays in evaluation mode under `train()` may hold what it likes.
    """
    model.train()
    for name, module in model.named_modules():
        if not module.training:
            continue
        kind = type(module).__name__
        if isinstance(module, _BatchNorm):
            raise ValueError(
                f"{name} is {kind}: its statistics depend on how a batch is cut over workers; choose a backbone "
                "with LayerNorm"
            )
        if "drop" in kind.lower() and (share := _share(module)):
            raise ValueError(
                f"{name} is {kind} with {share:g}: it draws from hidden random state, so a resumed run would be "
                "another; set it to 0 in backbone.options"
            )


def _share(module: nn.Module) -> float:
    """What a dropout of torch or timm leaves out."""
    values = (getattr(module, name, None) for name in ("p", "drop_prob", "prob"))
    return max((float(value) for value in values if isinstance(value, float | int)), default=0.0)
