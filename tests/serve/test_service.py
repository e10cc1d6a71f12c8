"""The service on a real Serve cluster: same numbers, nothing lost when replicas die or the model changes, overload."""

from __future__ import annotations

import json
import os
import re
import secrets
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import requests
from numpy.typing import NDArray
from pages import documented
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect
from websockets.typing import Subprotocol

from serve.client import Client
from serve.settings import Scaling, Settings
from ssm_platform.read.model_reader import ModelReader
from ssm_platform.read.rows import AnalysisOptions, analyse
from ssm_platform.read.tables import record
from ssm_platform.read.windows import Row

pytestmark = pytest.mark.ray
REPOSITORY = Path(__file__).resolve().parents[2]
APPLICATION = f"ssm-test-{os.getpid()}"


@dataclass(frozen=True)
class Service:
    """A running service."""

    url: str
    settings: Settings
    scratch: Path
    spans: list[Any]


@pytest.fixture(scope="module")
def service(ray_cluster: None, model_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    from ray import serve

    scratch = tmp_path_factory.mktemp("scratch")
    collector, spans = trace_collector()
    settings = Settings(
        model=str(model_folder),
        scratch=str(scratch),
        threads=1,
        traces=f"http://127.0.0.1:{collector.server_port}",
        ingress=Scaling(cpus=0.1, ongoing=32, target=16, queued=64),
        video=Scaling(cpus=0.2, ongoing=2, target=2, queued=4, replicas=2, replicas_max=2),
        inference=Scaling(cpus=0.2, ongoing=16, target=8, queued=64, replicas=2, replicas_max=2),
    )
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    serve.start(http_options={"host": "127.0.0.1", "port": port})
    deploy(settings)
    yield Service(f"http://127.0.0.1:{port}", settings, scratch, spans)
    serve.shutdown()
    collector.shutdown()
    assert not [path for path in scratch.rglob("*") if path.is_file()]


def trace_collector() -> tuple[ThreadingHTTPServer, list[Any]]:
    """An OTLP/HTTP collector, and the spans that came to it."""
    wire = pytest.importorskip("opentelemetry.proto.collector.trace.v1.trace_service_pb2")
    spans: list[Any] = []

    class Collector(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            for resource in wire.ExportTraceServiceRequest.FromString(body).resource_spans:
                spans.extend(span for scope in resource.scope_spans for span in scope.spans)
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Quiet."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Collector)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server, spans


def deploy(settings: Settings) -> None:
    """Start the service, or change it while it runs."""
    from ray import serve

    from serve.app import build

    serve.run(build(settings), name=APPLICATION, route_prefix="/", logging_config={"log_level": "ERROR"})


def expected(video: Path, model: Path) -> list[dict[str, Any]]:
    reader = ModelReader(model, "cpu", threads=1)
    rows = analyse([video], reader, AnalysisOptions())
    return [record(row, reader.description.vocabulary) for row in rows if isinstance(row, Row)]


def same(rows: list[dict[str, Any]], wanted: list[dict[str, Any]]) -> bool:
    """Equal but for the last of five decimals."""
    table = [[np.nan if value is None else value for value in row.values()] for row in rows]
    return len(rows) == len(wanted) and bool(
        np.allclose(
            table,
            [[np.nan if v is None else v for v in row.values()] for row in wanted],
            atol=2e-5,
            rtol=0,
            equal_nan=True,
        )
    )


@pytest.fixture(scope="module")
def short_video(
    face_frames: list[NDArray[np.uint8]], tmp_path_factory: pytest.TempPathFactory, write_video: Callable[..., Path]
) -> Path:
    return write_video(tmp_path_factory.mktemp("short") / "short.mp4", face_frames[:24], crf="20")


def replicas(deployment: str) -> list[int]:
    """Process ids of this service's replicas; the application's name is this test run's own."""
    title = f"ray::ServeReplica:{APPLICATION}:{deployment}"
    found = []
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                command = (folder / "cmdline").read_bytes().decode(errors="replace")
            except OSError:
                continue
            if command.startswith(title):
                found.append(int(folder.name))
    return found


def under_load(service: Service, video: Path, requests_: int, disturb: Callable[[], None]) -> list[dict[str, Any]]:
    """Answers to `requests_` uploads by three clients, while `disturb` does its worst."""
    client = Client(service.url)
    started = threading.Event()

    def ask() -> dict[str, Any]:
        started.set()
        return client.predict(video)

    with ThreadPoolExecutor(3) as pool:
        answers: list[Future[dict[str, Any]]] = [pool.submit(ask) for _ in range(requests_)]
        started.wait()
        disturb()
        return [answer.result(timeout=200) for answer in answers]


def test_http_gives_the_numbers_of_the_command_line(service: Service, face_video: Path, model_folder: Path) -> None:
    client = Client(service.url)
    wanted = expected(face_video, model_folder)
    assert same(client.predict(face_video)["rows"], wanted)
    events = list(client.stream(face_video))
    rows = [{k: v for k, v in event.items() if k != "type"} for event in events if event["type"] == "row"]
    assert events[0]["type"] == "start"
    assert same(rows, wanted)
    assert len(client.csv(face_video).splitlines()) == len(wanted) + 1
    assert client.model()["version"] == ModelReader(model_folder, "cpu").description.version


def test_a_callers_trace_goes_through_all_replicas(service: Service, short_video: Path) -> None:
    caller = secrets.token_hex(16)
    answer = requests.post(
        f"{service.url}/v1/predict",
        files={"file": short_video.read_bytes()},
        headers={"traceparent": f"00-{caller}-{'b' * 16}-01"},
        timeout=100,
    )
    assert answer.status_code == 200
    wanted, until = {"request", "upload", "video", "model"}, time.monotonic() + 30
    found: set[str] = set()
    while not wanted <= found and time.monotonic() < until:
        time.sleep(0.5)
        found = {span.name for span in service.spans if span.trace_id.hex() == caller}
    assert wanted <= found, "and those of FastAPI itself"


def test_a_camera_is_answered_through_serve(
    service: Service, face_frames: list[NDArray[np.uint8]], model_folder: Path
) -> None:
    url = service.url.replace("http", "ws") + "/v1/live"
    pictures = [cv2.imencode(".jpg", frame[..., ::-1])[1].tobytes() for frame in face_frames[:5]]
    with connect(url, subprotocols=[Subprotocol("ssm.live")]) as session:
        start = json.loads(session.recv(30))
        for number, picture in enumerate(pictures):
            session.send(picture)
            answer = json.loads(session.recv(30))
            session.send(json.dumps({"taken": number + 1}))
            assert (answer["frame"], answer["rows"][0]["success"]) == (number, 1)
    assert start["model"]["version"] == ModelReader(model_folder, "cpu").description.version
    with pytest.raises(InvalidStatus) as refused, connect(url + "?face=main"):
        pass
    assert refused.value.response.status_code in (400, 403)


def test_replicas_killed_under_load_lose_nothing(service: Service, short_video: Path, model_folder: Path) -> None:
    def kill() -> None:
        for deployment in ("model", "video"):
            time.sleep(0.3)
            os.kill(replicas(deployment)[0], signal.SIGKILL)

    wanted = expected(short_video, model_folder)
    answers = under_load(service, short_video, 12, kill)
    assert [same(answer["rows"], wanted) for answer in answers] == [True] * 12


def test_overload_is_503_with_retry_after_and_passes(service: Service, short_video: Path, model_folder: Path) -> None:
    content = short_video.read_bytes()

    def ask(_: int) -> requests.Response:
        return requests.post(f"{service.url}/v1/predict", files={"file": content}, timeout=100)

    slowest = 0.0
    with ThreadPoolExecutor(24) as pool:
        asked = [pool.submit(ask, number) for number in range(24)]
        while not all(future.done() for future in asked):
            for path in ("/", "/v2/health/ready"):
                start = time.monotonic()
                assert requests.get(f"{service.url}{path}", timeout=20).status_code == 200
                slowest = max(slowest, time.monotonic() - start)
        answers = [future.result() for future in asked]
    assert slowest < 3, "page and readiness have places of their own"
    refused = [answer for answer in answers if answer.status_code != 200]
    assert {answer.status_code for answer in refused} <= {503}
    assert refused
    assert all(int(answer.headers["Retry-After"]) >= 1 and "error" in answer.json() for answer in refused)
    wanted = expected(short_video, model_folder)
    assert all(same(answer.json()["rows"], wanted) for answer in answers if answer.status_code == 200)
    assert same(Client(service.url).predict(short_video)["rows"], wanted)


def test_the_model_changes_without_a_failed_request(
    service: Service, short_video: Path, model_folder: Path, other_model_folder: Path
) -> None:
    wanted = {
        ModelReader(folder, "cpu").description.version: expected(short_video, folder)
        for folder in (model_folder, other_model_folder)
    }
    answers: list[dict[str, Any]] = []
    stop = threading.Event()

    def keep_asking() -> None:
        client = Client(service.url, patience_s=0)  # no second try: an update alone must not refuse anyone
        while not stop.is_set():
            answers.append(client.predict(short_video))

    threads = [ThreadPoolExecutor(1) for _ in range(2)]
    asking = [pool.submit(keep_asking) for pool in threads]
    deploy(service.settings.model_copy(update={"model": str(other_model_folder)}))
    time.sleep(1)
    stop.set()
    for future in asking:
        future.result(timeout=100)
    assert {answer["model"]["version"] for answer in answers} == set(wanted)
    assert all(same(answer["rows"], wanted[answer["model"]["version"]]) for answer in answers)
    with short_video.open("rb") as upload:  # the new model looks at places
        answer = requests.post(f"{service.url}/v1/predict?where=on", files={"file": upload}, timeout=100).json()
    assert [list(face["aus"]) for face in answer["where"]] == [[unit["code"] for unit in answer["model"]["aus"]]]


def test_metrics_are_there_to_be_scraped(service: Service) -> None:
    names = {"ray_ssm_requests", "ray_ssm_request_seconds", "ray_ssm_stage_seconds", "ray_ssm_batch_clips",
             "ray_ssm_frames", "ray_ssm_frames_with_face", "ray_ssm_waiting_clips", "ray_ssm_open_requests",
             "ray_ssm_refusals", "ray_ssm_model_info", "ray_ssm_decode_cpu_seconds",
             "ray_serve_deployment_replica_healthy"}  # fmt: skip
    assert requests.get(f"{service.url}/nowhere", timeout=20).status_code == 404
    until = time.monotonic() + 60
    missing = names
    while missing and time.monotonic() < until:
        text = requests.get(f"{service.url}/metrics", timeout=20).text
        missing = {name for name in names if not re.search(rf"^{name}(_total|_bucket)?[{{ ]", text, re.MULTILINE)}
        time.sleep(2)
    assert missing == set()


def test_the_examples_of_the_documentation_run(
    service: Service, short_video: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = (REPOSITORY / "docs" / "serving.md").read_text()
    shell = re.findall(r"```bash\n# example\n(.*?)```", text, re.DOTALL)
    python = re.findall(r"```python\n# example\n(.*?)```", text, re.DOTALL)
    assert len(shell) >= 3
    assert len(python) >= 2
    (tmp_path / "clip.mp4").write_bytes(short_video.read_bytes())
    monkeypatch.chdir(tmp_path)
    for example in shell:
        command = example.replace("http://localhost:8000", service.url).replace("--silent", "--silent --fail-with-body")
        done = subprocess.run(["bash", "-ec", command], cwd=tmp_path, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, (command, done.stdout[-500:], done.stderr[-500:])
    for example in python:
        code = example.replace("//localhost:8000", service.url.removeprefix("http:"))
        exec(compile(code, "docs/serving.md", "exec"), {"__name__": "example"})


def test_the_command_of_serve_itself_runs_the_application(service: Service, model_folder: Path) -> None:
    """`serve run` of docs/serving.md, beside the other application. The last test: its end stops Serve."""
    import ray

    program, *words = documented("serving.md", "serve run serve.app:build")
    words = [f"model={model_folder}" if word.startswith("model=") else word for word in words]
    beside = ["--name=ran", "--route-prefix=/ran", f"--address={ray.get_runtime_context().gcs_address}"]
    command = [str(Path(sys.executable).with_name(program)), *words, *beside]
    process = subprocess.Popen(command, cwd=REPOSITORY, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    try:
        until, ready = time.monotonic() + 120, False
        while not ready and time.monotonic() < until and process.poll() is None:
            time.sleep(1)
            left = max(until - time.monotonic(), 1)  # Serve holds a request while the first replicas start
            ready = requests.get(f"{service.url}/ran/v2/health/ready", timeout=left).status_code == 200
    finally:
        process.send_signal(signal.SIGINT)
        output = process.communicate(timeout=60)[0].decode()
    assert ready, output[-3000:]
