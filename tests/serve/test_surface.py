"""What HTTP clients, browsers and proxies rely on: ids, HEAD, OPTIONS, CORS, hosts, queries, forms, slow senders."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from fastapi import FastAPI
from starlette.testclient import TestClient

from serve.local import local_app
from serve.observe.exporter import cluster_metrics, joined
from serve.settings import Limits, Scaling, Settings

Make = Callable[..., FastAPI]
FORM = {"Content-Type": "multipart/form-data; boundary=b"}
PART = b'--b\r\nContent-Disposition: form-data; name="file"; %s\r\n\r\n'


@pytest.fixture
def client(local_app: FastAPI) -> Iterator[TestClient]:
    with TestClient(local_app) as client:
        yield client


def test_every_answer_has_an_id_that_errors_and_logs_name(client: TestClient, logged: list[dict[str, Any]]) -> None:
    given = client.get("/nowhere", headers={"X-Request-Id": "from-the-proxy.1"})
    made = client.post("/v1/predict", content=b"x", headers=FORM)
    odd = client.get("/v2", headers={"X-Request-Id": "x\x7f" * 99})
    assert given.headers["X-Request-Id"] == given.json()["request_id"] == "from-the-proxy.1"
    assert made.headers["X-Request-Id"] == made.json()["request_id"] != ""
    assert odd.status_code == 200
    assert len(odd.headers["X-Request-Id"]) == 16
    assert [(line["event"], line["request_id"], line["status"]) for line in logged] == [
        ("refusal", "from-the-proxy.1", "404"),
        ("refusal", made.json()["request_id"], "400"),
    ]
    assert logged[1]["error"] == made.json()["error"]


def test_an_error_that_nobody_foresaw_is_500_in_the_one_shape(make_app: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise ZeroDivisionError("/secret/path")

    app = make_app()
    monkeypatch.setattr("serve.http.uploads.formats.negotiate", fail)
    with TestClient(app, raise_server_exceptions=False) as client:
        answer = client.post("/v1/predict", content=b"x", headers=FORM)
    assert answer.status_code == 500
    assert list(answer.json()) == ["error", "request_id"]
    assert "secret" not in answer.text


@pytest.mark.parametrize("path", ["/", "/page.js", "/docs", "/v2/health/live", "/v2/health/ready", "/v2/models/ssm"])
def test_head_is_get_without_its_body_and_options_names_the_methods(client: TestClient, path: str) -> None:
    head, whole = client.head(path), client.get(path)
    assert (head.status_code, head.content) == (200, b"")
    assert head.headers["Content-Length"] == str(len(whole.content))
    options = client.options(path)
    assert (options.status_code, options.headers["Allow"]) == (204, "GET, HEAD, OPTIONS")
    assert client.options("/v1/predict").headers["Allow"] == "OPTIONS, POST"
    assert client.head("/v1/predict").status_code == 405
    assert client.options("/nowhere").status_code == 404


def app_with(model_folder: Path, tmp_path: Path, **changes: Any) -> FastAPI:
    return local_app(Settings(**{"model": str(model_folder), "scratch": str(tmp_path), "threads": 1, **changes}))


def test_origins_that_are_listed_may_ask_and_no_others(client: TestClient, model_folder: Path, tmp_path: Path) -> None:
    asked = {"Origin": "https://lab.example", "Access-Control-Request-Method": "POST"}
    assert "Access-Control-Allow-Origin" not in client.options("/v1/predict", headers=asked).headers
    app = app_with(model_folder, tmp_path, hosts=("testserver",), origins=("https://lab.example",))
    with TestClient(app) as listed:
        answer = listed.options("/v1/predict", headers=asked)
        assert answer.headers["Access-Control-Allow-Origin"] == "https://lab.example"
        assert listed.options("/v1/predict", headers={**asked, "Origin": "https://evil.example"}).status_code == 400
        read = listed.get("/v2", headers={"Origin": "https://lab.example"})
        assert "X-Request-Id" in read.headers["Access-Control-Expose-Headers"]


def test_without_a_token_only_addresses_and_named_hosts_are_answered(
    model_folder: Path, tmp_path: Path, make_app: Make
) -> None:
    app = app_with(model_folder, tmp_path, hosts=("faces.example",))
    with TestClient(app) as client:
        for host in ("127.0.0.1:8000", "[::1]:8000", "10.0.0.7", "localhost", "faces.example:80", "FACES.example"):
            assert client.get("/v2", headers={"Host": host}).status_code == 200, host
        for host in ("rebound.example", "faces.example.evil.example", "127.0.0.1.evil.example", ""):
            assert client.get("/v2", headers={"Host": host}).status_code == 403, host
        assert client.get("/v2/health/live", headers={"Host": "any"}).status_code == 200
    with TestClient(make_app(token="s" * 20)) as guarded:
        answer = guarded.get("/v2", headers={"Host": "any"})
        assert (answer.status_code, answer.headers["WWW-Authenticate"]) == (401, 'Bearer realm="ssm"')
        assert guarded.get("/v2", headers={"Host": "any", "Authorization": "Bearer " + "s" * 20}).status_code == 200


@pytest.mark.parametrize("query", ["?face=main", "?faces=main&faces=all", "?faces=main&x=", "?Faces=main"])
def test_a_query_that_nobody_reads_is_refused(client: TestClient, query: str) -> None:
    answer = client.post(f"/v1/predict{query}", content=PART % b'filename="x"' + b"y\r\n--b--\r\n", headers=FORM)
    assert answer.status_code == 400
    assert "query parameter" in answer.json()["error"]
    assert client.get("/v2/models/ssm?version=1").status_code == 400


@pytest.mark.parametrize(
    ("body", "headers"),
    [
        (b"words for old readers\r\n" + PART % b'filename="x"' + b"y\r\n--b--\r\n", {}),
        (PART % b"filename*=UTF-8''na%C3%AFve%20x.mp4" + b"y\r\n--b--\r\n", {}),
        (PART % b'filename="x"' + b"y\r\n--b--\r\n", {"Content-Encoding": "Identity"}),
        (PART % b'filename="x"' + b"y\r\n--b--\r\nan epilogue", {}),
    ],
    ids=["preamble", "extended name", "identity", "epilogue"],
)
def test_forms_that_the_standards_allow_reach_the_decoder(
    client: TestClient, body: bytes, headers: dict[str, str]
) -> None:
    answer = client.post("/v1/predict", content=body, headers=FORM | headers)
    assert answer.status_code == 422, answer.text
    assert "no video that can be read" in answer.json()["error"]


def test_json_tensors_and_clips_are_bounded(make_app: Make) -> None:
    with TestClient(make_app(tensor_json_bytes=2000, clips=2)) as client:
        text = json.dumps({"inputs": [{"name": "clips", "shape": [1], "datatype": "UINT8", "data": [0] * 2000}]})
        answer = client.post("/v2/models/ssm/infer", content=text)
        assert answer.status_code == 413
        assert "binary" in answer.json()["error"]
        shape = [3, 8, 32, 32, 3]
        size = 3 * 8 * 32 * 32 * 3
        tensor = {"name": "clips", "shape": shape, "datatype": "UINT8", "parameters": {"binary_data_size": size}}
        head = json.dumps({"inputs": [tensor]}).encode()
        headers = {"Inference-Header-Content-Length": str(len(head))}
        answer = client.post("/v2/models/ssm/infer", content=head + bytes(size), headers=headers)
        assert answer.status_code == 413
        assert "3 clips" in answer.json()["error"]


@contextmanager
def running(app: FastAPI) -> Iterator[int]:
    """The port of the application behind a real server."""
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="error"))
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        time.sleep(0.02)
    yield server.servers[0].sockets[0].getsockname()[1]
    server.should_exit = True
    thread.join()


@pytest.fixture
def port(make_app: Make) -> Iterator[int]:
    """A server with little patience for slow senders."""
    with running(make_app(idle_s=0.6, upload_rate=1000)) as port:
        yield port


def begun(port: int, size: int) -> socket.socket:
    """A connection that has sent the head of an upload and none of its body."""
    client = socket.create_connection(("127.0.0.1", port), timeout=10)
    client.sendall(
        f"POST /v1/predict HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: {size}\r\n"
        "Content-Type: multipart/form-data; boundary=b\r\n\r\n".encode()
    )
    return client


@pytest.mark.parametrize(
    ("queued", "room", "reason"), [(1, 10**9, b"all 2 places"), (9, 600_000_000, b"disk for uploads is in use")]
)
def test_a_place_and_room_are_taken_before_a_body_is_read(
    model_folder: Path, tmp_path: Path, queued: int, room: int, reason: bytes
) -> None:
    """Two uploads that have sent nothing hold what there is; the next is told so at once, the page is not."""
    limits, video = Limits(spool_bytes=room), Scaling(ongoing=1, queued=queued, target=1)
    with running(app_with(model_folder, tmp_path, limits=limits, video=video)) as port:
        first, second = begun(port, 400_000_000), begun(port, 100_000)
        time.sleep(0.3)
        with begun(port, 300_000_000) as third:
            answer = third.recv(65536)
        assert answer.startswith(b"HTTP/1.1 503")
        assert reason in answer
        assert b"retry-after" in answer.lower()
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=5) as page:
            assert page.status == 200
        first.close()
        second.close()


@pytest.mark.parametrize("pause", [0.1, 5.0], ids=["drops", "silence"])
def test_a_slow_sender_is_408_however_it_is_slow(port: int, pause: float) -> None:
    """Written by hand on a socket: the headers, then a byte at a time."""
    start = time.monotonic()
    with begun(port, 100_000) as client:
        client.settimeout(pause)
        answer = b""
        while not answer and time.monotonic() - start < 10:
            try:
                client.sendall(b"-")
                answer = client.recv(65536)
            except TimeoutError:
                continue
    assert answer.startswith(b"HTTP/1.1 408")
    assert time.monotonic() - start < 5.5


def test_metrics_of_several_machines_are_one_text_that_prometheus_reads() -> None:
    parser = pytest.importorskip("prometheus_client.parser")
    text = (
        "# HELP ray_ssm_frames_total frames\n# TYPE ray_ssm_frames_total counter\n"
        'ray_ssm_frames_total{replica="%s"} %d\n# HELP ray_node_cpu x\n# TYPE ray_node_cpu gauge\nray_node_cpu 1\n'
    )
    merged = joined([(text % ("a", 3)).encode(), (text % ("b", 4)).encode()]).decode()
    (family,) = parser.text_string_to_metric_families(merged)
    assert {sample.labels["replica"]: sample.value for sample in family.samples} == {"a": 3, "b": 4}
    assert merged.count("# TYPE") == 1


def test_a_machine_that_hangs_up_halfway_leaves_the_metrics_of_the_others(
    run: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = b"# TYPE ray_ssm_clips counter\nray_ssm_clips_total 3\n"
    answers = [b"", b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n# TY", b"nonsense\r\n\r\n"]
    answers.append(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(whole), whole))
    servers = [socket.create_server(("127.0.0.1", 0)) for _ in answers]

    def answer(server: socket.socket, said: bytes) -> None:
        connection, _ = server.accept()
        with connection:
            connection.recv(4096)
            connection.sendall(said)

    threads = [threading.Thread(target=answer, args=each) for each in zip(servers, answers, strict=True)]
    for thread in threads:
        thread.start()
    addresses = [f"http://127.0.0.1:{server.getsockname()[1]}/metrics" for server in servers]
    monkeypatch.setattr("serve.observe.exporter._addresses", lambda: addresses)
    assert run(cluster_metrics()) == whole
    for thread, server in zip(threads, servers, strict=True):
        thread.join(20)
        server.close()


def test_traces_reach_a_collector_as_parts_of_the_callers_trace(make_app: Make) -> None:
    """In a process of its own: a tracer is set once for a process."""
    pytest.importorskip("opentelemetry.exporter.otlp.proto.http.trace_exporter")
    done = subprocess.run([sys.executable, "-c", COLLECTED], capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stderr[-2000:]


COLLECTED = """
import contextvars, http.server, threading
from opentelemetry import trace
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from serve.observe import carried, span, start_traces, told_by

bodies = []
class Collector(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        bodies.append((self.path, self.rfile.read(int(self.headers["Content-Length"]))))
        self.send_response(200); self.end_headers()
    def log_message(self, *_): pass

server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Collector)
threading.Thread(target=server.serve_forever, daemon=True).start()
start_traces(f"http://127.0.0.1:{server.server_port}/")
caller = "00-" + "a" * 32 + "-" + "b" * 16 + "-01"
with span("request", told_by({"headers": [(b"traceparent", caller.encode())]}), "id-1"):
    with span("upload"):
        pass
    taken_along = carried()
def elsewhere():
    with span("model", taken_along):
        pass
contextvars.Context().run(elsewhere)  # as in another process
trace.get_tracer_provider().force_flush()
path, body = bodies[0]
assert path == "/v1/traces"
spans = [s for r in ExportTraceServiceRequest.FromString(body).resource_spans for g in r.scope_spans for s in g.spans]
parents = {s.name: s.parent_span_id for s in spans}
(request,) = (s.span_id for s in spans if s.name == "request")
assert parents == {"request": bytes.fromhex("b" * 16), "upload": request, "model": request}
assert {s.trace_id.hex() for s in spans} == {"a" * 32}
"""
