"""The visual backbone: a timm model per frame, experts in its last blocks, projected to width D (method, section 2).

Knows nothing of clips' labels or of time. Letters: F frames (all clips of the call), D width.
"""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from ssm.model.config import BackboneConfig
from ssm.model.experts import ExpertMlp, Routing, mlp_width


class Backbone(nn.Module):
    """Frames (F, 3, S, S), normalised, to features (F, D)."""

    def __init__(self, config: BackboneConfig, width: int, *, released: bool = False) -> None:
        super().__init__()
        from ssm.model.last_block import read_class_token_alone

        self.config = config
        self.routing = Routing()
        self.net = build_timm(config, width)
        _embed_by_product(self.net)
        if not released:  # there a token's route depends on all others'
            read_class_token_alone(self.net)
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
        if self.config.channels_last:
            frames = frames.contiguous(memory_format=torch.channels_last)
        features = self.net(frames)
        self.routing.seeds = None
        return cast(Tensor, features)


class Patches(nn.Module):
    """A convolution whose patches do not overlap, by the product that it is.

    On a GPU the convolution falls to a slow kernel in bfloat16 (2.5 of 37 ms of a forward pass); a CPU's is as fast as
    its product.
    """

    def __init__(self, convolution: nn.Conv2d) -> None:
        super().__init__()
        self.weight, self.bias = convolution.weight, convolution.bias
        self.size = convolution.kernel_size[0]

    def forward(self, frames: Tensor) -> Tensor:
        """(F, C, H, W) to (F, D, H / size, W / size); what is over at the right and below is left out."""
        if frames.device.type == "cpu":
            return functional.conv2d(frames, self.weight, self.bias, self.size)
        return self.by_product(frames)

    def by_product(self, frames: Tensor) -> Tensor:
        """The same as rows of pixels times the weight."""
        size, (count, colours) = self.size, frames.shape[:2]
        down, across = frames.shape[2] // size, frames.shape[3] // size
        whole = frames[:, :, : down * size, : across * size]
        patches = whole.reshape(count, colours, down, size, across, size).permute(0, 2, 4, 1, 3, 5).flatten(3)
        return functional.linear(patches, self.weight.flatten(1), self.bias).permute(0, 3, 1, 2)


def _embed_by_product(net: nn.Module) -> None:
    """Puts `Patches` in the place of the first convolution, the patch embedding, where its patches do not overlap."""
    name, first = next(((n, m) for n, m in net.named_modules() if isinstance(m, nn.Conv2d)), ("", None))
    if first is None or len({*first.kernel_size, *first.stride}) > 1 or first.groups > 1:
        return
    if first.padding == (0, 0) and first.dilation == (1, 1) and type(first) is nn.Conv2d:
        net.set_submodule(name, Patches(first))


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
        classes = width if config.project else 0
        net = timm.create_model(config.name, pretrained=config.pretrained, num_classes=classes, **options)
    except (TypeError, RuntimeError, OSError) as error:
        raise ValueError(
            f"timm could not build backbone {config.name!r} (pretrained={config.pretrained}, options={options}): "
            f"{error}. Without a network, set pretrained=False or put the weights into the hub's cache."
        ) from error
    if not config.project and net.num_features != width:
        raise ValueError(f"backbone {config.name!r} gives {net.num_features} features, width is {width}: set it so")
    return net
