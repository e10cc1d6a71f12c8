"""A run of the frame baseline as one value: corpora, encoder, heads, and what is tried on validation afterwards."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from ssm.interface import Preprocessing
from ssm_platform.base import default_place
from ssm_platform.runs import CorpusConfig, anchored

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
EE_CLASSES = ("anger", "contempt", "disgust", "fear", "happiness", "neutral", "sadness", "surprise")
"""Classes of EmotiEffLib's encoders, in the order of their scores."""


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class EncoderConfig(_Frozen):
    """Where features come from: one of a timm model, a trained model of ours, an ONNX file."""

    timm: str | None = Field(default=None, description="name of a timm model; its pooled features are taken")
    pretrained: bool = Field(default=True, description="start a timm model from its weights (hub or its cache)")
    options: dict[str, Any] = Field(default_factory=dict, description="arguments of the timm model itself")
    model: str | None = Field(default=None, description="folder of a saved model of ours: its backbone")
    onnx: str | None = Field(default=None, description="path of an ONNX file whose last node is a linear layer")
    classes: tuple[str, ...] = Field(
        default=EE_CLASSES, description="classes of an ONNX file's first scores, in their order"
    )
    image_size: int = Field(default=224, ge=16, le=1024, description="pixels of a frame's side")
    mean: tuple[float, float, float] = Field(default=IMAGENET_MEAN, description="RGB mean taken off, in [0, 1]")
    std: tuple[float, float, float] = Field(default=IMAGENET_STD, description="RGB deviation divided by")

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        given = [name for name in ("timm", "model", "onnx") if getattr(self, name) is not None]
        if len(given) != 1:
            raise ValueError(f"encoder needs exactly one of timm, model and onnx; got {', '.join(given) or 'none'}")
        return self

    @property
    def preprocessing(self) -> Preprocessing:
        """Of a timm or ONNX encoder: the crop resized to the square, and ImageNet's normalisation."""
        return Preprocessing(image_size=self.image_size, mean=self.mean, std=self.std)


class HeadConfig(_Frozen):
    """How one head trains on cached features."""

    epochs: int = Field(ge=1, le=1000, description="passes over all frames")
    batch: int = Field(ge=4, description="frames of a step")
    rate: float = Field(default=1e-3, gt=0, description="Adam's learning rate")


class HeadsConfig(_Frozen):
    """The three heads; defaults are the published ones."""

    hidden: int = Field(default=128, ge=1, description="width inside the expression and AU heads")
    fe: HeadConfig = Field(default=HeadConfig(epochs=10, batch=256), description="expressions: weighted CE")
    au: HeadConfig = Field(default=HeadConfig(epochs=5, batch=512), description="AUs: weighted BCE")
    va: HeadConfig = Field(default=HeadConfig(epochs=5, batch=1024), description="valence and arousal: 1 - CCC")


class AfterwardsConfig(_Frozen):
    """What is chosen on validation once the heads are trained."""

    half_windows: tuple[int, ...] = Field(default=(0, 5, 15, 25, 50, 100), description="of boxes over expressions")
    au_half_windows: tuple[int, ...] = Field(default=(0, 3, 5, 10), description="of boxes over AU probabilities")
    gates: tuple[float, ...] = Field(default=(0.7, 0.8, 0.9, 1.0), description="thresholds of the gate; 1: none")
    sigma: float | None = Field(
        default=None, gt=0, description="Gaussian weights exp(-(frames apart)^2 / sigma) for lists of frames that lie "
        "apart; null: boxes, gaps filled in",
    )  # fmt: skip


class FrameRun(_Frozen):
    """One run of the frame baseline, from corpora to a saved model."""

    name: str = Field(default="abaw-frame", pattern=r"^[\w.\-]+$", description="name of the run and of its folder")
    seed: int = Field(default=1, ge=0, lt=2**31, description="seed of splits, weights and the order of frames")
    storage: str = Field(default_factory=default_place, description="folder or s3:// prefix that holds runs")
    protocol: Literal["clean", "published"] = Field(default="clean", description="what choices rest on")
    corpora: tuple[CorpusConfig, ...] = Field(min_length=1, description="the corpora, of any task")
    encoder: EncoderConfig = Field(description="where features come from")
    heads: HeadsConfig = Field(default_factory=HeadsConfig, description="what trains on them")
    afterwards: AfterwardsConfig = Field(default_factory=AfterwardsConfig, description="what is tried on validation")
    workers: int = Field(default=1, ge=1, le=1024, description="encoding processes")
    batch: int = Field(default=32, ge=1, description="frames encoded at once")

    def anchored(self, folder: Path) -> Self:
        """The same with every place made absolute, relative to `folder`: Ray's workers stand elsewhere."""

        def place(text: str | None) -> str | None:
            return None if text is None else anchored(text, folder)

        corpora = tuple(
            one.model_copy(update={"root": place(one.root), "manifest": place(one.manifest)}) for one in self.corpora
        )
        encoder = self.encoder.model_copy(update={"model": place(self.encoder.model), "onnx": place(self.encoder.onnx)})
        changes = {"storage": anchored(self.storage, folder), "corpora": corpora, "encoder": encoder}
        return self.model_copy(update=changes)
