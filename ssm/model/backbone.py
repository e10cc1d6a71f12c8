"""The visual backbone: a timm model per frame, experts in its last blocks, projected to width D (method, section 2).

Knows nothing of clips' labels or of time. Letters: F frames (all clips of the call), D width.
"""

from __future__ import annotations

from typing import cast

from torch import Tensor, nn

from ssm.model.config import BackboneConfig
from ssm.model.experts import ExpertMlp, Routing, mlp_width


class Backbone(nn.Module):
    """Frames (F, 3, S, S), normalised, to features (F, D)."""

    def __init__(self, config: BackboneConfig, width: int, *, released: bool = False) -> None:
        super().__init__()
        self.config = config
        self.routing = Routing()
        self.net = build_timm(config, width)
        if config.experts is not None:
            self._add_experts(released)

    def _add_experts(self, released: bool) -> None:
        experts = self.config.experts
        assert experts is not None
        blocks = [block for block in self.net.modules() if isinstance(getattr(block, "mlp", None), nn.Module)]
        if len(blocks) < experts.blocks:
            raise ValueError(
                f"backbone {self.config.name!r} has {len(blocks)} blocks with an `.mlp`; "
                f"backbone.experts.blocks asks for {experts.blocks}"
            )
        for number, block in enumerate(blocks[-experts.blocks :]):
            mlp = cast(nn.Module, block.mlp)
            block.mlp = ExpertMlp(mlp, mlp_width(mlp), experts, number, self.routing, released=released)

    def forward(self, frames: Tensor, seeds: Tensor | None = None) -> Tensor:
        """Features of all frames; `seeds` (int64 F) fix the gate noise in training, None draws it."""
        self.routing.seeds = seeds
        features = self.net(frames)
        self.routing.seeds = None
        return cast(Tensor, features)


def build_timm(config: BackboneConfig, width: int) -> nn.Module:
    """The timm model with a head of `width`; ValueError names what timm refused."""
    import timm

    options = dict(config.options)
    if not timm.is_model(config.name.split(".")[0]):
        raise ValueError(f"backbone.name {config.name!r} is not a timm model; see timm.list_models()")
    default = timm.get_pretrained_cfg(config.name)
    if default is not None and default.fixed_input_size:
        options.setdefault("img_size", config.image_size)
    try:
        net = timm.create_model(config.name, pretrained=config.pretrained, num_classes=width, **options)
    except (TypeError, RuntimeError, OSError) as error:
        raise ValueError(
            f"timm could not build backbone {config.name!r} (pretrained={config.pretrained}, options={options}): "
            f"{error}. Without a network, set pretrained=False or put the weights into the hub's cache."
        ) from error
    return net
