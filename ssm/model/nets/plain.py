"""`plain_cnn`: a small convolutional backbone to train from scratch, entered into timm's list when imported.

Two 3x3 convolutions a stage, maximum pooling between stages, the mean over places at the end. Weights are standardised
(Qiao et al., 2019, scaled as in Brock et al., 2021) and nothing is normalised over a batch: a step is a sum over its
clips, an answer the clip's own. Meant to be started on data (`train.data_init`): faces are all alike, and what
they share drowns what they differ in until each channel is centred.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

from timm.layers.classifier import ClassifierHead
from timm.layers.std_conv import ScaledStdConv2d
from timm.models import build_model_with_cfg, generate_default_cfgs, register_model
from torch import Tensor, nn

_RELU_GAIN = 1.7139588594436646
"""Brings the rectified standard normal back to deviation 1."""


class PlainCNN(nn.Module):
    """Frames (F, in_chans, S, S) to (F, num_classes); a stage halves rows and columns but for the last."""

    def __init__(
        self, channels: Sequence[int] = (32, 64, 96, 160), *, in_chans: int = 3, num_classes: int = 1000
    ) -> None:
        """`channels`: of each stage. ValueError without any."""
        super().__init__()
        if not channels or min(channels) < 1:
            raise ValueError(f"channels is {channels}; a plain_cnn needs one positive width a stage")
        self.num_classes, self.num_features = num_classes, channels[-1]
        stages, before = nn.Sequential(), in_chans
        for number, width in enumerate(channels):
            if number:
                stages.append(nn.MaxPool2d(2))
            stages.append(_convolution(before, width))
            stages.append(_convolution(width, width))
            before = width
        self.stages = stages
        self.head = ClassifierHead(before, num_classes)

    def get_classifier(self) -> nn.Module:
        """The last layer."""
        return cast(nn.Module, self.head.fc)

    def forward_features(self, frames: Tensor) -> Tensor:
        """The map (F, channels[-1], h, w)."""
        return cast(Tensor, self.stages(frames))

    def forward_head(self, maps: Tensor) -> Tensor:
        """A map's mean over places through the last layer."""
        return cast(Tensor, self.head(maps))

    def forward(self, frames: Tensor) -> Tensor:
        """Both."""
        return self.forward_head(self.forward_features(frames))


def _convolution(before: int, width: int) -> nn.Sequential:
    return nn.Sequential(ScaledStdConv2d(before, width, 3, padding=1, gamma=_RELU_GAIN), nn.ReLU(inplace=True))


default_cfgs = generate_default_cfgs(
    {"plain_cnn": {"input_size": (3, 48, 48), "num_classes": 1000, "first_conv": "stages.0.0", "classifier": "head.fc"}}
)


@register_model
def plain_cnn(pretrained: bool = False, **options: Any) -> PlainCNN:
    """timm's entry point; nobody has trained weights for it to take."""
    return build_model_with_cfg(PlainCNN, "plain_cnn", pretrained, **options)
