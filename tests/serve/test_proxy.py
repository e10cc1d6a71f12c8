"""The reverse proxy that ships with the service, started before it: what it bounds, and what it lets through."""

from __future__ import annotations

import importlib.util
import json
import re
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import requests
import uvicorn
from fastapi import FastAPI
from numpy.typing import NDArray
from pages import documented
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from serve.settings import OVERHEAD, Limits

BENCH = Path(__file__).resolve().parents[2] / "bench" / "serving" / "proxy.py"
spec = importlib.util.spec_from_file_location("proxy", BENCH)
assert spec is not None
assert spec.loader is not None
proxy = importlib.util.module_from_spec(spec)
sys.modules["proxy"] = proxy
spec.loader.exec_module(proxy)

needs_nginx = pytest.mark.skipif(proxy.NGINX is None, reason="no nginx on this machine: apt-get install nginx-light")
SENDERS = 128


class Arrivals:
    """ASGI middleware: which requests came through."""

    def __init__(self, app: Any) -> None:
        self._app, self.paths = app, list[str]()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            self.paths.append(scope["path"])
        await self._app(scope, receive, send)


@pytest.fixture
def arrivals(make_app: Callable[..., FastAPI]) -> Arrivals:
    return Arrivals(make_app())


@pytest.fixture
def url(arrivals: Arrivals) -> Iterator[str]:
    """The service behind the proxy, which takes the tests' small uploads."""
    server = uvicorn.Server(uvicorn.Config(arrivals, port=0, log_level="error"))
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        time.sleep(0.02)
    changes = {"536936448": str(3_000_000 + OVERHEAD), "client_body_timeout 20s": "client_body_timeout 4s"}
    with proxy.proxied(server.servers[0].sockets[0].getsockname()[1], **changes) as url:
        yield url
    server.should_exit = True
    thread.join()


def test_the_file_says_what_the_settings_say() -> None:
    text, limits = proxy.CONFIGURATION.read_text(), Limits()
    bodies = [int(size) for size in re.findall(r"client_max_body_size (\d+);", text)]
    assert bodies == [limits.upload_bytes + OVERHEAD, limits.tensor_bytes]
    assert set(re.findall(r"proxy_read_timeout (\d+)s; +#", text)) == {f"{limits.request_s:g}"}
    assert f"client_body_timeout {limits.idle_s:g}s" in text


@needs_nginx
def test_the_command_of_the_page_takes_the_file_as_it_ships(tmp_path: Path) -> None:
    _, *words = documented("serving.md", "nginx -p ")
    here = [word.replace("/var/tmp/ssm-proxy", str(tmp_path)).replace("$PWD", str(BENCH.parents[2])) for word in words]
    done = subprocess.run([proxy.NGINX, *here, "-t"], capture_output=True, text=True, timeout=30)
    assert done.returncode == 0, done.stderr


@needs_nginx
def test_what_is_too_large_is_413_before_the_service_hears_of_it(url: str, arrivals: Arrivals) -> None:
    for path, size in (("/v1/predict", 4_000_000), ("/v1/model", 70_000), ("/v2/models/ssm/infer", 140_000_000)):
        host, port = url.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port)), 10) as client:
            head = f"POST {path} HTTP/1.1\r\nHost: {host}\r\nContent-Length: {size}\r\n\r\n"
            client.sendall(head.encode() + b"x")
            answer = client.recv(65536).decode()
        assert answer.startswith("HTTP/1.1 413"), (path, answer)
        assert list(json.loads(answer.partition("\r\n\r\n")[2])) == ["error", "request_id"]
    assert arrivals.paths == []


@needs_nginx
def test_answers_come_through_row_by_row_with_one_id(url: str, face_video: Path) -> None:
    first: list[float] = []
    with requests.post(
        f"{url}/v1/predict",
        files={"file": face_video.read_bytes()},
        headers={"Accept": "application/x-ndjson"},
        stream=True,
        timeout=60,
    ) as answer:
        lines = []
        for line in answer.iter_lines():
            lines.append(json.loads(line))
            first.append(time.monotonic())
    assert (lines[0]["type"], lines[-1]["type"]) == ("start", "end")
    assert first[-1] > first[0]
    refused = requests.post(f"{url}/v1/predict", data=b"x", timeout=60)
    assert refused.status_code == 415
    assert refused.headers["X-Request-Id"] == refused.json()["request_id"]
    assert len(refused.json()["request_id"]) == 32, "nginx gave it"
    assert requests.get(f"{url}/v2/health/ready", timeout=10).json() == {"ready": True}


@needs_nginx
def test_a_camera_is_answered_through_the_proxy(url: str, face_frames: list[NDArray[np.uint8]]) -> None:
    picture = cv2.imencode(".jpg", face_frames[0][..., ::-1])[1].tobytes()
    with connect(url.replace("http", "ws") + "/v1/live") as session:
        start = json.loads(session.recv(30))
        session.send(picture)
        assert json.loads(session.recv(30))["rows"][0]["success"] == 1
    assert len(start["request_id"]) == 32, "nginx gave it"
    with pytest.raises(InvalidStatus) as refused, connect(url.replace("http", "ws") + "/v1/live?face=main"):
        pass
    assert refused.value.response.status_code == 400


@needs_nginx
def test_slow_senders_hold_up_nobody(url: str, arrivals: Arrivals) -> None:
    """128 connections that send a byte a second; health and page answer at once, and no upload reaches the service."""
    requests.get(f"{url}/v2/health/ready", timeout=60)
    host, port = url.removeprefix("http://").split(":")
    head = (
        f"POST /v1/predict HTTP/1.1\r\nHost: {host}\r\nContent-Length: 2000000\r\n"
        "Content-Type: multipart/form-data; boundary=b\r\n\r\n"
    ).encode()
    senders = [socket.create_connection((host, int(port)), 10) for _ in range(SENDERS)]
    for sender in senders:
        sender.sendall(head)
    slowest = 0.0
    for _ in range(3):
        for sender in senders:
            try:
                sender.sendall(b"-")
            except OSError:
                continue  # refused and closed: more than one client may have
        for path in ("/v2/health/live", "/v2/health/ready", "/"):
            start = time.monotonic()
            assert requests.get(url + path, timeout=10).status_code == 200
            slowest = max(slowest, time.monotonic() - start)
        time.sleep(1)
    for sender in senders:
        sender.close()
    assert slowest < 1
    assert "/v1/predict" not in arrivals.paths
