"""The Open Inference Protocol: JSON and binary tensors both ways give the model's numbers; everything else is 400."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fastapi import FastAPI
from numpy.typing import NDArray
from starlette.testclient import TestClient

from serve.protocol.codec import decode, encode
from serve.protocol.messages import DATATYPES, InferenceRequest, ProtocolError
from ssm_platform.read.model_reader import ModelReader

FRAMES, SIZE = 8, 32  # of the tiny model
INFER = "/v2/models/ssm/infer"
SHAPE = [2, FRAMES, SIZE, SIZE, 3]


@pytest.fixture
def client(local_app: FastAPI) -> Iterator[TestClient]:
    with TestClient(local_app) as client:
        yield client


@pytest.fixture(scope="module")
def clips() -> NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 256, SHAPE, np.uint8)


def request(clips: NDArray[np.uint8], **changes: Any) -> dict[str, Any]:
    tensor = {"name": "clips", "shape": list(clips.shape), "datatype": "UINT8", **changes}
    return {"id": "a", "inputs": [tensor]}


def test_json_and_binary_tensors_give_the_models_numbers(
    client: TestClient, clips: NDArray[np.uint8], model_folder: Path
) -> None:
    expected = ModelReader(model_folder, "cpu", threads=1).read(clips)
    plain = client.post(INFER, json=request(clips, data=clips.ravel().tolist())).json()
    header = json.dumps(
        request(clips, parameters={"binary_data_size": clips.nbytes}) | {"parameters": {"binary_data_output": True}}
    ).encode()
    answer = client.post(
        INFER, content=header + clips.tobytes(), headers={"Inference-Header-Content-Length": str(len(header))}
    )
    length = int(answer.headers["Inference-Header-Content-Length"])
    binary, blob = json.loads(answer.content[:length]), answer.content[length:]
    assert plain["id"] == binary["id"] == "a"
    assert plain["model_version"] == binary["model_version"]
    for tensor, other, array in zip(
        plain["outputs"], binary["outputs"], (expected.au_probability, expected.expression, expected.why), strict=True
    ):
        size = other["parameters"]["binary_data_size"]
        values, blob = np.frombuffer(blob[:size], "<f4").reshape(other["shape"]), blob[size:]
        np.testing.assert_allclose(np.reshape(tensor["data"], tensor["shape"]), array, atol=1e-5)
        np.testing.assert_allclose(values, array, atol=1e-5)
    assert blob == b""


def test_only_the_outputs_asked_for_come_back(client: TestClient, clips: NDArray[np.uint8]) -> None:
    body = request(clips, data=clips.tolist()) | {"outputs": [{"name": "expression_probability"}]}
    outputs = client.post(INFER, json=body).json()["outputs"]
    assert [output["name"] for output in outputs] == ["expression_probability"]


def test_metadata_and_health_say_what_the_protocol_asks(client: TestClient) -> None:
    extensions = ["binary_tensor_data", "model_repository"]
    assert client.get("/v2").json() == {"name": "ssm", "version": "1", "extensions": extensions}
    assert client.get("/v2/health/live").json() == {"live": True}
    assert client.get("/v2/health/ready").json() == {"ready": True}
    assert client.get("/v2/models/ssm/ready").json() == {"name": "ssm", "ready": True}
    model = client.get("/v2/models/ssm").json()
    assert model["inputs"][0] == {
        "name": "clips", "datatype": "UINT8", "shape": [-1, FRAMES, SIZE, SIZE, 3], "parameters": {}
    }  # fmt: skip
    assert model["outputs"][1]["parameters"]["expressions"][0] == "happiness"


@pytest.mark.parametrize(
    "change",
    [
        {"shape": [2, FRAMES, SIZE, SIZE, 4]},
        {"shape": [-2, FRAMES, SIZE, SIZE, 3]},
        {"shape": [2**40, 2**40]},
        {"shape": []},
        {"shape": "x"},
        {"datatype": "FP32"},
        {"datatype": "BYTES"},
        {"name": "pixels"},
        {"data": [1, 2, 3]},
        {"data": [[1], [2, 3]]},
        {"data": "QUJD"},
        {"data": None},
        {"data": [256] * (2 * FRAMES * SIZE * SIZE * 3)},
        {"data": [-1] * (2 * FRAMES * SIZE * SIZE * 3)},
        {"data": [0.5] * (2 * FRAMES * SIZE * SIZE * 3)},
        {"parameters": {"binary_data_size": 5}},
        {"parameters": {"binary_data_size": -1}, "data": None},
        {"parameters": {"binary_data_size": 10**9}, "data": None},
        {"parameters": {"binary_data_size": True}, "data": None},
    ],
)
def test_a_tensor_that_does_not_fit_is_400(
    client: TestClient, clips: NDArray[np.uint8], change: dict[str, Any]
) -> None:
    answer = client.post(INFER, json=request(clips, **{"data": clips.ravel().tolist(), **change}))
    assert answer.status_code == 400, answer.text
    assert list(answer.json()) == ["error", "request_id"]


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"[]", b"null", b'{"inputs": []}', b"[" * 100_000, b"\xff\xfe", b'{"inputs": 1e999}', b"NaN"],
)
@pytest.mark.parametrize("length", [None, "0", "5", "99999", "x", "-1", "1" * 30])
def test_nonsense_is_400(client: TestClient, body: bytes, length: str | None) -> None:
    headers = {} if length is None else {"Inference-Header-Content-Length": length}
    answer = client.post(INFER, content=body, headers=headers)
    assert answer.status_code == 400
    assert list(answer.json()) == ["error", "request_id"]


@pytest.mark.parametrize("name", sorted(DATATYPES))
@pytest.mark.parametrize("binary", [False, True])
def test_every_datatype_survives_the_way_there_and_back(name: str, binary: bool) -> None:
    array = np.array([[0, 1], [1, 0], [1, 1]]).astype(DATATYPES[name])
    wish = InferenceRequest.model_validate(
        {"inputs": [{"name": "x", "shape": [1], "datatype": "FP32"}], "parameters": {"binary_data_output": binary}}
    )
    body, length = encode(wish, {"y": array}, "m", "1")
    content = json.loads(body[:length])
    content["inputs"] = content.pop("outputs")
    header = json.dumps(content).encode()
    decoded = decode(header + (b"" if length is None else body[length:]), len(header) if binary else None)
    np.testing.assert_array_equal(decoded.inputs["y"], array)
    assert decoded.inputs["y"].dtype == array.dtype


def test_binary_bytes_that_no_input_names_are_refused() -> None:
    header = json.dumps({"inputs": [{"name": "x", "shape": [1], "datatype": "UINT8", "data": [1]}]}).encode()
    with pytest.raises(ProtocolError, match="3 bytes follow"):
        decode(header + b"abc", len(header))
