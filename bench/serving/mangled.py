"""Send thousands of mangled uploads: `python bench/serving/mangled.py [--count 5000] [--model FOLDER]`.

Every answer must be 200 or a 4xx with `{"error": ...}`, without a path or trace of ours; nothing may be left on disk;
the process must not die. Prints a line per kind and the growth of memory; exits 1 where something is wrong.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import requests
from mangle import mangled
from subjects import save_model

START_S = 120
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


@contextmanager
def server(model: Path, scratch: Path, port: int) -> Iterator[subprocess.Popen[bytes]]:
    """The application behind uvicorn, ready, in a process of its own, so that a crash is seen; ended with the block."""
    script = Path(__file__).with_name("local_server.py")
    process = subprocess.Popen([sys.executable, str(script), str(model), str(scratch), str(port)])
    try:
        wait_ready(process, f"http://127.0.0.1:{port}/v2/health/ready")
        yield process
    finally:
        process.terminate()
        process.wait()


def wait_ready(process: subprocess.Popen[bytes], url: str) -> None:
    """Return once the server answers; SystemExit where it ended, or is not ready in `START_S`."""
    until = time.monotonic() + START_S
    while time.monotonic() < until:
        if process.poll() is not None:
            sys.exit(f"the server ended at its start with exit code {process.returncode}; its reason stands above")
        try:
            if requests.get(url, timeout=5).ok:
                return
        except requests.RequestException:
            pass  # not listening yet, or still loading the model
        time.sleep(0.5)
    sys.exit(f"{url}: not ready within {START_S} s")


def memory_mib(pid: int) -> float:
    """Resident memory of a process."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 2**20


def wrong(answer: requests.Response) -> str | None:
    """What is wrong with an answer, None where nothing is."""
    if answer.status_code == 200:
        return None
    if not 400 <= answer.status_code < 500:
        return f"status {answer.status_code}"
    try:
        facts = answer.json()
    except ValueError:
        return None if answer.status_code == 400 and "Invalid HTTP" in answer.text else f"not JSON: {answer.text[:100]}"
    if list(facts) != ["error"] or not facts["error"]:
        return f"another shape: {answer.text[:100]}"
    found = [leak for leak in LEAKS if leak in answer.text]
    return f"leaks {found}: {answer.text[:200]}" if found else None


@dataclass
class Found:
    """What the uploads met: answers by kind and status, what was wrong, and the server's memory on the way."""

    statuses: Counter[tuple[str, int]] = field(default_factory=Counter)
    problems: list[str] = field(default_factory=list)
    memory_mib: list[int] = field(default_factory=list)

    def send(self, url: str, seed: int, files: list[bytes], session: requests.Session) -> None:
        """One mangled upload, and a look at its answer. No answer at all is a problem as well."""
        request = mangled(seed, files)
        try:
            answer = session.post(f"{url}/v1/predict", data=request.body, headers=request.headers, timeout=120)
        except requests.RequestException as error:
            self.problems.append(f"{seed} {request.kind}: {error}")
            return
        self.statuses[request.kind, answer.status_code] += 1
        if problem := wrong(answer):
            self.problems.append(f"{seed} {request.kind}: {problem}")


def drill(model: Path, count: int, port: int, folder: Path) -> int:
    """Run the drill; 0 where all is well."""
    files, scratch, found, session = originals(folder), folder / "scratch", Found(), requests.Session()
    with server(model, scratch, port) as process:
        started = time.perf_counter()
        for seed in range(count):
            found.send(f"http://127.0.0.1:{port}", seed, files, session)
            if process.poll() is not None:
                break
            if seed in (count // 5, count - 1):
                found.memory_mib.append(round(memory_mib(process.pid)))
        seconds = time.perf_counter() - started
        crashed = process.poll() is not None
        left = [str(path) for path in scratch.rglob("*") if path.is_file()]
    for (kind, status), number in sorted(found.statuses.items()):
        print(f"{kind:14} {status} {number}")
    report = {
        "requests": sum(found.statuses.values()),
        "seconds": round(seconds, 1),
        "problems": len(found.problems),
        "crashed": crashed,
        "files_left": len(left),
        "memory_mib": found.memory_mib,
    }
    print("\n".join(found.problems[:20]))
    print(json.dumps(report))
    return 1 if found.problems or left or crashed else 0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, help="folder of a saved model (default: an untrained one, made here)")
    parser.add_argument("--count", type=int, default=5000, help="requests (5000)")
    parser.add_argument("--port", type=int, default=8765, help="port of the server under test")
    known = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        sys.exit(drill(known.model or save_model(folder / "model"), known.count, known.port, folder))


if __name__ == "__main__":
    main()
