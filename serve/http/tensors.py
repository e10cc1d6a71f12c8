"""Routes of the Open Inference Protocol: metadata, readiness and inference, of the model and of its version by name."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from fastapi import APIRouter, Request, Response
from numpy.typing import NDArray

from serve.errors import Refusal
from serve.http import formats, schemas
from serve.http.access import Guards
from serve.http.deadline import until
from serve.intake import Budget, Places, declared_bytes, read_body
from serve.protocol import InferenceRequest, ProtocolError, decode, encode
from serve.replicas import Backend, Reading
from serve.settings import Settings
from ssm_platform.models import ModelDescription


class Admission:
    """Who may send tensors now: a quarter of the ingress at most, and memory for the body before it is read."""

    def __init__(self, settings: Settings) -> None:
        self._limits = settings.limits
        self._places = Places("tensor requests", max(1, settings.ingress.ongoing // 4))
        self._memory = Budget("memory for tensors", settings.limits.tensor_memory)

    @asynccontextmanager
    async def body(self, request: Request) -> AsyncIterator[tuple[bytes, int | None]]:
        """The body and the length of its JSON part, for as long as the block works on it."""
        limits, header = self._limits, _header_length(request)
        limit = limits.tensor_json_bytes if header is None else limits.tensor_bytes
        if header is not None and header > limits.tensor_json_bytes:
            raise Refusal(413, _too_much_json(header, limits.tensor_json_bytes))
        try:
            size = declared_bytes(request, limit)
        except Refusal as refusal:
            if refusal.status != 413 or header is not None:
                raise
            raise Refusal(413, _too_much_json(None, limits.tensor_json_bytes)) from None
        with self._places.one(), self._memory.reserved(size):
            yield await read_body(request, limit, limits), header


def tensors(settings: Settings, backend: Backend, guards: Guards) -> APIRouter:
    """`/v2` but its health."""
    router = APIRouter(prefix="/v2", tags=["Open Inference Protocol"], dependencies=guards())
    _add_metadata(router, settings, backend)
    _add_inference(router, settings, backend)
    return router


def _add_metadata(router: APIRouter, settings: Settings, backend: Backend) -> None:
    name = settings.name
    here = f"/models/{name}"
    versioned = here + "/versions/{version}"

    @router.get("", response_model=schemas.ServerMetadata)
    async def server() -> dict[str, Any]:
        """Server metadata."""
        return server_metadata()

    @router.post("/repository/index", response_model=list[schemas.IndexEntry], responses=schemas.problems(503))
    async def index() -> list[dict[str, str]]:
        """The models that are served: one."""
        version = (await backend.describe()).description.version
        return [{"name": name, "version": version, "state": "READY", "reason": ""}]

    @router.get(here, response_model=schemas.ModelMetadata, responses=schemas.problems(503))
    async def metadata() -> dict[str, Any]:
        """Model metadata: tensors and their labels."""
        return model_metadata(settings, (await backend.describe()).description)

    @router.get(versioned, response_model=schemas.ModelMetadata, responses=schemas.problems(404, 503))
    async def version_metadata(version: str) -> dict[str, Any]:
        """Metadata of the version that is served."""
        return model_metadata(settings, await current(backend, version))

    @router.get(here + "/ready", response_model=schemas.ModelReady, responses=schemas.problems(503))
    async def ready() -> dict[str, Any]:
        """Whether the model answers."""
        await backend.describe()
        return {"name": name, "ready": True}

    @router.get(versioned + "/ready", response_model=schemas.ModelReady, responses=schemas.problems(404, 503))
    async def version_ready(version: str) -> dict[str, Any]:
        """Whether this version answers."""
        await current(backend, version)
        return {"name": name, "ready": True}


def _add_inference(router: APIRouter, settings: Settings, backend: Backend) -> None:
    here, admission = f"/models/{settings.name}", Admission(settings)
    answers: dict[str, Any] = {
        "responses": {200: schemas.TENSOR_ANSWER, **schemas.problems(404, 408, 413, 415, 503, 504)},
        "openapi_extra": schemas.TENSORS,
    }

    @router.post(here + "/infer", **answers)
    async def infer(request: Request) -> Response:
        """Tensors in, tensors out: `clips` are uint8 face crops as the model's preprocessing makes them."""
        return await answer(request, None)

    @router.post(here + "/versions/{version}/infer", **answers)
    async def version_infer(request: Request, version: str) -> Response:
        """The same of this version."""
        return await answer(request, version)

    async def answer(request: Request, version: str | None) -> Response:
        async with until(asyncio.get_running_loop().time() + settings.limits.request_s):
            if version is not None:
                await current(backend, version)
            async with admission.body(request) as (body, header):
                try:
                    return await _infer(settings, backend, request, body, header)
                except ProtocolError as error:
                    raise Refusal(400, str(error)) from None


