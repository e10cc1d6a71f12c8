"""Routes of uploads: a video or pictures in, and the answer as it is formed, whole or as it comes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from functools import partial
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from serve.errors import Refusal
from serve.http import formats, schemas
from serve.http.access import Guards
from serve.http.deadline import until
from serve.http.shown import Switch, answered_of, shown_to
from serve.intake import Places, Spool, declared_bytes, read_files, upload_limit
from serve.observe import IngressMetrics, span
from serve.replicas import Asked, Backend, Result, Said, Start
from serve.settings import Settings
from ssm_platform.models import Expressions, ModelDescription
from ssm_platform.read import Faces, Row, csv_header

THUMBNAILS = 120
"""Pictures of frames in an answer that has them, at most: some 2 MB."""


def upload_places(settings: Settings) -> Places:
    """As many uploads at once as video replicas and their queue hold, and half of the ingress at most."""
    video = settings.video
    return Places("uploads", min(video.replicas * video.ongoing + video.queued, max(1, settings.ingress.ongoing // 2)))


def uploads(settings: Settings, backend: Backend, metrics: IngressMetrics, spool: Spool, guards: Guards) -> APIRouter:
    """`/v1`."""
    router = APIRouter(prefix="/v1", tags=["video"])
    places = upload_places(settings)

    @router.get("/model", response_model=schemas.Model, responses=schemas.problems(503), dependencies=guards())
    async def model() -> dict[str, Any]:
        """The model that is served: its labels and its rule."""
        model = (await backend.describe()).description
        return formats.model_facts(settings.name, model.shown(settings.expressions, model.evidence, model.places))

    @router.post(
        "/predict",
        responses={200: schemas.ANSWER, **schemas.problems(406, 408, 413, 415, 422, 503, 504, 507)},
        openapi_extra=schemas.UPLOAD,
        dependencies=guards("faces", "expressions", "pictures", "uncertainty", "where"),
    )
    async def predict(
        request: Request,
        faces: Annotated[Faces, Query(description="all faces, or the main person")] = settings.faces,
        expressions: Annotated[
            Expressions | None, Query(description="off: action units only; absent: as the service is set")
        ] = None,
        pictures: Annotated[
            Switch, Query(description="on: lines of JSON hold small pictures of some frames as well")
        ] = "off",
        uncertainty: Annotated[
            Switch, Query(description="on: also `AU01_u` of each action unit, how little is known of it")
        ] = "off",
        where: Annotated[
            Switch, Query(description="on: also heat maps of where each action unit of a face was looked for; no CSV")
        ] = "off",
    ) -> Response:
        """Read a video, or pictures: AUs and expressions per face and frame, as JSON, lines of JSON or CSV."""
        kind, shown = formats.negotiate(request.headers.get("accept")), shown_to(settings, expressions)
        if pictures == "on" and kind != formats.LINES:
            raise Refusal(406, f"pictures=on is answered as {formats.LINES} only")
        if where == "on" and kind == formats.CSV:
            raise Refusal(406, f"where=on is answered as {formats.JSON} or {formats.LINES}: a table holds no maps")
        answered = partial(answered_of, expressions=shown, uncertainty=uncertainty, where=where)
        if "on" in (uncertainty, where):
            answered((await backend.describe()).description)  # before a file is taken in
        asked = Asked(faces, shown, THUMBNAILS if pictures == "on" else 0, where == "on")
        size = declared_bytes(request, upload_limit(settings.limits))
        deadline = asyncio.get_running_loop().time() + settings.limits.request_s
        async with AsyncExitStack() as stack:
            stack.enter_context(places.one())
            folder = stack.enter_context(spool.request(size))
            with metrics.stage("upload"), span("upload"):
                async with until(deadline):
                    files = await read_files(request, folder, settings.limits)
            said = backend.analyse([file.path for file in files], asked)
            answer = _Answer(settings, said, kind, answered, deadline, request.scope["state"])
            stack.push_async_callback(answer.close)
            await answer.begin()
            if kind == formats.JSON:
                return Response(await answer.document(), media_type=kind)
            return _Streamed(answer.body(), media_type=kind, stack=stack.pop_all())

    return router


class _Answer:
    """The answer to one upload, from what the backend says. Results become text beside the event loop."""

    def __init__(
        self,
        settings: Settings,
        said: AsyncIterator[Said],
        kind: str,
        answered: Callable[[ModelDescription], ModelDescription],
        deadline: float,
        state: dict[str, Any],
    ) -> None:
        self._settings, self._said, self._kind, self._answered = settings, said, kind, answered
        self._deadline, self._state = deadline, state

    async def begin(self) -> None:
        """Wait for the start, so that a refusal still becomes a status."""
        start = await self._next()
        assert isinstance(start, Start)
        self._start, self._model = start, self._answered(start.served.description)
        self._state["model_version"] = self._model.version
        self._check(start.info.frames)

    async def document(self) -> bytes:
        """Everything, as one JSON document."""
        document = formats.Document(self._settings.name, self._start, self._model)
        while (more := await self._next()) is not None:
            assert isinstance(more, list)
            await asyncio.to_thread(document.add, more)
            self._check(document.rows)
        return await asyncio.to_thread(document.content)

    async def body(self) -> AsyncIterator[str]:
        """The answer as it comes. A late error is the last line; CSV has no place for one, so its stream breaks."""
        if self._kind == formats.LINES:
            yield formats.line("start", formats.start_facts(self._settings.name, self._start, self._model))
        else:
            yield csv_header(self._model.vocabulary, self._model.evidence)
        encode_results = formats.lines if self._kind == formats.LINES else formats.csv
        rows = 0
        try:
            while (more := await self._next()) is not None:
                assert isinstance(more, list)
                rows += sum(isinstance(result, Row) for result in more)
                yield await asyncio.to_thread(encode_results, more, self._model)
        except Refusal as refusal:
            self._state["broken"] = refusal.message
            if self._kind != formats.LINES:
                raise
            yield formats.line("error", {"error": refusal.message, "request_id": self._state["request_id"]})
            return
        if self._kind == formats.LINES:
            yield formats.line("end", {"rows": rows})

    async def close(self) -> None:
        """Stop the analysis, finished or not."""
        await self._said.aclose()  # type: ignore[attr-defined]

    def _check(self, rows: int) -> None:
        """413 where one document would hold more rows than it may: a frame has one at least."""
        most = self._settings.limits.json_rows
        if self._kind == formats.JSON and rows > most:
            hint = f"ask for {formats.LINES} or {formats.CSV}"
            raise Refusal(413, f"{rows} rows are too many for one JSON document (at most {most}); {hint}")

    async def _next(self) -> Start | list[Result] | None:
        async with until(self._deadline):
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
