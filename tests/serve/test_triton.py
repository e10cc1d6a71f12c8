"""The Open Inference Protocol, asked by a client that is not ours: NVIDIA's tritonclient."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import uvicorn
from fastapi import FastAPI

from ssm_platform.read.model_reader import ModelReader

triton = pytest.importorskip("tritonclient.http")


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
