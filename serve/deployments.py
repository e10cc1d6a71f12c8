"""The three deployments as Serve sees them: thin shells around plain classes, and their options from the settings."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

from fastapi import FastAPI
from ray import serve
from ray.serve.handle import DeploymentHandle

from serve.errors import Refusal
from serve.http import create_app
from serve.intake import Spool
from serve.observe import IngressMetrics, Trace, cluster_metrics, span, start_traces
from serve.replicas import Asked, HandleBackend, Inference, ModelCalls, Said, Served, Upload, VideoAnalysis, at_hand
from serve.settings import Settings
from ssm_platform.cluster import KEEPS

_DRAIN_LOOP_S = 0.5
_HEALTH = {"health_check_period_s": 5, "health_check_timeout_s": 60}


class Model(Inference):
    """The model deployment."""

    def __init__(self, settings: Settings) -> None:
        start_traces(settings.traces)
        super().__init__(settings)


class Video:
    """The video deployment."""

    def __init__(self, settings: Settings, inference: DeploymentHandle[Any]) -> None:
        start_traces(settings.traces)
        model = ModelCalls(inference, settings.limits.request_s)  # an upload that is here already is worth a wait
        self._analysis = VideoAnalysis(settings, model.read, model.where, model.describe)
        self._spool = Spool(settings.scratch, settings.limits.spool_bytes)

    async def analyse(
        self, upload: Upload, asked: Asked, served: Served | None, trace: Trace | None = None
    ) -> AsyncIterator[Said]:
        """Start, then rows, windows and heat maps, or a refusal. `trace`: the caller's span, where there is one."""
        try:
            with span("video", trace):
                async with at_hand(upload, self._spool) as paths:
                    async for said in self._analysis.analyse(paths, asked, served):
                        yield said
        except Refusal as refusal:  # no room for it on this machine
            yield refusal

    async def check_health(self) -> None:
        """Raises where uploads cannot be decoded: Serve replaces this replica then."""
        await self._analysis.check_health()

    def __del__(self) -> None:
        if hasattr(self, "_spool"):
            self._spool.close()


class Ingress:
    """The HTTP deployment."""

    def __init__(
        self, settings: Settings, token: str | None, video: DeploymentHandle[Any], inference: DeploymentHandle[Any]
    ) -> None:
        self._settings, self._token = settings, token
        self._backend = HandleBackend(inference, video, settings.limits.patience_s)
        self._spool = Spool(settings.scratch, settings.limits.spool_bytes)

    def __serve_build_asgi_app__(self) -> FastAPI:
        start_traces(self._settings.traces)
        return create_app(self._settings, self._backend, IngressMetrics(), self._spool, self._token, cluster_metrics)

    def __del__(self) -> None:
        if hasattr(self, "_spool"):
            self._spool.close()


def application(settings: Settings, token: str | None) -> serve.Application:
    """The application: ingress -> video -> model, ingress -> model."""
    drain: dict[str, Any] = {
        "graceful_shutdown_timeout_s": settings.limits.request_s,
        "graceful_shutdown_wait_loop_s": _DRAIN_LOOP_S,
        "logging_config": {
            "enable_access_log": False
        },  # requests are counted; a line for each costs as much as its work
        **_HEALTH,
    }
    model: dict[str, Any] = {"user_config": {"model": settings.model}}
    inference = serve.deployment(name="model", **model, **settings.inference.options(KEEPS), **drain)(Model)
    video = serve.deployment(name="video", **settings.video.options(), **drain)(Video)
    ingress = serve.deployment(name="ingress", **settings.ingress.options(), **drain)(serve.ingress()(Ingress))
    answering = inference.bind(settings)
    return ingress.bind(settings, token, video.bind(settings, answering), answering)
