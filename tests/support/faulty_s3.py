"""An S3 server on loopback, and a proxy before it that misbehaves as told: the faults of a bad day, one per request."""

from __future__ import annotations

import http.client
import threading
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

ERRORS = {
    "error500": (500, "InternalError"),
    "slow_down": (503, "SlowDown"),
    "denied": (403, "AccessDenied"),
    "too_large": (400, "EntityTooLarge"),
}


@contextmanager
def s3_server() -> Iterator[str]:
    """The endpoint of an empty S3 server."""
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


class Faulty:
    """The proxy. `schedule` the faults of the next requests that carry an object; `requests` counts since then.

    error500, slow_down, denied: an error answer; truncated: fewer bytes than the header says; shorter: fewer bytes and
    a header that agrees; stalled: no answer; trickle: a byte at a time; dropped: the connection ends without an answer;
    damaged: one byte is another.
    """

    def __init__(self, endpoint: str, uri: str) -> None:
        self.uri = uri
        self._target = endpoint.removeprefix("http://")
        self._faults: deque[str] = deque()
        self._seen: list[str] = []
        self._outage: tuple[int, float] | None = None
        self._dark_until = 0.0
        self.unanswered = 0
        self.limit: int | None = None  # bytes of a request's body past which it is refused, as S3 refuses 5 GiB
        proxy = self

        class Handler(BaseHTTPRequestHandler):
            def log_message(self, *_: Any) -> None: ...

            def _serve(self) -> None:
                proxy._serve(self)

            do_GET = do_PUT = do_HEAD = do_POST = do_DELETE = _serve

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}"

    def schedule(self, *faults: str) -> None:
        self._faults = deque(faults)
        self._seen = []

    def outage(self, after: int, seconds: float) -> None:
        """Nothing is answered for so long, from that many requests on; `unanswered` counts them."""
        self.schedule()
        self._outage, self.unanswered = (after, seconds), 0

    def _is_dark(self) -> bool:
        if self._outage is not None and len(self._seen) >= self._outage[0]:
            self._dark_until, self._outage = time.monotonic() + self._outage[1], None
        return time.monotonic() < self._dark_until

    def requests(self, method: str) -> int:
        return self._seen.count(method)

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def _serve(self, client: BaseHTTPRequestHandler) -> None:
        self._seen.append(client.command)
        body = client.rfile.read(int(client.headers.get("Content-Length", 0)))
        fault = self._faults.popleft() if self._faults else None
        if self._is_dark():
            self.unanswered += 1
            fault = "dropped"
        if self.limit is not None and len(body) > self.limit + 4096:  # boto3 frames what it sends with checksums
            fault = "too_large"
        if fault in ERRORS:
            status, code = ERRORS[fault]
            text = f"<Error><Code>{code}</Code><Message>hush-hush</Message></Error>".encode()
            _answer(client, status, [("Content-Type", "application/xml")], text)
        elif fault == "dropped":
            client.close_connection = True
        elif fault == "stalled":
            time.sleep(1)
            client.close_connection = True
        else:
            self._forward(client, body, fault)

    def _forward(self, client: BaseHTTPRequestHandler, body: bytes, fault: str | None) -> None:
        connection = http.client.HTTPConnection(self._target, timeout=20)
        connection.request(client.command, client.path, body, dict(client.headers.items()))
        answer = connection.getresponse()
        data = answer.read()
        kept = [(k, v) for k, v in answer.getheaders() if k.lower() not in ("transfer-encoding", "connection")]
        connection.close()
        if fault == "shorter":
            data = data[: len(data) // 2]
            kept = [(k, v) for k, v in kept if k.lower() != "content-length"] + [("Content-Length", str(len(data)))]
        if fault == "damaged":
            data = data[:-20] + bytes([data[-20] ^ 1]) + data[-19:]
        _answer(client, answer.status, kept, data, fault)


def _answer(
    client: BaseHTTPRequestHandler, status: int, headers: list[tuple[str, str]], data: bytes, fault: str | None = None
) -> None:
    client.send_response_only(status)
    names = {name.lower() for name, _ in headers}
    for name, value in headers if "content-length" in names else [*headers, ("Content-Length", str(len(data)))]:
        client.send_header(name, value)
    client.end_headers()
    if client.command == "HEAD":
        return
    if fault == "truncated":
        client.wfile.write(data[: len(data) // 2])
        client.close_connection = True
        return
    if fault != "trickle":
        client.wfile.write(data)
        return
    try:
        for first in range(0, len(data), 2000):
            client.wfile.write(data[first : first + 2000])
            client.wfile.flush()
            time.sleep(0.05)
    except OSError:
        client.close_connection = True  # the reader has given up
