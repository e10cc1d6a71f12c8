"""The Open Inference Protocol, asked by a client that is not ours: NVIDIA's tritonclient."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import uvicorn
from fastapi import FastAPI
from serving_fixtures import small_settings
from starlette.testclient import TestClient

from serve.local import local_app
from ssm_platform.read.model_reader import ModelReader

triton = pytest.importorskip("tritonclient.http")
TOKEN = "t" * 20


@pytest.fixture
def asked(local_app: FastAPI) -> Iterator[Any]:
    server = uvicorn.Server(uvicorn.Config(local_app, port=0, log_level="error"))
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        time.sleep(0.02)
    client = triton.InferenceServerClient(f"127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}")
    yield client
    client.close()
    server.should_exit = True
    thread.join()


def test_tritonclient_finds_the_model_its_version_and_its_numbers(asked: Any, model_folder: Path) -> None:
    assert asked.is_server_live()
    assert asked.is_server_ready()
    (entry,) = asked.get_model_repository_index()
    version = entry["version"]
    assert (entry["name"], entry["state"]) == ("ssm", "READY")
    assert asked.is_model_ready("ssm")
    assert asked.is_model_ready("ssm", version)
    assert not asked.is_model_ready("ssm", "another")
    assert not asked.is_model_ready("other")
    metadata = asked.get_model_metadata("ssm", version)
    assert metadata == asked.get_model_metadata("ssm")
    assert metadata["versions"] == [version]

    shape = [2, *metadata["inputs"][0]["shape"][1:]]
    clips = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    wanted = ModelReader(model_folder, "cpu", threads=1).read(clips)
    for binary in (True, False):
        tensor = triton.InferInput("clips", shape, "UINT8")
        tensor.set_data_from_numpy(clips, binary_data=binary)
        outputs = [triton.InferRequestedOutput("expression_probability", binary_data=binary)]
        answer = asked.infer("ssm", [tensor], model_version=version, outputs=outputs, request_id="7")
        np.testing.assert_allclose(answer.as_numpy("expression_probability"), wanted.expression, atol=1e-5)
        assert answer.get_response()["id"] == "7"
    with pytest.raises(triton.InferenceServerException, match="not served"):
        asked.infer("ssm", [tensor], model_version="another")


@pytest.fixture
def rpc_port(model_folder: Path, tmp_path: Path) -> Iterator[int]:
    """The application with gRPC and a token."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    settings = small_settings(model_folder, tmp_path, grpc=f"127.0.0.1:{port}")
    with TestClient(local_app(settings, TOKEN)):
        yield port


def test_tritonclient_finds_the_same_over_grpc(rpc_port: int, model_folder: Path) -> None:
    rpc = pytest.importorskip("tritonclient.grpc")
    client, headers = rpc.InferenceServerClient(f"127.0.0.1:{rpc_port}"), {"authorization": f"Bearer {TOKEN}"}
    with pytest.raises(rpc.InferenceServerException, match="bearer token"):
        client.get_server_metadata()
    assert client.is_server_live(headers=headers)
    assert client.is_server_ready(headers=headers)
    metadata = client.get_model_metadata("ssm", headers=headers)
    (version,) = metadata.versions
    assert client.is_model_ready("ssm", version, headers=headers)
    assert not client.is_model_ready("ssm", "another", headers=headers)
    shape = [2, *metadata.inputs[0].shape[1:]]
    clips = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    tensor = rpc.InferInput("clips", shape, "UINT8")
    tensor.set_data_from_numpy(clips)
    answer = client.infer("ssm", [tensor], model_version=version, request_id="7", headers=headers)
    wanted = ModelReader(model_folder, "cpu", threads=1).read(clips)
    np.testing.assert_allclose(answer.as_numpy("au_probability"), wanted.au_probability, atol=1e-5)
    np.testing.assert_allclose(answer.as_numpy("why"), wanted.why, atol=1e-5)
    assert answer.get_response().id == "7"
    for shape_sent, datatype in (([1, 2], "UINT8"), (shape, "FP64"), ([-1], "UINT8")):
        tensor._input.shape[:], tensor._input.datatype = shape_sent, datatype
        with pytest.raises(rpc.InferenceServerException, match="INVALID_ARGUMENT"):
            client.infer("ssm", [tensor], headers=headers)
    client.close()
