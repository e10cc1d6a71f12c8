"""A client of a few lines: send a video, get rows; wait and send again while the service is busy.

    from serve.client import Client
    answer = Client("http://localhost:8000").predict("clip.mp4")      # the JSON document
    for event in Client("http://localhost:8000").stream("clip.mp4"):  # start, rows and windows, as they come
        ...

Needs only `requests`. A request is repeated as a whole: the service keeps nothing between tries, so this is safe.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import requests

if TYPE_CHECKING:
    from ssm_platform.models import Expressions
    from ssm_platform.read import Faces

Files = str | Path | Sequence[str | Path]
_TRANSIENT = (429, 500, 502, 503)
_PAUSE_S = 1.0


class ServiceError(Exception):
    """The service refused; `status` and the service's own words."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(f"{status}: {message}")
        self.status = status


class Client:
    """One service. `patience_s`: how long a busy or restarting service is asked again."""

    def __init__(self, url: str, token: str | None = None, patience_s: float = 120, timeout_s: float = 1800) -> None:
        self._url, self._patience, self._timeout = url.rstrip("/"), patience_s, timeout_s
        self._session = requests.Session()
        if token is not None:
            self._session.headers["Authorization"] = f"Bearer {token}"

    def model(self) -> dict[str, Any]:
        """The model that is served: labels and rule."""
        facts: dict[str, Any] = self._ask("GET", "/v1/model").json()
        return facts

    def predict(self, files: Files, faces: Faces = "all", expressions: Expressions | None = None) -> dict[str, Any]:
        """The whole answer to a video, or to pictures. `expressions` off: action units only; None: as is served."""
        document: dict[str, Any] = self._send(files, faces, expressions, "application/json", stream=False).json()
        return document

    def csv(self, files: Files, faces: Faces = "all", expressions: Expressions | None = None) -> str:
        """The same as a table."""
        return str(self._send(files, faces, expressions, "text/csv", stream=False).text)

    def stream(
        self, files: Files, faces: Faces = "all", expressions: Expressions | None = None
    ) -> Iterator[dict[str, Any]]:
        """`start`, then `row` and `window` events as they are ready. ServiceError where the answer breaks off."""
        with self._send(files, faces, expressions, "application/x-ndjson", stream=True) as answer:
            for line in answer.iter_lines():
                event = json.loads(line)
                if event["type"] == "error":
                    raise ServiceError(answer.status_code, event["error"])
                if event["type"] == "end":
                    return
                yield event
        raise ServiceError(answer.status_code, "the answer ended early")

    def _send(self, files: Files, faces: Faces, expressions: Expressions | None, accept: str, stream: bool) -> Any:
        paths = [files] if isinstance(files, str | Path) else list(files)
        query = {"faces": faces, "expressions": expressions}  # what is None is not sent
        return self._ask("POST", "/v1/predict", paths, params=query, headers={"Accept": accept}, stream=stream)

    def _ask(self, method: str, path: str, files: Sequence[str | Path] = (), **options: Any) -> Any:
        """The answer, after as many tries as patience allows."""
        until = time.monotonic() + self._patience
        while True:
            status, message, pause = 0, "no connection", _PAUSE_S
            with ExitStack() as stack:
                parts = [("file", (Path(name).name, stack.enter_context(open(name, "rb")))) for name in files]
                try:
                    answer = self._session.request(
                        method, self._url + path, files=parts or None, timeout=self._timeout, **options
                    )
                except requests.RequestException as error:
                    message = str(error)
                else:
                    if answer.ok:
                        return answer
                    status, message = answer.status_code, _message(answer)
                    pause = float(answer.headers.get("Retry-After", _PAUSE_S))
            if status not in (0, *_TRANSIENT) or time.monotonic() + pause > until:
                raise ServiceError(status, message)
            time.sleep(pause)


def _message(answer: requests.Response) -> str:
    try:
        return str(answer.json()["error"])
    except (ValueError, KeyError, TypeError):
        return answer.text[:200]
