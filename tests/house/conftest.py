"""A Ray cluster as an operator starts it: `ray start --head` with token authentication, on ports of its own."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from pages import documented

RAY = Path(sys.executable).with_name("ray")


@dataclass(frozen=True)
class Head:
    """A running head: where its dashboard listens, and the environment that lets a client in."""

    dashboard: str
    environment: dict[str, str]
    folder: Path
    process: subprocess.Popen[bytes]

    def submit(self, *command: str, cwd: Path, limit: float = 240) -> subprocess.CompletedProcess[str]:
        """`ray job submit ... -- command` and its whole output; sent again while the head has no agent yet."""
        words = [str(RAY), "job", "submit", "--address", self.dashboard, *command]
        until = time.monotonic() + 90
        while True:
            result = subprocess.run(
                words, cwd=cwd, env=self.environment, capture_output=True, text=True, timeout=limit, check=False
            )
            if "No available agent" not in result.stdout + result.stderr or time.monotonic() > until:
                return result
            time.sleep(1)

    def kill(self) -> None:
        """The machine goes dark: every process of the head dies at once, with no time to say so."""
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


@contextmanager
def started_head(folder: Path) -> Iterator[Head]:
    """A head of its own, with a token of its own, ended by ending the process group that was started here.

    Its sessions lie in a place of their own as well: jobs find their cluster by a file there, which heads would share.
    """
    scratch = tempfile.mkdtemp(prefix="ssm-", dir="/tmp")  # short: sockets lie below it
    token = folder / ".ray" / "auth_token"
    mode, _, *start = documented("cluster.md", "RAY_AUTH_MODE=token ray start --head")
    port, dashboard, client, agent = (free_port() for _ in range(4))
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("RAY_")},
        "PATH": f"{RAY.parent}:{os.environ['PATH']}",  # as in an activated environment: jobs run its `python`
        "OMP_NUM_THREADS": "1",
        **dict([mode.split("=")]),
        "RAY_AUTH_TOKEN_PATH": str(token),
        "RAY_TMPDIR": scratch,
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_USAGE_STATS_REPORT_URL": "http://127.0.0.1:9",
    }
    command = [
        str(RAY), *start, "--block", f"--port={port}", f"--dashboard-port={dashboard}",
        f"--ray-client-server-port={client}", f"--dashboard-agent-listen-port={agent}", "--num-cpus=4",
        f"--object-store-memory={256 * 2**20}",
        "--node-ip-address=127.0.0.1", "--disable-usage-stats",
    ]  # fmt: skip
    _, *generate = documented("cluster.md", "ray get-auth-token --generate")
    owner = {**environment, "HOME": str(folder)}  # Ray writes a token to its place below the home folder alone
    del owner["RAY_AUTH_TOKEN_PATH"]
    subprocess.run([str(RAY), *generate], env=owner, check=True, capture_output=True, timeout=60)
    assert len(token.read_text()) == 64
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(
            command, env=environment, stdout=log, stderr=subprocess.STDOUT, cwd=folder, start_new_session=True
        )
        try:
            url = f"http://127.0.0.1:{dashboard}"
            _wait_until_it_answers(url, process, folder / "log")
            yield Head(url, {**environment, "RAY_ADDRESS": f"127.0.0.1:{port}"}, folder, process)
        finally:
            process.send_signal(signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(timeout=10)
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            shutil.rmtree(scratch, ignore_errors=True)


@pytest.fixture(scope="session")
def head(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Head]:
    """One head for the session."""
    with started_head(tmp_path_factory.mktemp("head")) as running:
        yield running


@pytest.fixture
def start_head(tmp_path: Path) -> Callable[[], AbstractContextManager[Head]]:
    """A head that the test may kill: `with start_head() as head`."""
    return lambda: started_head(tmp_path)


@pytest.fixture(scope="session")
def unused_port() -> Callable[[], int]:
    """`unused_port()`: a TCP port that nobody listens on right now."""
    return free_port


def free_port() -> int:
    """A TCP port that nobody listens on right now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _wait_until_it_answers(url: str, process: subprocess.Popen[bytes], log: Path, limit: float = 90) -> None:
    deadline = time.monotonic() + limit
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise RuntimeError(f"ray start ended with {process.returncode}: {log.read_text()[-2000:]}")
        try:
            urllib.request.urlopen(f"{url}/api/version", timeout=2)
        except urllib.error.HTTPError:
            return  # it answers, and asks who we are
        except OSError:
            time.sleep(0.5)
        else:
            return
    raise TimeoutError(f"no dashboard at {url} within {limit} s: {log.read_text()[-2000:]}")
