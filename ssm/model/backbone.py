"""The visual backbone: a timm model per frame, experts in its last blocks, projected to width D (method, section 2).

Gives a frame's feature and, to a reader that looks at places, those of its patches, from one pass. Knows nothing of
clips' labels or of time. Letters: F frames (all clips of the call), P patches, D width.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import accumulate
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from ssm.model.config import BackboneConfig
from ssm.model.experts import ExpertMlp, Routing, mlp_width
from ssm.model.precision import full, island


@dataclass(frozen=True)
class FrameFeatures:
    """What the backbone gives of frames; the leading axes (...) are F, or B T of clips."""

    pooled: Tensor  # ... D
    tokens: Tensor | None = None  # ... P D, row by row over the picture; None where nobody asked

    def shaped(self, *leading: int) -> FrameFeatures:
        """The same with the first axis cut into these."""
        return self._each(lambda tensor: tensor.view(*leading, *tensor.shape[1:]))

    def rows(self, index: Tensor | slice) -> FrameFeatures:
        """Those at `index` of the first axis; an index of several axes puts them there."""
        return self._each(lambda tensor: tensor[index])

    def split(self, sizes: list[int]) -> list[FrameFeatures]:
        """So many frames each, one after the other; tokens may be of the last frames alone."""
        skipped, ends = 0 if self.tokens is None else len(self.pooled) - len(self.tokens), list(accumulate(sizes))
        return [
            FrameFeatures(
                self.pooled[end - size : end],
                None if self.tokens is None or end <= skipped else self.tokens[end - size - skipped : end - skipped],
            )
            for size, end in zip(sizes, ends, strict=True)
        ]

    def flat(self) -> FrameFeatures:
        """Clips (B T ...) as frames (F ...)."""
        return self._each(lambda tensor: tensor.flatten(0, 1))

    def to_units(self) -> FrameFeatures:
        """Each feature with mean 0 and deviation 1 over its width."""
        return self._each(lambda tensor: functional.layer_norm(tensor, tensor.shape[-1:]))

    def averaged(self, other: FrameFeatures) -> FrameFeatures:
        """The mean of both."""
        tokens = None if self.tokens is None or other.tokens is None else (self.tokens + other.tokens) / 2
        return FrameFeatures((self.pooled + other.pooled) / 2, tokens)

    def mirrored(self, grid: tuple[int, int] | None) -> FrameFeatures:
        """Those of a mirror image, each patch where it lies in the picture itself."""
        if self.tokens is None or grid is None:
            return self
        rows = self.tokens.view(len(self.tokens), *grid, -1).flip(2)
        return FrameFeatures(self.pooled, rows.flatten(1, 2))

    def _each(self, change: Callable[[Tensor], Tensor]) -> FrameFeatures:
        return FrameFeatures(change(self.pooled), None if self.tokens is None else change(self.tokens))


class Backbone(nn.Module):
    """Frames (F, 3, S, S), normalised, to features (F, D)."""

    def __init__(self, config: BackboneConfig, width: int, *, released: bool = False, tokens: bool = False) -> None:
        """`tokens`: patches are read too; ValueError for a net whose features lie on no grid."""
        super().__init__()
        from ssm.model.nets.last_block import read_class_token_alone

        self.config = config
        self.routing = Routing()
        self.net = build_timm(config, width)
        _embed_by_product(self.net)
        # released: a token's route depends on all others'. In a tuple: a module attribute would register it twice
        self._last = () if released else (read_class_token_alone(self.net),)
        if config.experts is not None:
            self._add_experts(released)
        self.grid = self._find_grid() if tokens else None

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

    def forward(self, frames: Tensor, seeds: Tensor | None = None, *, patches_from: int = 0) -> FrameFeatures:
        """Features of all frames; `seeds` (int64 F) fix the gate noise in training, None draws it.

        Where patches are read, `patches_from` says from which frame on: `tokens` then has so many rows less.
        """
        self.routing.seeds = seeds
        if self.config.channels_last:
            frames = frames.contiguous(memory_format=torch.channels_last)
        features = self._features(frames, patches_from)
        if self.config.mirrored and not self.training:
            features = features.averaged(self._features(frames.flip(-1), patches_from).mirrored(self.grid))
        self.routing.seeds = None
        return features.to_units() if self.config.unit_features else features

    def _features(self, frames: Tensor, patches_from: int) -> FrameFeatures:
        wanted = self.grid is not None and patches_from < len(frames)
        return self._tokens(frames, patches_from) if wanted else FrameFeatures(self.net(frames))

    def _tokens(self, frames: Tensor, start: int) -> FrameFeatures:
        """The net's own head on its pooled row, and on each patch of the frames from `start` on."""
        net, maps = cast(Any, self.net), self._maps(frames, start)
        return FrameFeatures(net.forward_head(maps), self._head_of_patches(maps[start:]))

    def _maps(self, frames: Tensor, start: int) -> Tensor:
        for last in filter(None, self._last):
            last.patches_from = start
        maps = cast(Any, self.net).forward_features(frames)
        for last in filter(None, self._last):
            last.patches_from = None
        return cast(Tensor, maps)

    def _head_of_patches(self, maps: Tensor) -> Tensor:
        """Features (F, P, D) of a map's places: of F L d behind the prefix, of F d h w or F h w d everywhere."""
        net = cast(Any, self.net)
        if maps.ndim == 3:
            return cast(Tensor, net.head(net.head_drop(net.fc_norm(maps[:, net.num_prefix_tokens :]))))
        channels_last = getattr(net, "output_fmt", "NCHW") == "NHWC"
        rows = maps.flatten(1, 2) if channels_last else maps.flatten(2).transpose(1, 2)
        single = rows.flatten(0, 1)[:, None, None] if channels_last else rows.flatten(0, 1)[:, :, None, None]
        return cast(Tensor, net.forward_head(single)).view(*rows.shape[:2], -1)

    @torch.no_grad()
    def _find_grid(self) -> tuple[int, int]:
        """Rows and columns of patches, as one picture shows them."""
        net, size, training = cast(Any, self.net), self.config.image_size, self.net.training
        try:
            net.eval()
            maps = self._maps(torch.zeros(1, 3, size, size), 0)
            grid = _grid(net, maps)
            if self._head_of_patches(maps).shape[1] != grid[0] * grid[1]:
                raise TypeError(f"{tuple(maps.shape)} is no grid of {grid[0]} x {grid[1]}")
        except (AttributeError, TypeError) as error:
            raise ValueError(
                f"backbone {self.config.name!r} gives no patches that a reader could look at ({error}): take a vision "
                "transformer or a ConvNeXt, or au_reader.kind 'linear' or 'evidential'"
            ) from error
        net.train(training)
        return grid


