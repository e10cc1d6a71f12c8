"""Disturb the service under steady load: `python bench/serving/drill.py [--seconds 60]`.

Clients upload without pause and follow Retry-After, while a model replica and a video replica are killed with SIGKILL,
the model is updated, load rises until replicas are added, and falls until they go. Then load far beyond capacity. Every
answer is compared with the library's own numbers for the model version it names. Exit code 1 for one wrong or lost.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import socket
import sys
import tempfile
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import requests
from subjects import APPLICATION, PeakWatch, save_model, service_pids, write_video

from serve.client import Client
from serve.settings import Scaling, Settings

SCALING_DOWN_S = 90  # Serve looks at the mean of the last half minute
Rows = list[dict[str, Any]]


@dataclass
class Load:
    """Clients that upload without pause until stopped, and what they got."""

    url: str
    video: Path
    answers: list[tuple[float, str, Rows]] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)
    threads: list[threading.Thread] = field(default_factory=list)
    clients: int = 0  # those that go on asking

    def add(self, clients: int) -> None:
        """More clients."""
        self.clients += clients
        for number in range(len(self.threads), self.clients):
            self.threads.append(threading.Thread(target=self._ask, args=(number,), daemon=True))
            self.threads[-1].start()

    def keep(self, clients: int) -> None:
        """Only so many go on; waits for what the others have under way."""
        self.clients = clients
        for thread in self.threads[clients:]:
            thread.join()

    def _ask(self, number: int) -> None:
        client = Client(self.url, patience_s=120)
        while number < self.clients:
            try:
                answer = client.predict(self.video)
            except Exception as error:  # noqa: BLE001 whatever it is, an answer was lost
                self.lost.append(repr(error))
                continue
            self.answers.append((time.monotonic(), answer["model"]["version"], answer["rows"]))


def same(rows: Rows, wanted: Rows) -> bool:
    """Equal but for the last of five decimals."""
    if [list(row) for row in rows] != [list(row) for row in wanted]:
        return False
    tables = [[[np.nan if v is None else v for v in row.values()] for row in part] for part in (rows, wanted)]
    return bool(np.allclose(tables[0], tables[1], atol=2e-5, rtol=0, equal_nan=True))


def expected(video: Path, model: Path) -> tuple[str, Rows]:
    """The model's version, and its rows for the video."""
    from ssm_platform.read.model_reader import ModelReader
    from ssm_platform.read.rows import analyse
    from ssm_platform.read.tables import record
    from ssm_platform.read.windows import Row

    reader = ModelReader(model, "cpu", threads=1)
    labels = reader.description.vocabulary
    rows = [record(result, labels) for result in analyse([video], reader) if isinstance(result, Row)]
    return reader.description.version, rows


def kill(deployment: str) -> None:
    """SIGKILL to one replica of this run's own application."""
    title = f"ray::ServeReplica:{APPLICATION}:{deployment}"
    for pid in service_pids():
        if Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace").startswith(title):
            os.kill(pid, signal.SIGKILL)
            return


def replicas(deployment: str) -> int:
    """How many replicas of this deployment live."""
    title = f"ray::ServeReplica:{APPLICATION}:{deployment}"
    commands = [Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace") for pid in service_pids()]
    return sum(command.startswith(title) for command in commands)


def overload(url: str, video: Path, clients: int) -> dict[str, Any]:
    """Many uploads at once, without patience: statuses, and whether refusals name when to come back."""
    content = video.read_bytes()

    def ask(_: int) -> tuple[int, bool]:
        answer = requests.post(f"{url}/v1/predict", files={"file": content}, timeout=600)
        return answer.status_code, "Retry-After" in answer.headers

    watch = PeakWatch()
    with watch, ThreadPoolExecutor(clients) as pool:
        answers = list(pool.map(ask, range(3 * clients)))
    start = time.monotonic()
    Client(url).predict(video)
    return {
        "statuses": dict(Counter(status for status, _ in answers)),
        "refusals_with_retry_after": all(after for status, after in answers if status != 200),
        "peak_mib": round(watch.peak_mib),
        "recovered_s": round(time.monotonic() - start, 1),
    }


def run(seconds: float, folder: Path) -> dict[str, Any]:
    """The drill; returns its report."""
    import ray
    from ray import serve

    from serve.app import build

    models = [save_model(folder / "one", seed=0), save_model(folder / "two", seed=1)]
    video = write_video(folder / "face.mp4", 1.5)
    wanted = dict(expected(video, model) for model in models)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    ray.init(address="local", num_cpus=8, object_store_memory=512 * 2**20, include_dashboard=False)
    quick = {"upscale_delay_s": 2, "downscale_delay_s": 4}
    settings = Settings(
        model=str(models[0]),
        threads=1,
        ingress=Scaling(cpus=0.2, ongoing=64, target=48, queued=256),
        video=Scaling(cpus=0.5, ongoing=2, target=1, queued=8, replicas=1, replicas_max=3, **quick),
        inference=Scaling(cpus=0.5, ongoing=16, target=4, queued=64, replicas=2, replicas_max=3, **quick),
    )
    serve.start(http_options={"host": "127.0.0.1", "port": port})
    serve.run(build(settings), name=APPLICATION, route_prefix="/")
    url = f"http://127.0.0.1:{port}"
    quiet = PeakWatch()
    with quiet:
        Client(url).predict(video)
    load, before = Load(url, video), replicas("video")
    load.add(2)
    time.sleep(seconds / 6)
    kill("model")
    time.sleep(seconds / 6)
    kill("video")
    time.sleep(seconds / 6)
    updated = settings.model_copy(update={"model": str(models[1])})
    serve.run(build(updated), name=APPLICATION, route_prefix="/")
    load.add(4)
    time.sleep(seconds / 3)
    most = replicas("video")
    load.keep(1)
    until = time.monotonic() + SCALING_DOWN_S
    while replicas("video") == most and time.monotonic() < until:
        time.sleep(0.5)
    after = replicas("video")
    load.keep(0)
    report = {
        "answers": len(load.answers),
        "lost": load.lost,
        "wrong": sum(not same(rows, wanted[version]) for _, version, rows in load.answers),
        "versions": len({version for _, version, _ in load.answers}),
        "longest_gap_s": round(longest_gap([at for at, _, _ in load.answers]), 1),
        "video_replicas": {"before": before, "most": most, "after": after},
        "quiet_mib": round(quiet.peak_mib),
        "overload": overload(url, video, 24),
    }
    serve.shutdown()
    ray.shutdown()
    return report


def longest_gap(times: list[float]) -> float:
    """The longest time without an answer."""
    ordered = sorted(times)
    gaps = [after - before for before, after in pairwise(ordered)]
    return max(gaps, default=0.0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=60, help="of steady load (60)")
    known = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        report = run(known.seconds, Path(name))
    print(json.dumps(report, indent=1))
    counts = report["video_replicas"]
    scaled = counts["before"] < counts["most"] > counts["after"]
    sys.exit(1 if report["lost"] or report["wrong"] or report["versions"] != 2 or not scaled else 0)


if __name__ == "__main__":
    main()