def server_metadata() -> dict[str, Any]:
    """What the server is."""
    return {"name": "ssm", "version": "1", "extensions": ["binary_tensor_data", "model_repository"]}


async def current(backend: Backend, version: str) -> ModelDescription:
    """What is served, which must be this version: 404 for another one."""
    model = (await backend.describe()).description
    if version != model.version:
        raise Refusal(404, f"version {version[:100]!r} is not served; {model.version} is")
    return model


def model_metadata(settings: Settings, model: ModelDescription) -> dict[str, Any]:
    """Tensors of a model, and their labels; of what is not switched off."""
    model = model.shown(settings.expressions, model.evidence)
    size, labels = model.preprocessing.image_size, model.vocabulary
    aus, expressions = len(labels.aus), len(labels.expressions)
    units, names = list(labels.au_codes), list(labels.expressions)
    outputs = [_tensor("au_probability", "FP32", [-1, model.frames, aus], aus=units)]
    if names:
        outputs += [
            _tensor("expression_probability", "FP32", [-1, expressions], expressions=names),
            _tensor("why", "FP32", [-1, expressions, aus], expressions=names, aus=units),
        ]
    if model.evidence:
        outputs.append(_tensor("au_uncertainty", "FP32", [-1, model.frames, aus], aus=units))
    if labels.affect:
        outputs.append(_tensor("affect", "FP32", [-1, model.frames, 2], affect=list(labels.affect)))
    return {
        "name": settings.name,
        "versions": [model.version],
        "platform": "pytorch_ssm",
        "inputs": [_tensor("clips", "UINT8", [-1, model.frames, size, size, 3])],
        "outputs": outputs,
    }


async def _infer(settings: Settings, backend: Backend, request: Request, body: bytes, header: int | None) -> Response:
    decoded = await asyncio.to_thread(decode, body, header)
    if set(decoded.inputs) != {"clips"}:
        raise ProtocolError(f"inputs are {', '.join(map(repr, decoded.inputs))}: the model takes 'clips'")
    clips = decoded.inputs["clips"]
    if clips.ndim and len(clips) > settings.limits.clips:
        raise Refusal(413, f"{len(clips)} clips in one request, at most {settings.limits.clips} are accepted")
    reading = await backend.read(clips)
    request.scope["state"]["model_version"] = reading.version
    return await asyncio.to_thread(_answered, settings, decoded.request, reading)


def outputs_of(settings: Settings, reading: Reading) -> dict[str, NDArray[Any]]:
    """A reading by the names of the protocol's outputs; of what is not switched off."""
    answers = reading.answers
    outputs = {"au_probability": answers.au_probability}
    if answers.au_uncertainty is not None:
        outputs["au_uncertainty"] = answers.au_uncertainty
    if settings.expressions == "on":
        named = {"expression_probability": answers.expression, "why": answers.why, "affect": answers.affect}
        outputs |= {name: values for name, values in named.items() if values is not None}
    return outputs


def _answered(settings: Settings, asked: InferenceRequest, reading: Reading) -> Response:
    content, json_length = encode(asked, outputs_of(settings, reading), settings.name, reading.version)
    if json_length is None:
        return Response(content, media_type=formats.JSON)
    headers = {"Inference-Header-Content-Length": str(json_length)}
    return Response(content, media_type="application/octet-stream", headers=headers)


def _too_much_json(given: int | None, most: int) -> str:
    said = "more" if given is None else f"{given}"
    return f"{said} bytes of JSON, at most {most} are accepted: send tensors by the binary extension"


def _header_length(request: Request) -> int | None:
    text = request.headers.get("inference-header-content-length")
    if text is None:
        return None
    if not (text.isascii() and text.isdigit() and len(text) < 12):
        raise Refusal(400, "Inference-Header-Content-Length must be a whole number of bytes")
    return int(text)


def _tensor(name: str, kind: str, shape: list[int], **labels: list[str]) -> dict[str, Any]:
    return {"name": name, "datatype": kind, "shape": shape, "parameters": labels}