def _grid(net: Any, maps: Tensor) -> tuple[int, int]:
    """Rows and columns of a map F L d (a transformer's patches behind its prefix), F d h w or F h w d."""
    if maps.ndim == 3:
        down, across = net.patch_embed.grid_size
        return int(down), int(across)
    if maps.ndim != 4:
        raise TypeError(f"its features are {tuple(maps.shape)}")
    return tuple(maps.shape[1:3] if getattr(net, "output_fmt", "NCHW") == "NHWC" else maps.shape[2:4])  # type: ignore[return-value]


class Patches(nn.Module):
    """A convolution whose patches do not overlap, by the product that it is.

    On a GPU the convolution falls to a slow kernel in bfloat16 (2.5 of 37 ms of a forward pass); a CPU's is as fast as
    its product, and an island of float32: CPUs that sum products of bfloat16 in bfloat16 moved probabilities by 0.010
    by this layer alone, which sees flat bright pixels through filters that sum to nothing.
    """

    def __init__(self, convolution: nn.Conv2d) -> None:
        super().__init__()
        self.weight, self.bias = convolution.weight, convolution.bias
        self.size = convolution.kernel_size[0]

    def forward(self, frames: Tensor) -> Tensor:
        """(F, C, H, W) to (F, D, H / size, W / size); what is over at the right and below is left out."""
        if frames.device.type == "cpu":
            with island(frames):
                return functional.conv2d(full(frames), self.weight, self.bias, self.size)
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

    import ssm.model.nets.plain  # noqa: F401 -- enters `plain_cnn` into timm's list

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
