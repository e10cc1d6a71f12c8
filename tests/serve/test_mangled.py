"""Hostile uploads and the OpenAPI's own edge cases: only 4xx with a clear message, nothing leaked, nothing left.

`python bench/serving/mangled.py` sends thousands; here are a few hundred.
"""

from __future__ import annotations

import importlib.util
import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fastapi import FastAPI
from numpy.typing import NDArray
from pages import documented
from starlette.testclient import TestClient

REPOSITORY = Path(__file__).resolve().parents[2]
LEAKS = ("Traceback", 'File "', "/tmp", "site-packages", ".py", "0x7f")
REQUESTS = 300


def has(*commands: str) -> bool:
    """Whether these commands are on this machine."""
    return all(shutil.which(name) or shutil.which(name, path="/usr/sbin") for name in commands)


def load(name: str) -> Any:
    """A module of bench/serving/."""
    spec = importlib.util.spec_from_file_location(name, REPOSITORY / "bench" / "serving" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def client(local_app: FastAPI, tmp_path: Path) -> Iterator[TestClient]:
    with TestClient(local_app, raise_server_exceptions=False) as client:
        yield client
    assert [path for path in (tmp_path / "scratch").rglob("*") if path.is_file()] == []


@pytest.fixture(scope="module")
def originals(
    face_frames: list[NDArray[np.uint8]], tmp_path_factory: pytest.TempPathFactory, write_video: Callable[..., Path]
) -> list[bytes]:
    """Whole small files of several kinds."""
    import cv2

    folder = tmp_path_factory.mktemp("originals")
    small = [np.ascontiguousarray(frame[::2, ::2]) for frame in face_frames[:12]]
    videos = [
        write_video(folder / "a.mp4", small),
        write_video(folder / "b.mkv", small),
        write_video(folder / "c.avi", small, codec="mpeg4"),
        write_video(folder / "d.webm", small, codec="libvpx-vp9"),
    ]
    pictures = [cv2.imencode(ending, small[0])[1].tobytes() for ending in (".jpg", ".png", ".webp", ".bmp")]
    return [path.read_bytes() for path in videos] + pictures


def test_mangled_uploads_are_refused_or_read_and_nothing_else(client: TestClient, originals: list[bytes]) -> None:
    mangle = load("mangle")
    statuses: dict[str, set[int]] = {}
    for seed in range(REQUESTS):
        request = mangle.mangled(seed, originals)
        answer = client.post("/v1/predict", content=request.body, headers=request.headers)
        statuses.setdefault(request.kind, set()).add(answer.status_code)
        assert answer.status_code == 200 or 400 <= answer.status_code < 500, (seed, request.kind, answer.text)
        if answer.status_code != 200:
            assert list(answer.json()) == ["error", "request_id"], (seed, request.kind)
            assert answer.json()["error"]
            assert not [leak for leak in LEAKS if leak in answer.text], (seed, request.kind, answer.text)
    for kind in ("empty", "wrong type", "pixel bomb", "huge headers", "many parts", "lying types"):
        assert 200 not in statuses[kind]


@pytest.mark.skipif(not has("nginx", "ffmpeg"), reason="the drill needs the commands nginx and ffmpeg")
@pytest.mark.ray
def test_the_drill_through_proxy_and_serve_needs_nothing_but_its_command(model_folder: Path) -> None:
    _, script, *_ = documented("serving.md", "python bench/serving/mangled.py")
    command = [sys.executable, str(REPOSITORY / script), f"--model={model_folder}"]
    done = subprocess.run([*command, "--count=12"], capture_output=True, text=True, timeout=250)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    assert json.loads(done.stdout.splitlines()[-1])["requests"] == 3 + 7 + 12


def test_schemathesis_finds_no_server_error_and_no_undocumented_answer(local_app: FastAPI) -> None:
    schemathesis = pytest.importorskip("schemathesis")
    from hypothesis import HealthCheck, Phase, given, settings

    schema = schemathesis.openapi.from_asgi("/openapi.json", local_app)
    conformance = schemathesis.specs.openapi.checks
    wanted = [
        schemathesis.checks.not_a_server_error,
        conformance.status_code_conformance,
        conformance.content_type_conformance,
        conformance.response_schema_conformance,
    ]
    for operation in schema.get_all_operations():
        api = operation.ok()

        @given(case=api.as_strategy())
        @settings(max_examples=50, deadline=None, database=None, derandomize=True, phases=[Phase.generate],
                  suppress_health_check=list(HealthCheck))  # fmt: skip
        def check(case: Any) -> None:
            case.call_and_validate(checks=wanted)

        check()
