"""Send thousands of mangled uploads: `python bench/serving/mangled.py [--count 5000] [--model FOLDER]`.

They take the deployed path: nginx, Serve's proxy, ingress, video and model replicas. Every answer must be 200, 4xx, 503
or 507 with `{"error", "request_id"}`, without a path or trace of ours; nothing may be left on disk, no replica be lost,
memory grow by 400 MiB at most, no file cost more CPU than `limits.decode_s`. Exits 1 where something is wrong.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import requests
from deployed import deployed
from mangle import Mangled, form, hostile, mangled
from subjects import PeakWatch, decode_cpu_s, forker_pids, memory_mib, save_model, service_pids

from serve.settings import Limits, Settings

GROWTH_MIB = 400
CPU_GRAIN_S = 0.5  # the kernel looks once a second, and counts the start of a process
LEAKS = ("Traceback", 'File "', "/tmp", "site-packages", ".py", "0x7f")


def originals(folder: Path) -> list[bytes]:
    """Whole small files of several kinds, with something moving in them."""
    import av
    import cv2

    generator = np.random.default_rng(0)
    frames = [
        np.kron(generator.integers(0, 256, (12, 16, 3), np.uint8), np.ones((8, 8, 1), np.uint8)) for _ in range(12)
    ]
    contents = []
    for name, codec in (("a.mp4", "libx264"), ("b.mkv", "libx264"), ("c.avi", "mpeg4"), ("d.webm", "libvpx-vp9")):
        with av.open(str(folder / name), "w") as container:
            stream = container.add_stream(codec, rate=25)
            stream.width, stream.height, stream.pix_fmt = 128, 96, "yuv420p"
            for frame in frames:
                container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
            container.mux(stream.encode())
        contents.append((folder / name).read_bytes())
    pictures = [cv2.imencode(ending, frames[0])[1].tobytes() for ending in (".jpg", ".png", ".webp", ".bmp", ".tiff")]
    return contents + pictures


def settings(model: Path, scratch: Path) -> Settings:
    """The service under test: as it comes, but one replica of each and limits that the hostile files exceed."""
    limits = Limits(
        upload_bytes=20_000_000,
        images=16,
        video_s=600,
        frame_pixels=8_000_000,
        frames=20_000,
        decode_s=2,
        decode_mib=352,
    )
    usual = Settings(model=str(model), scratch=str(scratch), threads=1, limits=limits)
    one = {"cpus": 0.5, "replicas": 1, "replicas_max": 1}
    scalings = {name: getattr(usual, name).model_copy(update=one) for name in ("ingress", "video", "inference")}
    return usual.model_copy(update=scalings)


def wrong(answer: requests.Response) -> str | None:
    """What is wrong with an answer, None where nothing is."""
    if answer.status_code == 200:
        return None
    if not (400 <= answer.status_code < 500 or answer.status_code in (503, 507)):
        return f"status {answer.status_code}"
    try:
        facts = answer.json()
    except ValueError:
        return f"not JSON: {answer.text[:100]}"
    if list(facts) != ["error", "request_id"] or not facts["error"] or not facts["request_id"]:
        return f"another shape: {answer.text[:100]}"
    found = [leak for leak in LEAKS if leak in answer.text]
    return f"leaks {found}: {answer.text[:200]}" if found else None


@dataclass
class Found:
    """What the uploads met: answers by kind and status, what was wrong, and what the dearest file cost."""

    statuses: Counter[tuple[str, int]] = field(default_factory=Counter)
    problems: list[str] = field(default_factory=list)
    dearest: tuple[float, str] = (0.0, "")
    slowest: tuple[float, str] = (0.0, "")
    forkers: list[int] = field(default_factory=list)

    def send(self, url: str, request: Mangled, label: str, session: requests.Session) -> None:
        """One upload, and a look at its answer. No answer at all is a problem as well."""
        before, start = decode_cpu_s(self.forkers), time.monotonic()
        try:
            answer = session.post(f"{url}/v1/predict", data=request.body, headers=request.headers, timeout=120)
        except requests.RequestException as error:
            self.problems.append(f"{label}: {error}")
            return
        self.dearest = max(self.dearest, (round(decode_cpu_s(self.forkers) - before, 2), label))
        self.slowest = max(self.slowest, (round(time.monotonic() - start, 2), label))
        self.statuses[request.kind, answer.status_code] += 1
        if problem := wrong(answer):
            self.problems.append(f"{label}: {problem}")


def drill(model: Path, count: int, folder: Path) -> int:
    """Run the drill; 0 where all is well."""
    files, scratch, found, session = originals(folder), folder / "scratch", Found(), requests.Session()
    specimens = hostile(folder)
    asked = settings(model, scratch)
    with deployed(asked) as (url, _):
        for _ in range(3):  # the first answers load what idle service has
            found.send(url, form("whole", files[0]), "whole", session)
        found.forkers = forker_pids()
        before, idle, peak = set(service_pids()), memory_mib(), PeakWatch()
        started = time.perf_counter()
        with peak:
            for name, content in specimens.items():
                found.send(url, form(name, content), name, session)
            for seed in range(count):
                request = mangled(seed, files, list(specimens.values()))
                found.send(url, request, f"{seed} {request.kind}", session)
        seconds, lost = time.perf_counter() - started, sorted(before - set(service_pids()))
        left = [str(path) for path in scratch.rglob("*") if path.is_file()]
    for (kind, status), number in sorted(found.statuses.items()):
        print(f"{kind:22} {status} {number}")
    growth = peak.peak_mib - idle
    report = {
        "requests": sum(found.statuses.values()),
        "seconds": round(seconds, 1),
        "problems": len(found.problems),
        "processes_lost": len(lost),
        "files_left": len(left),
        "idle_mib": round(idle),
        "growth_mib": round(growth),
        "dearest_cpu_s": found.dearest,
        "slowest_s": found.slowest,
    }
    print("\n".join(found.problems[:20]))
    print(json.dumps(report))
    dear = found.dearest[0] > asked.limits.decode_s + CPU_GRAIN_S
    return 1 if found.problems or left or lost or growth > GROWTH_MIB or dear else 0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, help="folder of a saved model (default: an untrained one, made here)")
    parser.add_argument("--count", type=int, default=5000, help="requests (5000)")
    known = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        sys.exit(drill(known.model or save_model(folder / "model"), known.count, folder))


if __name__ == "__main__":
    main()
