"""Routes of the Open Inference Protocol: metadata, readiness, tensors in and out."""

from __future__ import annotations

import asyncio
from typing import Any

from fastapi import APIRouter, Request, Response

from serve.errors import Refusal
from serve.http import formats, schemas
from serve.http.deadline import until
from serve.intake import read_body
from serve.protocol import ProtocolError, decode, encode
from serve.replicas import Backend
from serve.settings import Settings


def tensors(settings: Settings, backend: Backend) -> APIRouter:
    router = APIRouter(prefix="/v2", tags=["Open Inference Protocol"])
    here = f"/models/{settings.name}"

    @router.get("", response_model=schemas.ServerMetadata)
    async def server() -> dict[str, Any]:
        """Server metadata."""
        return {"name": "ssm", "version": "1", "extensions": ["binary_tensor_data"]}

    @router.get(here, response_model=schemas.ModelMetadata, responses=schemas.problems(503))
    async def metadata() -> dict[str, Any]:
        """Model metadata: tensors and their labels."""
        model = (await backend.describe()).description
        size, labels = model.preprocessing.image_size, model.vocabulary
        aus, expressions = len(labels.aus), len(labels.expressions)
        units, names = list(labels.au_codes), list(labels.expressions)
        return {
            "name": settings.name,
            "versions": [model.version],
            "platform": "pytorch_ssm",
            "inputs": [_tensor("clips", "UINT8", [-1, model.frames, size, size, 3])],
            "outputs": [
                _tensor("au_probability", "FP32", [-1, model.frames, aus], aus=units),
                _tensor("expression_probability", "FP32", [-1, expressions], expressions=names),
                _tensor("why", "FP32", [-1, expressions, aus], expressions=names, aus=units),
            ],
        }

    @router.get(f"{here}/ready", response_model=schemas.ModelReady, responses=schemas.problems(503))
    async def ready() -> dict[str, Any]:
        """Whether the model answers."""
        await backend.describe()
        return {"name": settings.name, "ready": True}

    @router.post(
        f"{here}/infer",
        responses={200: schemas.TENSOR_ANSWER, **schemas.problems(400, 408, 413, 415, 503, 504)},
        openapi_extra=schemas.TENSORS,
    )
    async def infer(request: Request) -> Response:
        """Tensors in, tensors out: `clips` are uint8 face crops as the model's preprocessing makes them."""
        async with until(asyncio.get_running_loop().time() + settings.limits.request_s):
            body = await read_body(request, settings.limits.tensor_bytes, settings.limits.idle_s)
            try:
                return await _infer(settings.name, backend, body, _header_length(request))
            except ProtocolError as error:
                raise Refusal(400, str(error)) from None

    return router


async def _infer(name: str, backend: Backend, body: bytes, header_length: int | None) -> Response:
    decoded = await asyncio.to_thread(decode, body, header_length)
    if set(decoded.inputs) != {"clips"}:
        raise ProtocolError(f"inputs are {', '.join(map(repr, decoded.inputs))}: the model takes 'clips'")
    reading = await backend.read(decoded.inputs["clips"])
    answers = reading.answers
    outputs = {
        "au_probability": answers.au_probability,
        "expression_probability": answers.expression,
    }
    if answers.why is not None:
        outputs["why"] = answers.why
    content, json_length = encode(decoded.request, outputs, name, reading.version)
    if json_length is None:
        return Response(content, media_type=formats.JSON)
    headers = {"Inference-Header-Content-Length": str(json_length)}
    return Response(content, media_type="application/octet-stream", headers=headers)


def _header_length(request: Request) -> int | None:
    text = request.headers.get("inference-header-content-length")
    if text is None:
        return None
    if not (text.isascii() and text.isdigit() and len(text) < 12):
        raise Refusal(400, "Inference-Header-Content-Length must be a whole number of bytes")
    return int(text)


def _tensor(name: str, kind: str, shape: list[int], **labels: list[str]) -> dict[str, Any]:
    return {"name": name, "datatype": kind, "shape": shape, "parameters": labels}
