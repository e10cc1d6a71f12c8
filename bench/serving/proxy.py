"""The reverse proxy of `deploy/nginx.conf` before a service: `with proxied(port) as url`. Needs the command `nginx`."""

from __future__ import annotations

import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

CONFIGURATION = Path(__file__).resolve().parents[2] / "deploy" / "nginx.conf"
NGINX = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin:/usr/local/sbin")


@contextmanager
def proxied(upstream: int, **changes: str) -> Iterator[str]:
    """The address of a proxy before 127.0.0.1:`upstream`. `changes`: words of the file and what stands for them."""
    if NGINX is None:
        raise RuntimeError("no nginx on this machine: apt-get install nginx-light")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    text = CONFIGURATION.read_text().replace("127.0.0.1:8000", f"127.0.0.1:{upstream}").replace(":8080", f":{port}")
    for old, new in changes.items():
        text = text.replace(old, new)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)  # its workers are another user
        (folder / "nginx.conf").write_text(text)
        process = subprocess.Popen([NGINX, "-p", name, "-c", str(folder / "nginx.conf"), "-e", "stderr"])
        try:
            _wait(process, port)
            yield f"http://127.0.0.1:{port}"
        finally:
            process.terminate()
            process.wait(20)


def _wait(process: subprocess.Popen[bytes], port: int) -> None:
    until = time.monotonic() + 10
    while time.monotonic() < until:
        if process.poll() is not None:
            raise RuntimeError(f"nginx ended with {process.returncode}; its reason stands above")
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
        except OSError:
            time.sleep(0.05)
        else:
            return
    raise RuntimeError("nginx does not listen")
