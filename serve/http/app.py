"""The HTTP surface put together: routes, access, shapes of errors. Knows a `Backend`, not Ray.

`create_app(settings, backend, metrics, spool)` gives the FastAPI application; the ingress deployment runs it, and tests
run it in their own process. Errors are `{"error": "..."}` with a 4xx status, or 503 with `Retry-After`.
"""

from __future__ import annotations

from fastapi import Depends, FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from serve.errors import Refusal, answer_refusal
from serve.http import schemas
from serve.http.access import Counted, access
from serve.http.operation import Exporter, health, page
from serve.http.operation import metrics as metrics_routes
from serve.http.tensors import tensors
from serve.http.uploads import uploads
from serve.intake import Spool
from serve.observe import IngressMetrics
from serve.replicas import Backend
from serve.settings import Settings


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
    app.add_middleware(Counted, metrics=metrics)
    guarded = [Depends(access(token))]
    app.include_router(page())
    app.include_router(health(backend))
    app.include_router(uploads(settings, backend, metrics, spool), dependencies=guarded)
    app.include_router(tensors(settings, backend), dependencies=guarded)
    if exporter is not None:
        app.include_router(metrics_routes(exporter), dependencies=guarded)
    return app


async def _http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return JSONResponse({"error": str(error.detail)}, error.status_code, error.headers)


async def _validation_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    first = error.errors()[0]
    return JSONResponse({"error": f"{'.'.join(map(str, first['loc']))}: {first['msg']}"}, 422)
