"""The Open Inference Protocol over gRPC, beside HTTP in the ingress replicas, where setting `grpc` names an address.

The same limits, places and token (`authorization` metadata) as `/v2`; errors are gRPC's own codes.
"""

from __future__ import annotations

import asyncio
import hmac
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import grpc
import numpy as np
from fastapi import FastAPI
from numpy.typing import NDArray

from serve.errors import Refusal
from serve.http.tensors import current, model_metadata, outputs_of, server_metadata
from serve.intake import Places
from serve.protocol import MESSAGES, SERVICE
from serve.replicas import Backend
from serve.settings import Settings

_CODES = {
    400: grpc.StatusCode.INVALID_ARGUMENT,
    401: grpc.StatusCode.UNAUTHENTICATED,
    404: grpc.StatusCode.NOT_FOUND,
    413: grpc.StatusCode.RESOURCE_EXHAUSTED,
    503: grpc.StatusCode.UNAVAILABLE,
    504: grpc.StatusCode.DEADLINE_EXCEEDED,
}
Answer = Callable[[Any], Awaitable[Any]]


def serving_rpc(settings: Settings, backend: Backend, token: str | None) -> Callable[[FastAPI], Any]:
    """A lifespan of the application: the gRPC server runs while it does."""

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        if settings.grpc is None:
            yield
            return
        server = _server(settings, backend, token)
        await server.start()
        try:
            yield
        finally:
            await server.stop(grace=1)

    return lifespan


def _server(settings: Settings, backend: Backend, token: str | None) -> Any:
    places = max(1, settings.ingress.ongoing // 4)
    rpc = Rpc(settings, backend, Places("tensor requests", places))
    handlers = {
        name: grpc.unary_unary_rpc_method_handler(
            _guarded(answer, token),
            request_deserializer=MESSAGES[f"{name}Request"].FromString,
            response_serializer=lambda message: message.SerializeToString(),
        )
        for name, answer in rpc.methods().items()
    }
    server = grpc.aio.server(
        handlers=[grpc.method_handlers_generic_handler(SERVICE, handlers)],
        options=[("grpc.max_receive_message_length", settings.limits.tensor_bytes)],
        maximum_concurrent_rpcs=2 * places,
    )
    server.add_insecure_port(settings.grpc)
    return server


def _guarded(answer: Answer, token: str | None) -> Callable[[Any, Any], Awaitable[Any]]:
    async def checked(request: Any, context: Any) -> Any:
        try:
            given = dict(context.invocation_metadata()).get("authorization", "")
            scheme, _, secret = str(given).partition(" ")
            good = scheme.lower() == "bearer" and hmac.compare_digest(secret.strip().encode(), (token or "").encode())
            if token is not None and not good:
                raise Refusal(401, "a bearer token is needed: send the metadata authorization: Bearer ...")
            return await answer(request)
        except Refusal as refusal:
            await context.abort(_CODES.get(refusal.status, grpc.StatusCode.INTERNAL), refusal.message)

    return checked


class Rpc:
    """The methods of the service."""

    def __init__(self, settings: Settings, backend: Backend, places: Places) -> None:
        self._settings, self._backend, self._places = settings, backend, places

    def methods(self) -> dict[str, Answer]:
        """By the protocol's names."""
        return {
            "ServerLive": self.server_live,
            "ServerReady": self.server_ready,
            "ModelReady": self.model_ready,
            "ServerMetadata": self.server_metadata,
            "ModelMetadata": self.model_metadata,
            "ModelInfer": self.infer,
        }

    async def server_live(self, _: Any) -> Any:
        """Whether the server answers."""
        return MESSAGES["ServerLiveResponse"](live=True)

    async def server_ready(self, _: Any) -> Any:
        """Whether the model answers."""
        await self._backend.describe()
        return MESSAGES["ServerReadyResponse"](ready=True)

    async def model_ready(self, request: Any) -> Any:
        """Whether this model, and this version where one is named, answers."""
        try:
            await self._model(request.name, request.version)
        except Refusal:
            return MESSAGES["ModelReadyResponse"](ready=False)
        return MESSAGES["ModelReadyResponse"](ready=True)

    async def server_metadata(self, _: Any) -> Any:
        """Server metadata."""
        return MESSAGES["ServerMetadataResponse"](**server_metadata())

    async def model_metadata(self, request: Any) -> Any:
        """Tensors of the model. Their labels are in `/v2/models/{name}`: gRPC's metadata have no place for them."""
        facts = model_metadata(self._settings, await self._model(request.name, request.version))
        for tensor in (*facts["inputs"], *facts["outputs"]):
            del tensor["parameters"]
        return MESSAGES["ModelMetadataResponse"](**facts)

    async def infer(self, request: Any) -> Any:
        """Tensors in, tensors out, as raw bytes."""
        with self._places.one():
            await self._model(request.model_name, request.model_version)
            clips = _clips(request)
            if len(clips) > self._settings.limits.clips:
                raise Refusal(413, f"{len(clips)} clips, at most {self._settings.limits.clips} are accepted")
            try:
                async with asyncio.timeout(self._settings.limits.request_s):
                    reading = await self._backend.read(clips)
            except TimeoutError:
                raise Refusal(504, "the time limit of a request was reached") from None
        arrays = outputs_of(self._settings, reading)
        wanted = [output.name for output in request.outputs] or list(arrays)
        unknown = [name for name in wanted if name not in arrays]
        if unknown:
            raise Refusal(400, f"unknown output {unknown[0]!r}; known: {', '.join(arrays)}")
        return MESSAGES["ModelInferResponse"](
            model_name=self._settings.name,
            model_version=reading.version,
            id=request.id,
            outputs=[{"name": name, "datatype": "FP32", "shape": arrays[name].shape} for name in wanted],
            raw_output_contents=[np.ascontiguousarray(arrays[name], "<f4").tobytes() for name in wanted],
        )

    async def _model(self, name: str, version: str) -> Any:
        if name != self._settings.name:
            raise Refusal(404, f"model {name[:100]!r} is not served; {self._settings.name} is")
        if version:
            return await current(self._backend, version)
        return (await self._backend.describe()).description


def _clips(request: Any) -> NDArray[Any]:
    """The one input. Refusal (400) where bytes, type and shape do not fit together."""
    if [tensor.name for tensor in request.inputs] != ["clips"]:
        raise Refusal(400, "the model takes one input, 'clips'")
    (tensor,), shape = request.inputs, tuple(request.inputs[0].shape)
    if tensor.datatype != "UINT8" or not shape or min(shape) < 0:
        raise Refusal(400, f"input 'clips': {tensor.datatype} {list(shape)}: must be UINT8 [B, T, S, S, 3]")
    raw, plain = request.raw_input_contents, tensor.contents.uint_contents
    try:
        return (np.frombuffer(raw[0], np.uint8) if raw else np.array(plain, np.uint8)).reshape(shape)
    except (ValueError, OverflowError) as error:
        raise Refusal(400, f"input 'clips': {error}") from None
