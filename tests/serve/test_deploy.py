"""jobs/deploy.py as its users run it, on a cluster of its own: started, updated without an address, stopped."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from pages import documented

from serve.client import Client
from ssm_platform.models.registry import Registry

pytestmark = [pytest.mark.ray, pytest.mark.timeout(400)]
REPOSITORY = Path(__file__).resolve().parents[2]
SMALL = ["--ingress.cpus=0.1", "--video.cpus=0.2", "--inference.cpus=0.2", "--threads=1"]


@dataclass
class Started:
    """The first command, still running."""

    process: subprocess.Popen[bytes]
    words: list[str]
    environment: dict[str, str]
    url: str
    log: Path


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the registry lies."""
    return tmp_path_factory.mktemp("registry")


@pytest.fixture(scope="module")
def registry(place: Path, model_folder: Path, other_model_folder: Path) -> Registry:
    """Two models, of which the first is in production."""
    registry = Registry(place)
    first = registry.publish(model_folder, "one")
    registry.publish(other_model_folder, "two")
    registry.point("production", first)
    return registry


@pytest.fixture(scope="module")
def started(place: Path, registry: Registry, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Started]:
    folder = tmp_path_factory.mktemp("deploy")
    (folder / "home").mkdir()
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    program, script, *options = documented("serving.md", "python jobs/deploy.py")
    assert program == "python"
    options = ["production" if word == "latest" else word for word in options]
    words = [sys.executable, str(REPOSITORY / script), *options, f"--registry={place}", f"--port={port}", *SMALL]
    environment = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    environment |= {"HOME": str(folder / "home"), "OMP_NUM_THREADS": "1"}
    log = folder / "log"
    with log.open("w") as output:
        process = subprocess.Popen(words, env=environment, stdout=output, stderr=subprocess.STDOUT, cwd=folder)
    until = time.monotonic() + 150
    while "serving on" not in log.read_text():
        assert process.poll() is None, log.read_text()[-3000:]
        assert time.monotonic() < until, log.read_text()[-3000:]
        time.sleep(0.5)
    yield Started(process, words, environment, f"http://127.0.0.1:{port}", log)
    process.kill()
    process.wait()


def test_production_moved_in_the_registry_is_rolled_out_by_the_same_command_again(
    started: Started, registry: Registry
) -> None:
    """The roll-out of docs/serving.md: move the alias, run the same command; no address, and no request fails."""
    client = Client(started.url, patience_s=0)
    before = client.model()["version"]
    registry.point("production", registry.version("latest"))
    assert client.model()["version"] == before, "a running service does not follow the alias by itself"
    again = subprocess.Popen(started.words, env=started.environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    while again.poll() is None:
        client.model()  # patience 0: one refusal would raise
        time.sleep(0.2)
    assert again.stdout is not None
    output = again.stdout.read().decode()
    assert again.returncode == 0, output[-3000:]
    assert "updated http://" in output
    until = time.monotonic() + 30
    while client.model()["version"] == before and time.monotonic() < until:
        time.sleep(0.5)
    assert client.model()["version"] != before
    assert started.process.poll() is None, "the first command goes on serving"


def test_detach_without_a_cluster_is_refused(started: Started) -> None:
    done = subprocess.run(
        [*started.words, "--detach"], env=started.environment, capture_output=True, text=True, timeout=100
    )
    assert done.returncode == 1
    assert "RAY_ADDRESS names none" in done.stderr


def test_ctrl_c_ends_it_and_leaves_no_note(started: Started) -> None:
    notes = list((Path(started.environment["HOME"]) / ".ray").glob("ssm-serving-*"))
    assert len(notes) == 1
    started.process.send_signal(signal.SIGINT)
    assert started.process.wait(timeout=100) == 0
    assert "stopped" in started.log.read_text()
    assert not notes[0].exists()
