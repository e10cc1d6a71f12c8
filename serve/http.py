"""The HTTP surface: routes, access, limits, shapes of answers. Knows a `Backend`, not Ray.

`create_app(settings, backend, metrics, spool)` gives the FastAPI application; the ingress deployment runs it, and tests
run it in their own process. Errors are `{"error": "..."}` with a 4xx status, or 503 with `Retry-After`.
"""

from __future__ import annotations

import asyncio
import hmac
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from importlib import resources
from typing import Annotated, Any

from fastapi import APIRouter, Depends, FastAPI, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, StreamingResponse
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serve import formats, schemas
from serve.backend import Backend
from serve.errors import Refusal, answer_refusal
from serve.metrics import IngressMetrics
from serve.protocol import ProtocolError, decode, encode
from serve.settings import Settings
from serve.spool import Spool
from serve.upload import read_body, read_files
from serve.video import Said, Start
from ssm_platform.read import Faces, Row, Window, csv_header

Exporter = Callable[[], Awaitable[bytes]]
PAGE = {
    "": ("index.html", "text/html; charset=utf-8"),
    "docs": ("docs.html", "text/html; charset=utf-8"),
    "docs.js": ("docs.js", "text/javascript"),
    "page.css": ("page.css", "text/css"),
    "page.js": ("page.js", "text/javascript"),
    "stream.js": ("stream.js", "text/javascript"),
    "charts.js": ("charts.js", "text/javascript"),
}
_PAGE_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' blob: data:; "
    "media-src blob:; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
)


def create_app(
    settings: Settings,
    backend: Backend,
    metrics: IngressMetrics,
    spool: Spool,
    token: str | None = None,
    exporter: Exporter | None = None,
) -> FastAPI:
    """The application. `token`: what clients must send; `exporter`: the text of `/metrics`, where there is one."""
    app = FastAPI(
        title="SSM",
        version="1",
        description='Facial action units and expressions from video. Errors are `{"error": "..."}`.',
        docs_url=None,
        redoc_url=None,
        responses=schemas.problems(401),
    )
    app.add_exception_handler(Refusal, answer_refusal)
    app.add_exception_handler(HTTPException, _http_error)
    app.add_exception_handler(RequestValidationError, _validation_error)
    app.add_middleware(_Counted, metrics=metrics)
    guarded = [Depends(_access(token))]
    app.include_router(_page())
    app.include_router(_health(backend))
    app.include_router(_uploads(settings, backend, metrics, spool), dependencies=guarded)
    app.include_router(_tensors(settings, backend), dependencies=guarded)
    if exporter is not None:
        app.include_router(_metrics(exporter), dependencies=guarded)
    return app


def _uploads(settings: Settings, backend: Backend, metrics: IngressMetrics, spool: Spool) -> APIRouter:
    router = APIRouter(prefix="/v1", tags=["video"])

    @router.get("/model", response_model=schemas.Model, responses=schemas.problems(503))
    async def model() -> dict[str, Any]:
        """The model that is served: its labels and its rule."""
        return formats.model_facts(settings.name, (await backend.describe()).description)

    @router.post(
        "/predict",
        responses={200: schemas.ANSWER, **schemas.problems(400, 406, 408, 413, 415, 422, 503, 504)},
        openapi_extra=schemas.UPLOAD,
    )
    async def predict(
        request: Request,
        faces: Annotated[Faces, Query(description="all faces, or the main person")] = settings.faces,
    ) -> Response:
        """Read a video, or pictures: AUs and expressions per face and frame, as JSON, lines of JSON or CSV."""
        kind = formats.negotiate(request.headers.get("accept"))
        deadline = asyncio.get_running_loop().time() + settings.limits.request_s
        async with AsyncExitStack() as stack:
            folder = stack.enter_context(spool.request())
            with metrics.stage("upload"):
                async with _until(deadline):
                    files = await read_files(request, folder, settings.limits)
            answer = _Answer(settings, backend.analyse([file.path for file in files], faces), kind, deadline)
            stack.push_async_callback(answer.close)
            await answer.begin()
            if kind == formats.JSON:
                return Response(await answer.document(), media_type=kind)
            return _Streamed(answer.body(), media_type=kind, stack=stack.pop_all())

    return router


