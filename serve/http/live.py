"""`/v1/live`: a camera's frames in over a WebSocket, an answer to each that there is time for.

    client: binary messages, a JPEG or WebP each; {"taken": n} when it has read n answers
    server: start, then frame after frame: rows, windows, how many were dropped; error where it ends the session

Nothing piles up on either side: a frame that comes while two are under way waits, and a newer one takes its place; and
no more than a few answers are sent that the client has not said it took. A frame that is refused is answered so and the
session goes on. What ends a session is said in the shape of every error, with its status, before the close.
"""

from __future__ import annotations

import asyncio
import json
from contextlib import aclosing
from typing import Annotated, Any

from fastapi import APIRouter, Query, WebSocket
from starlette.websockets import WebSocketDisconnect

from serve.errors import Refusal
from serve.http import formats
from serve.http.access import Guards, offered_protocols
from serve.http.deadline import until
from serve.http.shown import Switch, answered_of, shown_to
from serve.intake import Frame, Newest, Places
from serve.observe import IngressMetrics
from serve.replicas import Answered, Asked, Backend, CameraAnalysis
from serve.settings import Settings
from ssm_platform.models import Expressions, ModelDescription
from ssm_platform.read import Faces

PROTOCOL = "ssm.live"
"""The subprotocol's name; a browser offers it beside its token."""

UNTAKEN = 8
"""Answers that may be on their way to a client."""


def live(settings: Settings, backend: Backend, metrics: IngressMetrics, guards: Guards) -> APIRouter:
    """The route."""
    router = APIRouter(prefix="/v1")
    places = Places("cameras", settings.limits.live)

    @router.websocket("/live", dependencies=guards("faces", "expressions", "uncertainty"))
    async def live(
        socket: WebSocket,
        faces: Annotated[Faces, Query()] = settings.faces,
        expressions: Annotated[Expressions | None, Query()] = None,
        uncertainty: Annotated[Switch, Query()] = "off",
    ) -> None:
        asked = Asked(faces, shown_to(settings, expressions))
        await socket.accept(PROTOCOL if PROTOCOL in offered_protocols(socket) else None)
        session = _Session(socket, settings, metrics)
        with places.one():
            served = await backend.describe()
            shown = answered_of(served.description, asked.expressions, uncertainty)
            socket.scope["state"]["model_version"] = shown.version
            analysis = await asyncio.to_thread(CameraAnalysis, settings, backend, served, asked)  # may ask the hub
            await session.run(analysis, shown)

    return router


class _Session:
    """One camera."""

    def __init__(self, socket: WebSocket, settings: Settings, metrics: IngressMetrics) -> None:
        self._socket, self._settings, self._limits, self._metrics = socket, settings, settings.limits, metrics
        self._frames, self._now = Newest(), asyncio.get_running_loop().time
        self._told = self._taken = 0
        self._moved = asyncio.Event()

    async def run(self, analysis: CameraAnalysis, model: ModelDescription) -> None:
        """Until the client leaves. `Refusal` where there is no going on."""
        listening = asyncio.create_task(self._listen())
        try:
            async with until(self._now() + self._limits.live_s):
                await self._say("start", formats.live_facts(self._settings.name, model, self._socket.scope["state"]))
                async with aclosing(analysis.answers(self._frames)) as answers:
                    async for answer in answers:
                        await self._room()
                        await self._say("frame", formats.frame_facts(answer, self._frames.dropped, model))
                        self._count(answer)
        except WebSocketDisconnect:
            pass  # it left while we spoke
        finally:
            self._metrics.live_dropped(self._frames.dropped)
            self._socket.scope["state"]["frames"] = self._told
            listening.cancel()

    async def _say(self, kind: str, facts: dict[str, Any]) -> None:
        try:
            async with asyncio.timeout(self._limits.idle_s):
                await self._socket.send_text(formats.line(kind, facts))
        except TimeoutError:
            raise Refusal(408, f"an answer was not taken for {self._limits.idle_s:g} seconds") from None

    async def _room(self) -> None:
        """Wait until the client has taken enough of what it was told."""
        while self._told - self._taken >= UNTAKEN and not self._frames.ended:
            self._moved.clear()
            try:
                async with asyncio.timeout(self._limits.idle_s):
                    await self._moved.wait()
            except TimeoutError:
                words = f'{UNTAKEN} answers were not taken for {self._limits.idle_s:g} seconds: send {{"taken": n}}'
                raise Refusal(408, words) from None
        self._told += 1

    def _count(self, answer: Answered) -> None:
        self._metrics.live_frame(answer.refusal is None, self._now() - answer.frame.came)

    async def _listen(self) -> None:
        """Frames into their place, until the client leaves or does what it may not."""
        error: Refusal | None = None
        first: float | None = None
        number, due = 0, self._now() + self._limits.idle_s
        try:
            while True:
                async with asyncio.timeout_at(due):
                    message = await self._socket.receive()
                if message["type"] == "websocket.disconnect":
                    return
                if (data := message.get("bytes")) is None:
                    self._took(str(message.get("text")))
                    continue
                now = self._now()
                first = now if first is None else first
                self._check(len(data), number, now - first)
                self._frames.put(Frame(number, round(now - first, 5), now, data))
                number, due = number + 1, now + self._limits.idle_s
        except TimeoutError:
            error = Refusal(408, f"no frame came for {self._limits.idle_s:g} seconds")
        except Refusal as refusal:
            error = refusal
        finally:
            self._frames.end(error)
            self._moved.set()

    def _check(self, size: int, number: int, seconds: float) -> None:
        limits = self._limits
        if size > limits.live_frame_bytes:
            raise Refusal(413, f"a frame has {size} bytes, at most {limits.live_frame_bytes} are accepted")
        if number > limits.live_rate * (1 + seconds):
            raise Refusal(429, f"{number} frames in {seconds:.1f} seconds, at most {limits.live_rate:g} a second")

    def _took(self, text: str) -> None:
        """{"taken": n}: how many answers the client has read."""
        try:
            taken = json.loads(text)["taken"] if len(text) < 100 else None
        except (ValueError, KeyError, TypeError, RecursionError):
            taken = None
        if type(taken) is not int or not self._taken <= taken <= self._told:
            rule = f'{{"taken": n}} with n from {self._taken} to {self._told}'
            raise Refusal(400, f"a text message must be {rule}; frames are binary messages")
        self._taken = taken
        self._moved.set()
