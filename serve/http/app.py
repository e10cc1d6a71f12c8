"""The HTTP surface put together: routes, access, shapes of errors. Knows a `Backend`, not Ray.

`create_app(settings, backend, metrics, spool)` gives the FastAPI application; the ingress deployment runs it, and tests
run it in their own process. Errors are `{"error": "...", "request_id": "..."}` with a 4xx status, 503 or 507 with
`Retry-After`, or 500 where the fault is ours.
"""

from __future__ import annotations

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError, WebSocketRequestValidationError
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware

from serve.errors import Refusal, answer_refusal, problem
from serve.http import schemas
from serve.http.access import Methods, guards_of
from serve.http.live import live
from serve.http.observed import Observed
from serve.http.operation import Exporter, health, page
from serve.http.operation import metrics as metrics_routes
from serve.http.rpc import serving_rpc
from serve.http.tensors import tensors
from serve.http.uploads import uploads
from serve.intake import Spool
from serve.observe import IngressMetrics
from serve.replicas import Backend
from serve.settings import Settings

_READABLE = ("X-Request-Id", "Retry-After", "Inference-Header-Content-Length")


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
        description='Facial action units and expressions from video. Errors: `{"error": "...", "request_id": "..."}`.',
        lifespan=serving_rpc(settings, backend, token),
        docs_url=None,
        redoc_url=None,
        responses=schemas.problems(400, 401, 403),
    )
    app.add_exception_handler(Refusal, answer_refusal)
    app.add_exception_handler(HTTPException, _http_error)
    app.add_exception_handler(RequestValidationError, _validation_error)
    app.add_exception_handler(WebSocketRequestValidationError, _validation_error)
    app.add_middleware(Methods, routes=app)
    if settings.origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=list(settings.origins),
            allow_methods=["GET", "POST"],
            allow_headers=["Authorization", "Content-Type", "Inference-Header-Content-Length", "X-Request-Id"],
            expose_headers=list(_READABLE),
        )
    app.add_middleware(Observed, metrics=metrics)
    guards = guards_of(token, settings.hosts, settings.origins)
    app.include_router(page())
    app.include_router(health(backend))
    app.include_router(uploads(settings, backend, metrics, spool, guards))
    app.include_router(live(settings, backend, metrics, guards))
    app.include_router(tensors(settings, backend, guards))
    if exporter is not None:
        app.include_router(metrics_routes(exporter), dependencies=guards())
    return app


async def _http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return problem(request.scope["state"], error.status_code, str(error.detail), dict(error.headers or {}))


async def _validation_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError | WebSocketRequestValidationError)
    first = error.errors()[0]
    return await answer_refusal(request, Refusal(422, f"{'.'.join(map(str, first['loc']))}: {first['msg']}"))
