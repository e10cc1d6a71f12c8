"""Who is let in, before anything is read: the token, the Host header, origins, query parameters, HEAD and OPTIONS.

Without a token a page elsewhere could reach the service through a name that it points at this machine (DNS
rebinding), so a Host must then be an address, localhost, or one of `settings.hosts`.
"""

from __future__ import annotations

import hmac
import ipaddress
from collections.abc import Awaitable, Callable, Iterable
from typing import Any, Protocol

from fastapi import Depends, FastAPI, Request
from starlette.routing import Match
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serve.errors import Refusal

Check = Callable[[Request], Awaitable[None]]


class Guards(Protocol):
    """What stands before a route: `guards("faces")` for one that reads that query parameter."""

    def __call__(self, *query: str) -> list[Any]:
        """The dependencies of a route."""


def guards_of(token: str | None, hosts: Iterable[str]) -> Guards:
    """Host, token and query parameters, in this order."""
    first = [Depends(named_host(token, hosts)), Depends(bearer(token))]
    return lambda *query: [*first, Depends(known_query(*query))]


def bearer(token: str | None) -> Check:
    """A dependency: 401 unless the request carries the token."""

    async def check(request: Request) -> None:
        if token is None:
            return
        scheme, _, given = request.headers.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not hmac.compare_digest(given.strip().encode(), token.encode()):
            raise Refusal(401, "a bearer token is needed: send Authorization: Bearer ...")

    return check


def named_host(token: str | None, hosts: Iterable[str]) -> Check:
    """A dependency: 403 for a Host that is not ours, where no token tells clients apart."""
    known = {"localhost", *(host.lower() for host in hosts)}

    async def check(request: Request) -> None:
        host = _host(request.headers.get("host", ""))
        if token is None and host not in known and not _is_address(host):
            raise Refusal(403, f"the Host {host[:100]!r} is not served here; the setting `hosts` names those that are")

    return check


def known_query(*names: str) -> Check:
    """A dependency: 400 for a query parameter that nobody reads, or that is given twice."""
    words = f"known: {', '.join(names)}" if names else "none is known here"

    async def check(request: Request) -> None:
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