class _Answer:
    """The answer to one upload, from what the backend says."""

    def __init__(self, settings: Settings, said: AsyncIterator[Said], kind: str, deadline: float) -> None:
        self._settings, self._said, self._kind, self._deadline = settings, said, kind, deadline

    async def begin(self) -> None:
        """Wait for the start, so that a refusal still becomes a status."""
        start = await self._next()
        assert isinstance(start, Start)
        self._start, self._model = start, start.served.description
        most = self._settings.limits.json_frames
        if self._kind == formats.JSON and start.info.frames > most:
            hint = f"ask for {formats.LINES} or {formats.CSV}"
            raise Refusal(
                413, f"{start.info.frames} frames are too many for one JSON document (at most {most}); {hint}"
            )

    async def document(self) -> bytes:
        """Everything, as one JSON document."""
        results: list[Row | Window] = []
        while (more := await self._next()) is not None:
            assert isinstance(more, list)
            results += more
        return formats.document(self._settings.name, self._start, results)

    async def body(self) -> AsyncIterator[str]:
        """The answer as it comes. A late error is the last line; CSV has no place for one, so its stream breaks."""
        if self._kind == formats.LINES:
            yield formats.line("start", formats.start_facts(self._settings.name, self._start))
        else:
            yield csv_header(self._model.vocabulary)
        encode_results = formats.lines if self._kind == formats.LINES else formats.csv
        rows = 0
        try:
            while (more := await self._next()) is not None:
                assert isinstance(more, list)
                rows += sum(isinstance(result, Row) for result in more)
                yield encode_results(more, self._model)
        except Refusal as refusal:
            if self._kind != formats.LINES:
                raise
            yield formats.line("error", {"error": refusal.message})
            return
        if self._kind == formats.LINES:
            yield formats.line("end", {"rows": rows})

    async def close(self) -> None:
        """Stop the analysis, finished or not."""
        await self._said.aclose()  # type: ignore[attr-defined]

    async def _next(self) -> Start | list[Row | Window] | None:
        async with _until(self._deadline):
            said = await anext(self._said, None)
        if isinstance(said, Refusal):
            raise said
        return said


class _Streamed(StreamingResponse):
    """A stream that lets go of what it stands on, whether it was read to the end, broken off or never begun."""

    def __init__(self, body: AsyncIterator[str], media_type: str, stack: AsyncExitStack) -> None:
        super().__init__(body, media_type=media_type)
        self._stack = stack

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async with self._stack:
            await super().__call__(scope, receive, send)


class _until:
    """`async with _until(deadline)`: 504 where the block is not done by then."""

    def __init__(self, deadline: float) -> None:
        self._timeout = asyncio.timeout_at(deadline)

    async def __aenter__(self) -> None:
        await self._timeout.__aenter__()

    async def __aexit__(self, kind: Any, error: Any, at: Any) -> None:
        try:
            await self._timeout.__aexit__(kind, error, at)
        except TimeoutError:
            raise Refusal(504, "the time limit of a request was reached") from None


def _tensors(settings: Settings, backend: Backend) -> APIRouter:
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
        async with _until(asyncio.get_running_loop().time() + settings.limits.request_s):
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


def _health(backend: Backend) -> APIRouter:
    router = APIRouter(prefix="/v2/health", tags=["Open Inference Protocol"])

    @router.get("/live", response_model=schemas.Live)
    async def live() -> dict[str, bool]:
        """Whether the server answers."""
        return {"live": True}

    @router.get("/ready", response_model=schemas.Ready, responses=schemas.problems(503))
    async def ready() -> dict[str, bool]:
        """Whether the model answers."""
        await backend.describe()
        return {"ready": True}

    return router


def _page() -> APIRouter:
    router = APIRouter(include_in_schema=False)
    folder = resources.files("serve") / "page"
    for path, (name, kind) in PAGE.items():
        router.add_api_route(f"/{path}", _static((folder / name).read_bytes(), kind), methods=["GET"])
    return router


def _static(content: bytes, kind: str) -> Callable[[], Awaitable[Response]]:
    headers = {
        "Content-Security-Policy": _PAGE_POLICY,
        "X-Content-Type-Options": "nosniff",
        "Referrer-Policy": "no-referrer",
        "Cache-Control": "no-cache",
    }

    async def answer() -> Response:
        return Response(content, media_type=kind, headers=headers)

    return answer


def _metrics(exporter: Exporter) -> APIRouter:
    router = APIRouter(tags=["operation"])

    @router.get("/metrics", responses={200: {"content": {"text/plain": {}}}, **schemas.problems(503)})
    async def metrics() -> Response:
        """This machine's metrics of the service, in Prometheus' format."""
        return Response(await exporter(), media_type="text/plain; version=0.0.4")

    return router


def _access(token: str | None) -> Callable[[Request], Awaitable[None]]:
    async def check(request: Request) -> None:
        if token is None:
            return
        scheme, _, given = request.headers.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not hmac.compare_digest(given.strip().encode(), token.encode()):
            raise Refusal(401, "a bearer token is needed: send Authorization: Bearer ...")

    return check


class _Counted:
    """ASGI middleware: count requests and their time to the end of the answer."""

    def __init__(self, app: ASGIApp, metrics: IngressMetrics) -> None:
        self._app, self._metrics = app, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        start, status = time.perf_counter(), 500

        async def watch(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, watch)
        finally:
            route = getattr(scope.get("route"), "path", "other")
            self._metrics.answered(route, status, time.perf_counter() - start)


async def _http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return JSONResponse({"error": str(error.detail)}, error.status_code, error.headers)


async def _validation_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    first = error.errors()[0]
    return JSONResponse({"error": f"{'.'.join(map(str, first['loc']))}: {first['msg']}"}, 422)
