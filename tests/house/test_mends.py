"""What a machine or a cluster lacks is said in one line, with what mends it."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
JOIN = "from ssm_platform import cluster\nwith cluster.joined(1): print('joined')"
METADATA = """
import json, sys, ray
from ray._common.usage.usage_constants import CLUSTER_METADATA_KEY as key
from ray.experimental.internal_kv import _internal_kv_get, _internal_kv_put
ray.init(address="auto", logging_level="error")
content = json.loads(_internal_kv_get(key, namespace=b"cluster"))
content["ray_version"] = sys.argv[1]
_internal_kv_put(key, json.dumps(content).encode(), overwrite=True, namespace=b"cluster")
"""


def make(*arguments: str, cwd: Path = REPOSITORY) -> str:
    """What `make ARGUMENTS` says; it must fail."""
    result = subprocess.run(["make", *arguments], cwd=cwd, capture_output=True, text=True, timeout=60, check=False)
    assert result.returncode != 0
    return next(line for line in result.stdout.splitlines() if line.startswith("make: "))


def python(code: str, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code, *arguments], env={**os.environ, **environment}, capture_output=True, text=True,
        timeout=200, check=False,
    )  # fmt: skip


def last_line(result: subprocess.CompletedProcess[str]) -> str:
    assert result.returncode != 0
    return result.stderr.strip().splitlines()[-1]


def test_no_python_or_an_old_one(tmp_path: Path) -> None:
    old = tmp_path / "python3"
    old.write_text("#!/bin/sh\nexit 1\n")
    old.chmod(0o755)
    for name in (str(tmp_path / "absent"), str(old)):
        said = make("machine", f"PYTHON={name}")
        assert "Python 3.11 or newer is needed" in said
        assert "make PYTHON=" in said


def test_a_python_that_cannot_make_environments(tmp_path: Path) -> None:
    bare = tmp_path / "python3"
    bare.write_text('#!/bin/sh\ncase "$2" in *venv*) exit 1;; esac\n')
    bare.chmod(0o755)
    assert "apt-get install python3-venv" in make("machine", f"PYTHON={bare}")


def test_no_room_for_the_environment(tmp_path: Path) -> None:
    said = make("machine", f"PYTHON={sys.executable}", f"VENV={tmp_path / 'none'}", "NEEDS_GIB=999999999")
    assert re.search(r"999999999 GiB of disk are needed .*, \d+ are free; .*make VENV=", said)


@pytest.mark.ray
def test_a_port_in_use(ray_cluster: None, tiny_run: Path) -> None:
    import ray

    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        script = [str(REPOSITORY / "jobs" / "deploy.py"), "--model", str(tiny_run / "model"), f"--port={port}"]
        result = subprocess.run(
            [sys.executable, *script], env={**os.environ, "RAY_ADDRESS": ray.get_runtime_context().gcs_address},
            capture_output=True, text=True, timeout=200, check=False,
        )  # fmt: skip
    assert last_line(result) == f"error: 127.0.0.1:{port}: Address already in use; name another with --port or --host"


@pytest.mark.ray
def test_a_stale_token(head: Any, tmp_path: Path) -> None:
    stale = tmp_path / "token"
    stale.write_text("0" * 64)
    said = last_line(python(JOIN, **{**head.environment, "RAY_AUTH_TOKEN_PATH": str(stale)}))
    assert "the cluster does not take our token: copy ~/.ray/auth_token from its head" in said
    assert head.environment["RAY_ADDRESS"] in said


@pytest.mark.ray
def test_a_cluster_of_another_version(head: Any) -> None:
    with pretended_version(head, "2.40.0"):
        said = last_line(python(JOIN, **head.environment))
    assert "the cluster runs Ray 2.40.0 on Python" in said
    assert "install the same here, or unset RAY_ADDRESS" in said
    assert "joined" in python(JOIN, **head.environment).stdout


@pytest.mark.ray
def test_nobody_at_the_address(unused_port: Callable[[], int]) -> None:
    said = last_line(python(JOIN, RAY_ADDRESS=f"127.0.0.1:{unused_port()}"))
    assert "no cluster answers there: start one with `ray start --head`, or unset RAY_ADDRESS" in said


@contextmanager
def pretended_version(head: Any, version: str) -> Iterator[None]:
    """The head tells everyone who joins that it runs another Ray."""
    from ray import __version__ as true

    assert python(METADATA, version, **head.environment).returncode == 0
    try:
        yield
    finally:
        # Nobody of our version may join now, so this client pretends as well.
        mend = f"import ray; ray.__version__ = {version!r}" + METADATA
        assert python(mend, true, **head.environment).returncode == 0
