"""What the service refuses, and how: one exception, one JSON shape `{"error": "...", "request_id": "..."}`."""

from __future__ import annotations

import json
import secrets
from contextlib import suppress

from starlette.requests import HTTPConnection
from starlette.responses import JSONResponse, Response
from starlette.websockets import WebSocket, WebSocketDisconnect, WebSocketState

REASONS = {
    400: "malformed",
    401: "no_token",
    403: "forbidden",
    404: "not_found",
    405: "method",
    406: "not_acceptable",
    408: "slow_client",
    413: "too_large",
    415: "content_type",
    422: "unreadable",
    429: "too_fast",
    500: "fault",
    503: "busy",
    504: "time_limit",
    507: "no_space",
}
"""What metrics and logs call a status."""

_LONGEST_PAUSE_S = 4


class Refusal(Exception):
    """A request that is answered with an HTTP error. `message` is for the client: no path of ours, no trace."""

    def __init__(self, status: int, message: str, retry_after: int | None = None) -> None:
        super().__init__(status, message, retry_after)  # all three, so that it survives pickling between replicas
        self.status = status
        self.message = message
        self.retry_after = retry_after


def busy(what: str) -> Refusal:
    """503: a queue is full, or nothing answers just now. Clients are sent back at different times."""
    return Refusal(503, f"{what}; try again", retry_after=1 + secrets.randbelow(_LONGEST_PAUSE_S))


def problem(scope_state: dict[str, object], status: int, message: str, headers: dict[str, str]) -> JSONResponse:
    """An error as every client gets it; the reason is kept for the log line of the request."""
    scope_state["refused"] = message
    return JSONResponse({"error": message, "request_id": scope_state.get("request_id", "")}, status, headers)


async def answer_refusal(request: HTTPConnection, error: Exception) -> Response:
    """The exception handler for `Refusal`, of requests and of WebSockets."""
    assert isinstance(error, Refusal)
    headers = {}
    if error.retry_after is not None:
        headers["Retry-After"] = str(error.retry_after)
    if error.status == 401:
        headers["WWW-Authenticate"] = 'Bearer realm="ssm"'
    state = request.scope.setdefault("state", {})
    response = problem(state, error.status, error.message, headers)
    if isinstance(request, WebSocket):
        state["status"] = str(error.status)
        await _refuse_socket(request, error, response)
    return response


_CLOSED_AS = {413: 1009, 422: 1007, 500: 1011, 503: 1013, 507: 1013}
"""Close codes of RFC 6455 and its registry for our statuses; what is not here is 1008, a policy."""


async def _refuse_socket(socket: WebSocket, refusal: Refusal, response: JSONResponse) -> None:
    """Before a WebSocket is accepted an HTTP answer; afterwards a last message with the same words."""
    if socket.application_state is WebSocketState.CONNECTING:
        if "websocket.http.response" in socket.scope.get("extensions", {}):
            await socket.send_denial_response(response)
        else:
            await socket.close()
        return
    facts = {"type": "error", "status": refusal.status, "retry_after": refusal.retry_after}
    with suppress(WebSocketDisconnect):  # it left before it was told
        await socket.send_json({**facts, **json.loads(bytes(response.body))})
        await socket.close(_CLOSED_AS.get(refusal.status, 1008))
