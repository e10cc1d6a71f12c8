"""How a camera is answered: `python bench/serving/live.py [--minutes 10] [--model DIR] [--video FILE] [--yunet FILE]`.

The service as it is deployed, behind nginx, and one client that sends 640 x 480 JPEGs of a video as the page does: the
newest picture, at most two of them unanswered. Counted are answered frames a second, the time from sending a picture
to its answer, and the private memory of all processes of the service over time. Without --model: an untrained model of
the quickstart's shape (speed does not depend on its weights). Without --video: a drawn face. Exit code 1 where fewer
than 10 frames/s are answered, the median takes more than 250 ms, or memory grows by more than 30 MiB after the first
tenth.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import cycle
from pathlib import Path

import cv2
from deployed import deployed
from subjects import memory_mib, write_video
from websockets.sync.client import ClientConnection, connect

from serve.settings import Scaling, Settings
from ssm_platform.faces.settings import FaceSettings

WIDTH, HEIGHT, QUALITY, UNDER_WAY = 640, 480, 80, 2
FRAMES_S, LATENCY_MS, GROWTH_MIB = 10.0, 250.0, 30.0


def quickstart_model(folder: Path) -> Path:
    """An untrained model of the quickstart's shape."""
    from ssm import SSM
    from ssm.interface.preprocessing import Preprocessing
    from ssm.saved.facts import ModelFacts
    from ssm_platform.runs.recipes import quickstart

    model = SSM(quickstart().model)
    size = model.config.backbone.image_size
    model.facts = ModelFacts(preprocessing=Preprocessing(image_size=size).model_dump(mode="json"))
    model.fold().save_pretrained(folder)
    return folder


def pictures(video: Path, most: int = 250) -> list[bytes]:
    """Frames of the video as a browser would send them."""
    import av

    found = []
    with av.open(str(video)) as container:
        for _, frame in zip(range(most), container.decode(video=0), strict=False):
            image = frame.to_ndarray(format="bgr24")
            scale = max(WIDTH / image.shape[1], HEIGHT / image.shape[0])
            large = cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
            top, left = (large.shape[0] - HEIGHT) // 2, (large.shape[1] - WIDTH) // 2
            part = large[top : top + HEIGHT, left : left + WIDTH]
            found.append(cv2.imencode(".jpg", part, [cv2.IMWRITE_JPEG_QUALITY, QUALITY])[1].tobytes())
    return found


@dataclass
class Heard:
    """What the client was told, and when."""

    latencies_ms: list[float] = field(default_factory=list)
    with_face: int = 0
    refused: int = 0
    memory: list[tuple[float, float]] = field(default_factory=list)  # seconds, MiB


def talk(session: ClientConnection, frames: Iterator[bytes], seconds: float) -> Heard:
    """Send and listen for a while."""
    heard, sent_at, answered = Heard(), list[float](), 0
    start = time.monotonic()
    next_look = start
    while (now := time.monotonic()) - start < seconds:
        while len(sent_at) - answered < UNDER_WAY:
            session.send(next(frames))
            sent_at.append(time.monotonic())
        answer = json.loads(session.recv(60))
        if answer["type"] != "frame":
            raise SystemExit(f"the session ended: {answer}")
        heard.latencies_ms.append((time.monotonic() - sent_at[answer["frame"]]) * 1000)
        answered = answer["frame"] + 1
        session.send(json.dumps({"taken": len(heard.latencies_ms)}))
        heard.refused += "error" in answer
        heard.with_face += any(row["success"] for row in answer.get("rows", ()))
        if now >= next_look:
            heard.memory.append((now - start, memory_mib()))
            next_look = now + max(1.0, seconds / 60)
    return heard


def report(heard: Heard, seconds: float) -> dict[str, float]:
    """The figures."""
    settled = [mib for at, mib in heard.memory if at >= seconds / 10] or [heard.memory[-1][1]]
    ordered = sorted(heard.latencies_ms)
    return {
        "frames_s": round(len(ordered) / seconds, 2),
        "median_ms": round(statistics.median(ordered), 1),
        "p95_ms": round(ordered[int(0.95 * (len(ordered) - 1))], 1),
        "answered": len(ordered),
        "with_face": heard.with_face,
        "refused": heard.refused,
        "memory_mib": round(settled[0], 1),
        "growth_mib": round(max(settled) - settled[0], 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=10, help="length of the session (10)")
    parser.add_argument("--model", type=Path, help="folder of a saved model")
    parser.add_argument("--video", type=Path, help="what the camera sees, over and over")
    parser.add_argument("--yunet", type=Path, help="the detector's ONNX file (default: as the service finds it)")
    known = parser.parse_args()
    seconds = known.minutes * 60
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        detection = FaceSettings(detector="yunet", model=known.yunet) if known.yunet else FaceSettings()
        small = {"replicas": 1, "replicas_max": 1}
        asked = Settings(
            model=str(known.model or quickstart_model(folder / "model")),
            scratch=str(folder / "scratch"),
            detection=detection,
            ingress=Scaling(**{**small, "cpus": 0.5, "ongoing": 64, "target": 32}),
            video=Scaling(**{**small, "ongoing": 2, "target": 2}),
            inference=Scaling(**{**small, "ongoing": 16, "target": 8}),
        )
        frames = cycle(pictures(known.video or write_video(folder / "face.mp4", 8, WIDTH, HEIGHT)))
        with deployed(asked) as (url, _), connect(url.replace("http", "ws") + "/v1/live") as session:
            session.recv(60)
            figures = report(talk(session, frames, seconds), seconds)
    print(json.dumps(figures))
    good = figures["frames_s"] >= FRAMES_S and figures["median_ms"] <= LATENCY_MS
    sys.exit(0 if good and figures["growth_mib"] <= GROWTH_MIB else 1)


if __name__ == "__main__":
    main()
