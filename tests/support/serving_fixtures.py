"""What the tests of serving share: a tiny model with random weights, clips of faces, the app in this process."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import av
import cv2
import httpx
import numpy as np
import pytest
import torch
from fastapi import FastAPI
from numpy.typing import NDArray
from starlette.testclient import TestClient

from serve.local import local_app
from serve.settings import Limits, Settings
from ssm import SSM
from ssm.interface.abstention import Abstention
from ssm.interface.preprocessing import Preprocessing
from ssm.interface.rules import AURule, DecisionRule
from ssm.labels.vocabulary import BASIC_EXPRESSIONS, BP4D_AUS, Vocabulary
from ssm.model.config import (
    AUReaderConfig,
    AUTimeConfig,
    BackboneConfig,
    ExpertsConfig,
    ExpressionTimeConfig,
    ModelConfig,
    TextConfig,
)
from ssm.model.readers.table import READERS
from ssm.saved.facts import ModelFacts

SIZE, FRAMES = 32, 8


def save_model(
    folder: Path,
    seed: int,
    reader: str = "linear",
    abstention: Abstention | None = None,
    affect: tuple[str, ...] = (),
    size: int = SIZE,
) -> Path:
    """An untrained model with a rule of its own: real weights, real files, a few kilobytes."""
    torch.manual_seed(seed)
    config = ModelConfig(
        vocabulary=Vocabulary(aus=BP4D_AUS, expressions=BASIC_EXPRESSIONS, affect=affect),
        backbone=BackboneConfig(
            name="convnext_atto",
            image_size=size,
            options={"depths": [1, 1, 1, 1], "dims": [8, 16, 24, 32]},
            experts=ExpertsConfig(blocks=1, hidden=8),
        ),
        width=32,
        frames=FRAMES,
        text=TextConfig(tower="minilm", style="llm" if READERS[reader].needs_texts else TextConfig().style),
        expression_time=ExpressionTimeConfig(heads=2, head_width=8, hidden=16),
        au_time=AUTimeConfig(heads=2),
        au_reader=AUReaderConfig(kind=reader),
    )
    model = SSM(config)
    rule = DecisionRule(rules={au: AURule(threshold=0.5, half_window=au % 3, votes=1 + au % 3) for au in BP4D_AUS})
    model.facts = ModelFacts(
        preprocessing=Preprocessing(image_size=size).model_dump(mode="json"),
        rule=rule.model_dump(mode="json"),
        abstention=abstention,
    )
    model.fold().save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A saved tiny model."""
    return save_model(tmp_path_factory.mktemp("models") / "first", seed=0)


@pytest.fixture(scope="session")
def other_model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Another one: the same shapes, other answers; it looks at places."""
    return save_model(tmp_path_factory.mktemp("models") / "second", seed=1, reader="hiva")


def small_settings(model: Path, scratch: Path, **changes: object) -> Settings:
    """Settings with limits that tests can reach."""
    limits = Limits(
        upload_bytes=3_000_000, tensor_bytes=2_000_000, images=4, video_s=60, frame_pixels=1_500_000, faces=4
    )
    facts = {"model": str(model), "scratch": str(scratch), "limits": limits, "threads": 1, "hosts": ("testserver",)}
    return Settings(**{**facts, **changes})


AppMaker = Callable[..., FastAPI]


@pytest.fixture
def make_app(model_folder: Path, tmp_path: Path) -> AppMaker:
    """`make_app(token=None, **limits)`: the application on the replicas' own classes, without a cluster."""

    def make(token: str | None = None, **limits: object) -> FastAPI:
        settings = small_settings(model_folder, tmp_path / "scratch")
        settings = settings.model_copy(update={"limits": settings.limits.model_copy(update=limits)})
        return local_app(settings, token)

    return make


@pytest.fixture(name="local_app")
def app(make_app: AppMaker) -> FastAPI:
    """The application with small limits."""
    return make_app()


@pytest.fixture
def client(local_app: FastAPI, tmp_path: Path) -> Iterator[TestClient]:
    """A client of the app; whatever it did, no upload is left."""
    with TestClient(local_app) as client:
        yield client
    left = [path for path in (tmp_path / "scratch").rglob("*") if path.is_file()]
    assert left == []


def post(client: TestClient, *files: bytes, accept: str = "application/json", **query: str) -> httpx.Response:
    """Upload files the way a form does."""
    parts = [("file", (f"clip {number}", content)) for number, content in enumerate(files)]
    return client.post("/v1/predict", files=parts, headers={"Accept": accept}, params=query)


def parsed(text: str) -> list[dict[str, object]]:
    return [json.loads(line) for line in text.splitlines()]


def assert_same_numbers(one: list[list[str]], other: list[list[str]]) -> None:
    """Equal, but for the last of five decimals: batches of other sizes round differently in the seventh."""
    assert one[0] == other[0]
    assert len(one) == len(other)
    for left, right in zip(one[1:], other[1:], strict=True):
        assert [cell == "" for cell in left] == [cell == "" for cell in right]
        np.testing.assert_allclose(
            [float(cell or 0) for cell in left], [float(cell or 0) for cell in right], atol=2e-5, rtol=0
        )


@pytest.fixture(scope="session")
def write_video() -> Callable[..., Path]:
    """`write_video(path, frames, rate=25, codec="libx264", **options)` encodes RGB frames."""
    return encode


def encode(path: Path, frames: list[NDArray[np.uint8]], rate: int = 25, codec: str = "libx264", **options: str) -> Path:
    """Encode RGB frames."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=rate)
        stream.height, stream.width = frames[0].shape[:2]
        stream.pix_fmt = options.pop("pix_fmt", "yuv420p")
        stream.options = options
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())
    return path


@pytest.fixture(scope="session")
def face_frames(shared_data: Path) -> list[NDArray[np.uint8]]:
    """Sixty real frames of one face, 320 x 180."""
    with av.open(str(shared_data / "faces" / "WolfgangLanger_Pexels.mp4")) as container:
        frames = [
            cv2.resize(frame.to_ndarray(format="rgb24"), (320, 180), interpolation=cv2.INTER_AREA)
            for _, frame in zip(range(60), container.decode(video=0), strict=False)
        ]
    return [np.asarray(frame, np.uint8) for frame in frames]


@pytest.fixture(scope="session")
def face_video(face_frames: list[NDArray[np.uint8]], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """They as a video."""
    return encode(tmp_path_factory.mktemp("videos") / "face.mp4", face_frames, crf="18")


@pytest.fixture
def run() -> Iterator[Callable[..., object]]:
    """Run a coroutine on one loop that lasts for the test."""
    with asyncio.Runner() as runner:
        yield runner.run


class Lines(logging.Handler):
    """What the service logs."""

    def __init__(self) -> None:
        super().__init__()
        self.facts: list[dict[str, Any]] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.facts.append(json.loads(record.getMessage()))


@pytest.fixture
def logged() -> Iterator[list[dict[str, Any]]]:
    """The lines that the service writes for operators."""
    logger, lines = logging.getLogger("ray.serve.ssm"), Lines()
    logger.setLevel(logging.INFO)
    logger.addHandler(lines)
    yield lines.facts
    logger.removeHandler(lines)
