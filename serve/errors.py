"""What the service refuses, and how: one exception, one JSON shape `{"error": "..."}`."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import JSONResponse, Response


class Refusal(Exception):
    """A request that is answered with an HTTP error. `message` is for the client: no path of ours, no trace."""

    def __init__(self, status: int, message: str, retry_after: int | None = None) -> None:
        super().__init__(status, message, retry_after)  # all three, so that it survives pickling between replicas
        self.status = status
        self.message = message
        self.retry_after = retry_after

    def response(self) -> JSONResponse:
        """The HTTP answer, with `Retry-After` where trying again makes sense."""
        headers = {"Retry-After": str(self.retry_after)} if self.retry_after is not None else None
        return JSONResponse({"error": self.message}, self.status, headers)


def busy(what: str) -> Refusal:
    """503: a queue is full, or nothing answers just now."""
    return Refusal(503, f"{what}; try again", retry_after=1)


async def answer_refusal(request: Request, error: Exception) -> Response:
    """The exception handler for `Refusal`."""
    assert isinstance(error, Refusal)
    return error.response()
