"""What the service counts, in one place; exported by Ray on every node, in Prometheus' format, with the prefix `ray_`.

Queue lengths and replica counts come from Serve itself (`ray_serve_deployment_queued_queries`,
`ray_serve_deployment_replica_healthy`); here is what only the service knows.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from ray.serve.metrics import Counter, Gauge, Histogram

_SECONDS = [0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30, 60, 300, 1800]


class IngressMetrics:
    """Requests, their time, how many are open, and why others were refused."""

    def __init__(self) -> None:
        self._requests = Counter("ssm_requests", "HTTP requests by how they ended", ("route", "status"))  # type: ignore[arg-type]
        self._refusals = Counter("ssm_refusals", "requests that were refused, by reason", ("reason",))
        self._seconds = Histogram("ssm_request_seconds", "time from request to end of answer", _SECONDS, ("route",))
        self._open = Gauge("ssm_open_requests", "requests that are being answered")
        self._live = Counter("ssm_live_frames", "frames of cameras, by what became of them", ("outcome",))
        self._now = 0
        self._stage = _stages()

    def live_frame(self, good: bool, seconds: float) -> None:
        """Count a camera's frame, and the time from its coming to its answer."""
        self._live.inc(tags={"outcome": "answered" if good else "refused"})
        self._stage.observe(max(seconds, 1e-9), tags={"stage": "live"})

    def live_dropped(self, frames: int) -> None:
        """Count a camera's frames whose place a newer one took."""
        self._live.inc(frames, tags={"outcome": "dropped"}) if frames else None

    def answered(self, route: str, status: str, seconds: float) -> None:
        """Count one request; `status` is that of the answer, or `broken` where it did not come whole."""
        self._requests.inc(tags={"route": route, "status": status})
        self._seconds.observe(seconds, tags={"route": route})

    def refused(self, reason: str) -> None:
        """Count a refusal."""
        self._refusals.inc(tags={"reason": reason})

    @contextmanager
    def open(self) -> Iterator[None]:
        """Count a request as open during the block."""
        self._now += 1
        self._open.set(self._now)
        try:
            yield
        finally:
            self._now -= 1
            self._open.set(self._now)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Time a stage of a request."""
        with _timed(self._stage, name):
            yield


class VideoMetrics:
    """Frames and the time they take."""

    def __init__(self) -> None:
        self._frames = Counter("ssm_frames", "frames decoded and searched for faces; its rate is frames/s")
        self._with_face = Counter("ssm_frames_with_face", "those of them in which a face was found")
        self._cpu = Counter("ssm_decode_cpu_seconds", "CPU time of decoding and face detection")
        self._stage = _stages()

    def frames(self, frames: int, with_face: int) -> None:
        """Count frames that were searched."""
        self._frames.inc(frames) if frames else None
        self._with_face.inc(with_face) if with_face else None

    def decoded(self, cpu_s: float) -> None:
        """Count what an upload cost."""
        self._cpu.inc(cpu_s) if cpu_s else None

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Time a stage of a request."""
        with _timed(self._stage, name):
            yield


class ModelMetrics:
    """Forward passes."""

    def __init__(self) -> None:
        self._clips = Counter("ssm_clips", "clips read by the model")
        self._batch = Histogram("ssm_batch_clips", "clips in a forward pass", [1, 2, 4, 8, 16, 32, 64, 128])
        self._queue = Gauge("ssm_waiting_clips", "clips waiting for a forward pass")
        self._model = Gauge("ssm_model_info", "1 for the model version that a replica answers with", ("version",))
        self._stage = _stages()

    def model(self, version: str, current: bool) -> None:
        """Say which version is served, or no longer."""
        self._model.set(float(current), tags={"version": version})

    def batch(self, clips: int) -> None:
        """Count a pass."""
        self._clips.inc(clips)
        self._batch.observe(clips)

    def waiting(self, clips: int) -> None:
        """How many wait, after a pass."""
        self._queue.set(clips)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Time a stage of a request."""
        with _timed(self._stage, name):
            yield


def _stages() -> Histogram:
    return Histogram("ssm_stage_seconds", "time in a stage of a request", _SECONDS, ("stage",))


@contextmanager
def _timed(histogram: Histogram, name: str) -> Iterator[None]:
    start = time.perf_counter()
    try:
        yield
    finally:
        histogram.observe(max(time.perf_counter() - start, 1e-9), tags={"stage": name})
