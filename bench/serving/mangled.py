"""Send thousands of mangled uploads: `python bench/serving/mangled.py --model FOLDER [--count 5000]`.

Every answer must be 200 or a 4xx with `{"error": ...}`, without a path or trace of ours; nothing may be left on disk;
the process must not die. Prints a line per kind and the growth of memory; exits 1 where something is wrong.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import numpy as np
import requests
from mangle import mangled

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


def server(model: str, scratch: Path, port: int) -> subprocess.Popen[bytes]:
    """The application behind uvicorn, in a process of its own, so that a crash is seen."""
    script = Path(__file__).with_name("local_server.py")
    return subprocess.Popen([sys.executable, str(script), model, str(scratch), str(port)])


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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, help="folder of a saved model")
    parser.add_argument("--count", type=int, default=5000, help="requests (5000)")
    parser.add_argument("--port", type=int, default=8765, help="port of the server under test")
    known = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        sys.exit(drill(known.model, known.count, known.port, Path(name)))


def drill(model: str, count: int, port: int, folder: Path) -> int:
    """Run the drill; 0 where all is well."""
    files, scratch = originals(folder), folder / "scratch"
    process = server(model, scratch, port)
    url = f"http://127.0.0.1:{port}"
    session, statuses, problems = requests.Session(), Counter[tuple[str, int]](), list[str]()
    while session_ready(session, url) is False:
        time.sleep(0.5)
    started, before = time.perf_counter(), 0.0
    for seed in range(count):
        request = mangled(seed, files)
        try:
            answer = session.post(f"{url}/v1/predict", data=request.body, headers=request.headers, timeout=120)
        except requests.ConnectionError as error:
            problems.append(f"{seed} {request.kind}: {error}")
            if process.poll() is not None:
                break
            continue
        statuses[request.kind, answer.status_code] += 1
        if problem := wrong(answer):
            problems.append(f"{seed} {request.kind}: {problem}")
        if seed == count // 5:
            before = memory_mib(process.pid)
    after = memory_mib(process.pid) if process.poll() is None else float("nan")
    left = [str(path) for path in scratch.rglob("*") if path.is_file()]
    crashed = process.poll() is not None
    process.terminate()
    process.wait()
    for (kind, status), number in sorted(statuses.items()):
        print(f"{kind:14} {status} {number}")
    report = {
        "requests": sum(statuses.values()),
        "seconds": round(time.perf_counter() - started, 1),
        "problems": len(problems),
        "crashed": crashed,
        "files_left": len(left),
        "memory_mib": [round(before), round(after)],
        "pid": os.getpid(),
    }
    print("\n".join(problems[:20]))
    print(json.dumps(report))
    return 1 if problems or left or crashed else 0


def session_ready(session: requests.Session, url: str) -> bool:
    """Whether the server answers."""
    try:
        return session.get(f"{url}/v2/health/ready", timeout=60).ok
    except requests.ConnectionError:
        return False


if __name__ == "__main__":
    main()
