"""Every request and WebSocket has an id, is counted and timed to the end of its answer, and leaves one line in the log.

An answer that broke off, or ended with an error line, is counted as `broken`, not by the status that went ahead. An
error that nobody foresaw is 500 in the one shape that errors have.
"""

from __future__ import annotations

import json
import logging
import re
import secrets
import time
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serve.errors import REASONS, problem
from serve.observe import IngressMetrics, span, told_by

_log = logging.getLogger("ray.serve.ssm")
_ID = re.compile(r"[\w.-]{1,64}", re.ASCII)
_QUIET = ("/v2/health", "/metrics")


class Observed:
    """ASGI middleware around everything else."""

    def __init__(self, app: ASGIApp, metrics: IngressMetrics) -> None:
        self._app, self._metrics = app, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        state = scope.setdefault("state", {})
        state["request_id"] = _request_id(scope)
        observed = self._request if scope["type"] == "http" else self._socket
        with self._metrics.open(), span("request", told_by(scope), state["request_id"]):
            await observed(scope, receive, send)

    async def _request(self, scope: Scope, receive: Receive, send: Send) -> None:
        state = scope["state"]
        answer = _Answer(send, state["request_id"])
        try:
            await self._app(scope, receive, answer.send)
        except Exception as error:
            _log.exception("request %s failed", state["request_id"])
            if answer.status:
                raise  # half of an answer is out: the connection breaks, so that nobody takes it for the whole
            await problem(state, 500, "an error on our side", {})(scope, receive, answer.send)
            state["refused"] = f"{type(error).__name__}: {error}"
        finally:
            broken = not answer.complete or bool(state.get("broken"))
            self._tell(scope, "broken" if broken else str(answer.status), answer.started, answer.size)

    async def _socket(self, scope: Scope, receive: Receive, send: Send) -> None:
        """`closed` is how a session ends that nothing was wrong with."""
        state, started = scope["state"], time.perf_counter()
        try:
            await self._app(scope, receive, send)
        except Exception as error:
            _log.exception("session %s failed", state["request_id"])
            state["status"], state["refused"] = "500", f"{type(error).__name__}: {error}"
            raise
        finally:
            self._tell(scope, state.get("status", "closed"), started, None)

    def _tell(self, scope: Scope, status: str, started: float, size: int | None) -> None:
        state, seconds = scope["state"], time.perf_counter() - started
        route, method = getattr(scope.get("route"), "path", "other"), scope.get("method", "WEBSOCKET")
        self._metrics.answered(route, status, seconds)
        refused = status == "broken" or (status.isdigit() and int(status) >= 400)
        if refused:
            reason = "broken_off" if status == "broken" else REASONS.get(int(status), status)
            self._metrics.refused(reason)
        if refused or (method in ("POST", "WEBSOCKET") and not scope["path"].startswith(_QUIET)):
            facts: dict[str, Any] = {
                "event": "refusal" if refused else "answer",
                "request_id": state["request_id"],
                "method": method,
                "route": route,
                "status": status,
                "seconds": round(seconds, 3),
                "bytes": size,
                "frames": state.get("frames"),
                "model_version": state.get("model_version"),
                "error": state.get("refused") or state.get("broken"),
            }
            _log.info(json.dumps({name: value for name, value in facts.items() if value is not None}))


class _Answer:
    """What went out."""

    def __init__(self, send: Send, request_id: str) -> None:
        self._send, self._id = send, request_id.encode()
        self.started, self.status, self.size, self.complete = time.perf_counter(), 0, 0, False

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            message = {**message, "headers": [*message.get("headers", ()), (b"x-request-id", self._id)]}
        await self._send(message)
        if message["type"] == "http.response.body":
            self.size += len(message.get("body", b""))
            self.complete = not message.get("more_body", False)


def _request_id(scope: Scope) -> str:
    """The one a proxy or client gave, where it is harmless; else a new one."""
    given = dict(scope["headers"]).get(b"x-request-id", b"").decode("latin-1")
    return given if _ID.fullmatch(given) else secrets.token_hex(8)
