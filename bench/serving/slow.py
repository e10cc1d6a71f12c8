"""128 clients that send a byte a second: `python bench/serving/slow.py [--seconds 30]`.

First to the proxy, as strangers would, then to Serve itself, behind it. Page, health and metrics are asked over and
over, and one honest client, at another address, uploads a video: the proxy holds an address to 16 uploads of 64, so
that one alone cannot take all places. Exits 1 where a probe took longer than a second, the honest client got no answer
through the proxy, or scratch grew beyond its budget.
"""

from __future__ import annotations

import argparse
import json
import socket
import sys
import tempfile
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import requests
from deployed import deployed
from mangled import settings
from requests.adapters import HTTPAdapter
from subjects import save_model, write_video

from serve.client import Client, ServiceError

SENDERS, SLOWEST_S = 128, 1.0
HONEST = "127.0.0.2"
PATHS = ("/", "/v2/health/live", "/v2/health/ready", "/metrics")
HEAD = (
    b"POST /v1/predict HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 1000000\r\n"
    b"Content-Type: multipart/form-data; boundary=b\r\n\r\n"
)


@dataclass
class Senders:
    """Connections that send a byte a second; one that is closed is opened again."""

    url: str
    stop: threading.Event = field(default_factory=threading.Event)
    opened: int = 0

    def run(self) -> None:
        """Until told to stop."""
        host, port = self.url.removeprefix("http://").split(":")
        sockets: list[socket.socket | None] = [None] * SENDERS
        while not self.stop.wait(1):
            for number, sender in enumerate(sockets):
                try:
                    if sender is None:
                        sockets[number] = sender = socket.create_connection((host, int(port)), 5)
                        sender.sendall(HEAD)
                        self.opened += 1
                    sender.sendall(b"-")
                except OSError:
                    sockets[number] = None
        for sender in sockets:
            if sender is not None:
                sender.close()


class FromAddress(HTTPAdapter):
    """Requests that come from an address of this machine's own."""

    def __init__(self, address: str) -> None:
        self._address = address
        super().__init__()

    def init_poolmanager(self, *arguments: Any, **options: Any) -> None:
        """As the base class, from the address."""
        super().init_poolmanager(*arguments, source_address=(self._address, 0), **options)


def scratch_bytes(folder: Path) -> int:
    """What lies there."""
    total = 0
    for path in folder.rglob("*"):
        try:
            total += path.stat().st_size if path.is_file() else 0
        except FileNotFoundError:
            continue
    return total


def under(url: str, asked: str, video: Path, scratch: Path, seconds: float) -> dict[str, object]:
    """Slow senders to `url`, probes and an honest client to `asked`: the slowest probe, and what the client got."""
    senders = Senders(url)
    thread = threading.Thread(target=senders.run)
    thread.start()
    try:
        slowest, most = probed(asked, scratch, seconds)
        start = time.monotonic()
        client = Client(asked, patience_s=60)
        client._session.mount("http://", FromAddress(HONEST))
        try:
            rows = len(client.predict(video)["rows"])
        except ServiceError as error:
            rows = error.status
        honest = round(time.monotonic() - start, 1)
    finally:
        senders.stop.set()
        thread.join()
    return {"slowest_s": slowest, "scratch_bytes": most, "opened": senders.opened, "rows": rows, "honest_s": honest}


def probed(asked: str, scratch: Path, seconds: float) -> tuple[dict[str, float], int]:
    """The slowest answer to each probe, and the most that scratch held. HTTPError for a probe that is refused."""
    slowest, most, session = dict.fromkeys(PATHS, 0.0), 0, requests.Session()
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        for path in PATHS:
            start = time.monotonic()
            session.get(asked + path, timeout=60).raise_for_status()
            slowest[path] = max(slowest[path], round(time.monotonic() - start, 3))
        most = max(most, scratch_bytes(scratch))
        time.sleep(0.2)
    return slowest, most


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=30, help="of probing each time (30)")
    known = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        video = write_video(folder / "face.mp4", 1)
        asked = settings(save_model(folder / "model"), folder / "scratch")
        with deployed(asked) as (url, serve):
            Client(url).predict(video)
            report = {
                "through the proxy": under(url, url, video, folder / "scratch", known.seconds),
                "to Serve itself": under(serve, serve, video, folder / "scratch", known.seconds),
            }
    print(json.dumps(report, indent=1))
    slow = [path for part in report.values() for path, took in part["slowest_s"].items() if took > SLOWEST_S]  # type: ignore[attr-defined]
    full = [part for part in report.values() if part["scratch_bytes"] > asked.limits.spool_bytes]  # type: ignore[operator]
    sys.exit(1 if slow or full or report["through the proxy"]["rows"] != 25 else 0)


if __name__ == "__main__":
    main()
