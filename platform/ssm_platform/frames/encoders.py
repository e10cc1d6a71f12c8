"""Encoders: frames to features and, where the encoder has classes of its own, to scores of them.

A timm model, the backbone of a trained model of ours, or an ONNX file by path (its graph is run, nothing else; pickled
modules are never loaded). Letters: N frames, S side, D width, K scores.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ssm import SSM
from ssm.interface import Preprocessing, normalise
from ssm.model import Backbone, BackboneConfig
from ssm_platform.frames.config import EncoderConfig

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Encoded:
    """Of N frames."""

    features: Floats  # N D
    scores: Floats | None  # N K, logits of the encoder's own classes


class Encoder(Protocol):
    """What encodes frames."""

    preprocessing: Preprocessing
    classes: tuple[str, ...]
    width: int

    def __call__(self, frames: NDArray[np.uint8]) -> Encoded:
        """Frames uint8 (N, S, S, 3) as `center` cuts them."""
        ...


def make_encoder(config: EncoderConfig, seed: int = 0) -> Encoder:
    """The encoder; ValueError names what is absent or does not fit."""
    if config.onnx is not None:
        return OnnxEncoder(config)
    return OwnEncoder(config) if config.model is not None else TimmEncoder(config, seed)


def encoder_key(config: EncoderConfig, seed: int) -> str:
    """Names what features depend on: the setting, and the bytes of a file that it names."""
    digest = hashlib.sha256(f"{config.model_dump_json(exclude={'model', 'onnx'})} {seed}".encode())
    for path in (config.onnx, config.model and f"{config.model}/model.safetensors"):
        if path is not None:
            try:
                digest.update(Path(path).read_bytes())
            except OSError as error:
                raise ValueError(f"{path}: cannot read the encoder: {error.strerror}") from error
    return digest.hexdigest()[:16]


class TimmEncoder:
    """A timm model's pooled features. Without pretrained weights they are drawn from `seed`."""

    classes: tuple[str, ...] = ()

    def __init__(self, config: EncoderConfig, seed: int) -> None:
        import timm

        assert config.timm is not None
        self.preprocessing = config.preprocessing
        if not timm.is_model(config.timm.split(".")[0]):
            raise ValueError(f"encoder.timm {config.timm!r} is not a timm model; see timm.list_models()")
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            width = int(cast(int, timm.create_model(config.timm, num_classes=0, **config.options).num_features))
            self.backbone_config = BackboneConfig(
                name=config.timm, pretrained=config.pretrained, image_size=config.image_size, options=config.options,
                experts=None, project=False,
            )  # fmt: skip
            torch.manual_seed(seed)
            self.backbone = Backbone(self.backbone_config, width).eval()
        self.width = width

    @torch.inference_mode()
    def __call__(self, frames: NDArray[np.uint8]) -> Encoded:
        """As the protocol says."""
        return Encoded(self.backbone(_pixels(frames, self.preprocessing)).pooled.numpy(), None)


class OwnEncoder:
    """The backbone of a saved model of ours; its own expressions are the scores."""

    def __init__(self, config: EncoderConfig) -> None:
        self.model = SSM.from_pretrained(str(config.model), local_files_only=True)
        if self.model.facts.preprocessing is None:
            raise ValueError(f"{config.model}: the model does not say how its input was prepared")
        self.preprocessing = self.model.facts.preprocessing
        self.backbone, self.backbone_config = self.model.backbone, self.model.config.backbone
        self.classes, self.width = self.model.vocabulary.expressions, self.model.config.width

    @torch.inference_mode()
    def __call__(self, frames: NDArray[np.uint8]) -> Encoded:
        """As the protocol says."""
        features = self.model.encode_frames(_pixels(frames, self.preprocessing)).pooled
        scores, _ = self.model.read_expression(features[:, None], self.model.prototypes())
        return Encoded(features.float().numpy(), scores.float().numpy())


class OnnxEncoder:
    """An ONNX file: the input of its last linear node is the embedding, its output the scores."""

    def __init__(self, config: EncoderConfig) -> None:
        self.preprocessing, self.classes = config.preprocessing, config.classes
        try:
            import onnx
            import onnxruntime
        except ImportError as error:
            raise ValueError("encoder.onnx needs pip install 'ssm-platform[onnx]'") from error
        path = str(config.onnx)
        graph = _read_onnx(path)
        last = graph.graph.node[-1]
        if last.op_type != "Gemm":
            raise ValueError(f"{path}: the last node is {last.op_type}; an encoder's is Gemm, its classifier")
        embedding, scores = last.input[0], last.output[0]
        graph.graph.output.append(onnx.helper.make_tensor_value_info(embedding, onnx.TensorProto.FLOAT, None))
        self._session = onnxruntime.InferenceSession(graph.SerializeToString(), providers=["CPUExecutionProvider"])
        self._input, self._outputs = self._session.get_inputs()[0], [embedding, scores]
        self._path = path
        self._check(config.image_size)
        probe = self(np.zeros((1, config.image_size, config.image_size, 3), np.uint8))
        self.width = probe.features.shape[1]
        assert probe.scores is not None
        if probe.scores.shape[1] < len(self.classes):
            raise ValueError(
                f"{path}: gives {probe.scores.shape[1]} scores, encoder.classes names {len(self.classes)}: "
                f"{', '.join(self.classes)}"
            )

    def _check(self, size: int) -> None:
        """ValueError where the file takes frames of another shape."""
        shape = [side if isinstance(side, int) else -1 for side in self._input.shape]
        want = (3, size, size)
        if len(shape) != 4 or any(side not in (-1, asked) for side, asked in zip(shape[1:], want, strict=True)):
            rule = f"encoder.image_size asks for [N, 3, {size}, {size}]"
            raise ValueError(f"{self._path}: takes input {self._input.shape}; {rule}")

    def __call__(self, frames: NDArray[np.uint8]) -> Encoded:
        """As the protocol says; scores beyond the classes (valence, arousal) are left out."""
        pixels = _pixels(frames, self.preprocessing).numpy()
        single = isinstance(self._input.shape[0], int) and self._input.shape[0] == 1
        batches = [pixels[row : row + 1] for row in range(len(pixels))] if single else [pixels]
        found = [self._session.run(self._outputs, {self._input.name: batch}) for batch in batches]
        features, scores = (np.concatenate([one[place] for one in found]) for place in range(2))
        return Encoded(features.reshape(len(frames), -1), scores[:, : len(self.classes)])


def _pixels(frames: NDArray[np.uint8], preprocessing: Preprocessing) -> Tensor:
    """float32 N 3 S S."""
    return normalise(torch.from_numpy(frames)[None], preprocessing)[0]


def _read_onnx(path: str) -> Any:
    import onnx
    from google.protobuf.message import DecodeError

    try:
        graph = onnx.load(path, load_external_data=False)
    except (OSError, DecodeError) as error:
        raise ValueError(f"{path}: not an ONNX file that can be read ({error})") from error
    if not graph.graph.node:
        raise ValueError(f"{path}: an ONNX file without a graph")
    return graph
