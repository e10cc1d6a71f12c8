"""What serving costs beside the bare model, as ratios measured in turns in one run.

    python bench/serving/measure.py [--seconds 15] [--rounds 3] [--minutes 30] [--only tensor,video,batch,memory]
        [--json FILE]

Bare: the same saved model in one process on the same cores, fed by a loop. Tensor route: clips over HTTP, eight
clients, four clips a request. Video route: uploads, three clients, against decode + faces + model in a loop. Batch
prediction against the same loop, start-up left out. Memory: the peak of all processes for a 2-second and a `--minutes`
video of 1920 x 1080 at 10 frames a second. The model is untrained (speed does not depend on its weights): convnext_atto
at 112 pixels, 16 frames. Exit code 1 where a target is missed.
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import requests
from subjects import APPLICATION, FRAMES, SIZE, PeakWatch, save_model, write_video

CLIPS, CLIENTS, UPLOADERS = 4, 8, 3


@dataclass(frozen=True)
class Figure:
    """One measured number beside its target."""

    name: str
    value: float
    target: str
    met: bool


# Bare ---------------------------------------------------------------------------------------------------------------


def bare_clips(reader: Any, seconds: float, batch: int) -> float:
    """Clips/s of the model alone, in batches."""
    clips = np.random.default_rng(0).integers(0, 256, (batch, FRAMES, SIZE, SIZE, 3), np.uint8)
    reader.read(clips)
    start, done = time.perf_counter(), 0
    while time.perf_counter() - start < seconds:
        reader.read(clips)
        done += batch
    return done / (time.perf_counter() - start)


def bare_video(reader: Any, video: Path, seconds: float, batch: int) -> float:
    """Frames/s of decode + faces + model in a loop."""
    from ssm_platform.read.rows import analyse
    from ssm_platform.read.windows import Row

    start, frames = time.perf_counter(), 0
    while time.perf_counter() - start < seconds:
        frames += sum(isinstance(result, Row) for result in analyse([video], reader, batch=batch))
    return frames / (time.perf_counter() - start)


# HTTP ---------------------------------------------------------------------------------------------------------------


def tensor_request(clips: int) -> tuple[bytes, dict[str, str]]:
    """Body and headers of an inference request with binary tensors."""
    array = np.random.default_rng(0).integers(0, 256, (clips, FRAMES, SIZE, SIZE, 3), np.uint8)
    tensor = {"name": "clips", "shape": list(array.shape), "datatype": "UINT8"}
    tensor["parameters"] = {"binary_data_size": array.nbytes}
    head = json.dumps({"inputs": [tensor], "parameters": {"binary_data_output": True}}).encode()
    return head + array.tobytes(), {"Inference-Header-Content-Length": str(len(head))}


def sustained(ask: Callable[[requests.Session], int], clients: int, seconds: float) -> float:
    """Units/s of `ask` (which returns the units it got) by some clients for a while."""
    until = time.perf_counter() + seconds

    def keep_asking(_: int) -> int:
        session, units = requests.Session(), 0
        while time.perf_counter() < until:
            units += ask(session)
        return units

    start = time.perf_counter()
    with ThreadPoolExecutor(clients) as pool:
        units = sum(pool.map(keep_asking, range(clients)))
    return units / (time.perf_counter() - start)


def paced(ask: Callable[[requests.Session], int], rate: float, seconds: float) -> list[float]:
    """Latencies of requests sent at a steady rate, whether earlier ones are answered or not."""
    latencies: list[float] = []
    sessions = threading.local()

    def one(due: float) -> None:
        session = sessions.__dict__.setdefault("session", requests.Session())
        ask(session)
        latencies.append(time.perf_counter() - due)

    with ThreadPoolExecutor(32) as pool:
        start = time.perf_counter()
        for number in range(max(20, int(rate * seconds))):
            due = start + number / rate
            time.sleep(max(0.0, due - time.perf_counter()))
            pool.submit(one, due)
    return latencies


@dataclass(frozen=True)
class Site:
    """The running service."""

    url: str

    def infer(self, clips: int) -> Callable[[requests.Session], int]:
        body, headers = tensor_request(clips)

        def ask(session: requests.Session) -> int:
            answer = session.post(f"{self.url}/v2/models/ssm/infer", data=body, headers=headers, timeout=120)
            answer.raise_for_status()
            return clips

        return ask

    def upload(self, video: Path) -> Callable[[requests.Session], int]:
        content = video.read_bytes()

        def ask(session: requests.Session) -> int:
            headers = {"Accept": "text/csv"}
            answer = session.post(
                f"{self.url}/v1/predict", files={"file": content}, headers=headers, timeout=1800, stream=True
            )
            if answer.status_code == 503:
                time.sleep(float(answer.headers["Retry-After"]))
                return 0
            answer.raise_for_status()
            return sum(1 for _ in answer.iter_lines()) - 1

        return ask


def start_service(model: Path, cores: int) -> Site:
    """The service with one model replica of all cores."""
    import ray
    from ray import serve

    from serve.app import build
    from serve.settings import Scaling, Settings
    from ssm_platform.cluster import GIVES_BACK

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    os.environ.update(GIVES_BACK)  # as `jobs/deploy.py` and the manifests start it
    ray.init(address="local", num_cpus=4 * cores, object_store_memory=512 * 2**20, include_dashboard=False)
    settings = Settings(
        model=str(model),
        threads=cores,
        ingress=Scaling(cpus=0.5, ongoing=256, target=32, queued=256),
        video=Scaling(cpus=1, ongoing=4, target=4, queued=64),
        inference=Scaling(cpus=1, ongoing=64, target=32, queued=256),
    )
    serve.start(http_options={"host": "127.0.0.1", "port": port})
    serve.run(build(settings), name=APPLICATION, route_prefix="/")
    return Site(f"http://127.0.0.1:{port}")


# The four measurements ----------------------------------------------------------------------------------------------


def measure_tensor(site: Site, reader: Any, seconds: float, rounds: int) -> list[Figure]:
    """Sustained clips/s over HTTP beside the bare model, and latency at half load beside a lone request."""
    ask = site.infer(CLIPS)
    sustained(ask, CLIENTS, 3)
    pairs = [(sustained(ask, CLIENTS, seconds), bare_clips(reader, seconds, 8)) for _ in range(rounds)]
    rate = statistics.median(http for http, _ in pairs)
    print(f"tensor route {rate:.1f} clips/s, bare {statistics.median(bare for _, bare in pairs):.1f}")
    lone = site.infer(1)
    alone: list[float] = []
    with requests.Session() as session:
        for _ in range(40):
            start = time.perf_counter()
            lone(session)
            alone.append(time.perf_counter() - start)
    single = statistics.median(alone)
    half = sorted(paced(lone, sustained(lone, CLIENTS, seconds) / 2, 2 * seconds))
    p99 = half[int(0.99 * (len(half) - 1))]
    print(f"a lone request {single * 1000:.0f} ms; at half load p50 {statistics.median(half) * 1000:.0f}, "
          f"p99 {p99 * 1000:.0f} ms")  # fmt: skip
    ratio = statistics.median(http / bare for http, bare in pairs)
    return [at_least("tensor route / bare model", ratio, 0.85), at_most("p99 at half load / lone", p99 / single, 2)]


def measure_video(site: Site, reader: Any, video: Path, seconds: float, rounds: int) -> list[Figure]:
    """Frames/s of uploads beside the bare loop."""
    ask = site.upload(video)
    sustained(ask, UPLOADERS, 3)
    pairs = [(sustained(ask, UPLOADERS, seconds), bare_video(reader, video, seconds, 8)) for _ in range(rounds)]
    print(f"video route {statistics.median(p[0] for p in pairs):.0f} frames/s, "
          f"bare {statistics.median(p[1] for p in pairs):.0f}")  # fmt: skip
    return [at_least("video route / bare loop", statistics.median(http / bare for http, bare in pairs), 0.8)]


def measure_batch(model: Path, reader: Any, video: Path, folder: Path, seconds: float) -> list[Figure]:
    """Frames/s of batch prediction, from the first table to the last, beside the bare loop."""
    from ssm_platform.read.batch import Job, PredictSettings, predict_all

    count = 24
    inputs = folder / "inputs"
    inputs.mkdir(exist_ok=True)
    jobs = []
    for number in range(count):
        path = inputs / f"{number}.mp4"
        path.write_bytes(video.read_bytes())
        jobs.append(Job(str(path), path.name))
    settings = PredictSettings(model=str(model), workers=os.cpu_count(), cpus=1)
    outcomes = list(predict_all(jobs, folder / "out", settings))
    assert all(outcome.status == "done" for outcome in outcomes), outcomes
    ends = sorted((folder / "out" / f"{job.name}.json").stat().st_mtime for job in jobs)
    first = os.cpu_count() or 1  # one table of each worker is start-up
    rate = sum(outcome.frames for outcome in outcomes) / count * (count - first) / (ends[-1] - ends[first - 1])
    bare = bare_video(reader, video, seconds, 8)
    print(f"batch prediction {rate:.0f} frames/s, bare {bare:.0f}")
    return [at_least("batch prediction / bare loop", rate / bare, 0.9)]


def measure_memory(site: Site, folder: Path, minutes: float) -> list[Figure]:
    """Growth of the peak memory of the service, decoding included, from a 2-second to a long 1080p video; frames/s."""
    rate, session, peaks = 10, requests.Session(), []
    short = write_video(folder / "short.mp4", 2, 1920, 1080, rate)
    minute = write_video(folder / "minute.mp4", 60, 1920, 1080, rate)
    long = folder / "long.mp4"
    loop = [
        "ffmpeg",
        "-v",
        "error",
        "-stream_loop",
        str(round(minutes) - 1),
        "-i",
        str(minute),
        "-c",
        "copy",
        str(long),
    ]
    subprocess.run(loop, check=True)
    site.upload(minute)(session)  # a service that has been at work, for both films alike
    speed = 0.0
    for video in (short, long):
        upload, watch, start = site.upload(video), PeakWatch(), time.perf_counter()
        with watch:
            rows = max(upload(session) for _ in range(12 if video == short else 1))  # a second each, 4 looks in it
        speed = rows / (time.perf_counter() - start)
        peaks.append(watch.peak_mib)
        print(
            f"{video.stem} 1080p video: {rows} rows, {video.stat().st_size / 2**20:.1f} MiB, peak {peaks[-1]:.0f} MiB"
        )
    print(f"1080p: {speed:.0f} frames/s of one upload, answered as CSV")
    return [at_most(f"memory growth in MiB, {minutes:g} min / 2 s of 1080p", peaks[1] - peaks[0], 60)]


def at_least(name: str, value: float, bound: float) -> Figure:
    return Figure(name, round(value, 3), f">= {bound:g}", value >= bound)


def at_most(name: str, value: float, bound: float) -> Figure:
    return Figure(name, round(value, 3), f"<= {bound:g}", value <= bound)


def measure(known: argparse.Namespace, folder: Path) -> list[Figure]:
    """All the figures asked for."""
    import ray
    from ray import serve

    from ssm_platform.read.model_reader import ModelReader

    cores = os.cpu_count() or 1
    model = save_model(folder / "model")
    video = write_video(folder / "face.mp4", 8)
    site = start_service(model, cores)
    reader = ModelReader(model, "cpu", threads=cores)
    figures: list[Figure] = []
    if "tensor" in known.only:
        figures += measure_tensor(site, reader, known.seconds, known.rounds)
    if "video" in known.only:
        figures += measure_video(site, reader, video, known.seconds, known.rounds)
    if "memory" in known.only:
        figures += measure_memory(site, folder, known.minutes)
    serve.shutdown()
    if "batch" in known.only:
        figures += measure_batch(model, reader, video, folder, known.seconds)
    ray.shutdown()
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=15, help="of each turn (15)")
    parser.add_argument("--rounds", type=int, default=3, help="turns of each pair (3)")
    parser.add_argument("--minutes", type=float, default=30, help="length of the long video (30)")
    parser.add_argument("--only", type=lambda text: text.split(","), default=["tensor", "video", "batch", "memory"])
    parser.add_argument("--json", type=Path, help="also write the figures there")
    known = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        figures = measure(known, Path(name))
    for figure in figures:
        print(f"{'met   ' if figure.met else 'MISSED'} {figure.name}: {figure.value} ({figure.target})")
    if known.json:
        known.json.write_text(json.dumps([asdict(figure) for figure in figures], indent=1))
    sys.exit(0 if all(figure.met for figure in figures) else 1)


if __name__ == "__main__":
    main()
