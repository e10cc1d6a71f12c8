"""Who is let in, before anything is read: the token, the Host header, origins, query parameters, HEAD and OPTIONS.

Without a token a page elsewhere could reach the service through a name that it points at this machine (DNS
rebinding), so a Host must then be an address, localhost, or one of `settings.hosts`. Browsers let any page open a
WebSocket anywhere, so there the Origin must be ours or one of `settings.origins`; and they send no header of ours with
it, so there the token may come as a subprotocol, `ssm.bearer.` and its base64url.
"""

from __future__ import annotations

import base64
import hmac
import ipaddress
from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress
from typing import Any, Protocol
from urllib.parse import urlsplit

from fastapi import Depends, FastAPI
from starlette.requests import HTTPConnection
from starlette.routing import Match
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serve.errors import Refusal

Check = Callable[[HTTPConnection], Awaitable[None]]
_TOKEN_PROTOCOL = "ssm.bearer."


class Guards(Protocol):
    """What stands before a route: `guards("faces")` for one that reads that query parameter."""

    def __call__(self, *query: str) -> list[Any]:
        """The dependencies of a route."""


def guards_of(token: str | None, hosts: Iterable[str], origins: Iterable[str]) -> Guards:
    """Host, origin, token and query parameters, in this order."""
    first = [Depends(named_host(token, hosts)), Depends(own_origin(origins)), Depends(bearer(token))]
    return lambda *query: [*first, Depends(known_query(*query))]


def bearer(token: str | None) -> Check:
    """A dependency: 401 unless the request carries the token."""

    async def check(request: HTTPConnection) -> None:
        if token is None:
            return
        if not hmac.compare_digest(_given_token(request), token.encode()):
            raise Refusal(401, "a bearer token is needed: send Authorization: Bearer ...")

    return check


def _given_token(request: HTTPConnection) -> bytes:
    """What the client says, empty where it says nothing."""
    scheme, _, given = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer":
        return given.strip().encode()
    for protocol in offered_protocols(request):
        if protocol.startswith(_TOKEN_PROTOCOL):
            text = protocol.removeprefix(_TOKEN_PROTOCOL)
            with suppress(ValueError):
                return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
    return b""


def offered_protocols(request: HTTPConnection) -> list[str]:
    """The subprotocols that a WebSocket's client offers; none for a request."""
    offers = request.headers.get("sec-websocket-protocol", "") if request.scope["type"] == "websocket" else ""
    return [offer.strip() for offer in offers.split(",") if offer.strip()]


def own_origin(origins: Iterable[str]) -> Check:
    """A dependency: 403 for a WebSocket that another site's page opens. Of requests the browser sees to it (CORS)."""
    known = set(origins)

    async def check(request: HTTPConnection) -> None:
        origin = request.headers.get("origin")
        if request.scope["type"] != "websocket" or origin is None or origin in known:
            return
        if urlsplit(origin).netloc.lower() != request.headers.get("host", "").lower():
            raise Refusal(403, f"the page {origin[:100]!r} may not ask this service; the setting `origins` names some")

    return check


def named_host(token: str | None, hosts: Iterable[str]) -> Check:
    """A dependency: 403 for a Host that is not ours, where no token tells clients apart."""
    known = {"localhost", *(host.lower() for host in hosts)}

    async def check(request: HTTPConnection) -> None:
        host = _host(request.headers.get("host", ""))
        if token is None and host not in known and not _is_address(host):
            raise Refusal(403, f"the Host {host[:100]!r} is not served here; the setting `hosts` names those that are")

    return check


def known_query(*names: str) -> Check:
    """A dependency: 400 for a query parameter that nobody reads, or that is given twice."""
    words = f"known: {', '.join(names)}" if names else "none is known here"

    async def check(request: HTTPConnection) -> None:
        given = [name for name, _ in request.query_params.multi_items()]
        for name in given:
            if name not in names:
                raise Refusal(400, f"unknown query parameter {name[:100]!r}; {words}")
            if given.count(name) > 1:
                raise Refusal(400, f"query parameter {name!r} is given {given.count(name)} times")

    return check


class Methods:
    """ASGI middleware: HEAD is GET without its body; OPTIONS names the methods of a path."""

    def __init__(self, app: ASGIApp, routes: FastAPI) -> None:
        self._app, self._routes = app, routes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["method"] == "OPTIONS" and (allowed := self._allowed(scope)):
            headers = [(b"allow", ", ".join(allowed).encode()), (b"content-length", b"0")]
            await send({"type": "http.response.start", "status": 204, "headers": headers})
            await send({"type": "http.response.body"})
        elif scope["type"] == "http" and scope["method"] == "HEAD" and "GET" in self._allowed(scope):
            await self._app({**scope, "method": "GET"}, receive, _without_body(send))
        else:
            await self._app(scope, receive, send)

    def _allowed(self, scope: Scope) -> list[str]:
        found = {method for method in ("GET", "POST") if self._answers({**scope, "method": method})}
        if not found:
            return []
        return sorted(found | {"OPTIONS"} | ({"HEAD"} if "GET" in found else set()))

    def _answers(self, scope: Scope) -> bool:
        return any(route.matches(scope)[0] is Match.FULL for route in self._routes.routes)


def _without_body(send: Send) -> Send:
    async def sent(message: Message) -> None:
        await send({**message, "body": b""} if message["type"] == "http.response.body" else message)

    return sent


def _host(header: str) -> str:
    """The name in a Host header, without its port."""
    name = header.strip().lower()
    if name.startswith("["):
        return name[1:].partition("]")[0]
    return name.partition(":")[0]


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True
