"""Routes of operators and people: health, metrics, the page and its files."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from importlib import resources

from fastapi import APIRouter, Response

from serve.http import schemas
from serve.replicas import Backend

Exporter = Callable[[], Awaitable[bytes]]
SCRIPTS = ("page", "stream", "recording", "view", "now", "notes", "tables", "live", "charts", "where")
PAGE = {
    "": ("index.html", "text/html; charset=utf-8"),
    "docs": ("docs.html", "text/html; charset=utf-8"),
    "docs.js": ("docs.js", "text/javascript"),
    "page.css": ("page.css", "text/css"),
    **{f"{name}.js": (f"{name}.js", "text/javascript") for name in SCRIPTS},
}
_PAGE_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' blob: data:; "
    "media-src blob: mediastream:; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
)


def health(backend: Backend) -> APIRouter:
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


def page() -> APIRouter:
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
        "Permissions-Policy": "camera=(self), microphone=()",
    }

    async def answer() -> Response:
        return Response(content, media_type=kind, headers=headers)

    return answer


def metrics(exporter: Exporter) -> APIRouter:
    router = APIRouter(tags=["operation"])

    @router.get("/metrics", responses={200: {"content": {"text/plain": {}}}, **schemas.problems(503)})
    async def exported() -> Response:
        """This machine's metrics of the service, in Prometheus' format."""
        return Response(await exporter(), media_type="text/plain; version=0.0.4")

    return router
