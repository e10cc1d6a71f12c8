"""What is measured and disturbed: a model, a video, and the processes of a running service with their memory."""

from __future__ import annotations

import os
import threading
import time
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

SIZE, FRAMES = 112, 16
APPLICATION = f"ssm-bench-{os.getpid()}"


def save_model(folder: Path, seed: int = 0) -> Path:
    """An untrained model of the size named above."""
    import torch

    from ssm import SSM
    from ssm.interface.preprocessing import Preprocessing
    from ssm.labels.vocabulary import BASIC_EXPRESSIONS, BP4D_AUS, Vocabulary
    from ssm.model.config import BackboneConfig, ExpertsConfig, ModelConfig, TextConfig
    from ssm.saved.facts import ModelFacts

    torch.manual_seed(seed)
    model = SSM(
        ModelConfig(
            vocabulary=Vocabulary(aus=BP4D_AUS, expressions=BASIC_EXPRESSIONS),
            backbone=BackboneConfig(name="convnext_atto", image_size=SIZE, experts=ExpertsConfig(blocks=2, hidden=64)),
            width=128,
            frames=FRAMES,
            text=TextConfig(tower="minilm"),
        )
    )
    model.facts = ModelFacts(preprocessing=Preprocessing(image_size=SIZE).model_dump(mode="json"))
    model.fold().save_pretrained(folder)
    return folder


def write_video(path: Path, seconds: float, width: int = 320, height: int = 240, rate: int = 25) -> Path:
    """A drawn face that moves over noise: something to decode, to find and to follow."""
    import av

    generator = np.random.default_rng(0)
    back = cv2.resize(generator.integers(60, 120, (12, 16, 3), np.uint8), (width, height))
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=rate)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        stream.options = {"preset": "veryfast"}
        for number in range(round(seconds * rate)):
            image = _face(back.copy(), number)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode())
    return path


def _face(image: NDArray[np.uint8], number: int) -> NDArray[np.uint8]:
    height, width = image.shape[:2]
    unit = height / 240
    x, y = round(width / 2 + 20 * unit * np.sin(number / 20)), round(height / 2)

    def place(dx: float, dy: float) -> tuple[int, int]:
        return round(x + dx * unit), round(y + dy * unit)

    def axes(a: float, b: float) -> tuple[int, int]:
        return max(1, round(a * unit)), max(1, round(b * unit))

    cv2.ellipse(image, place(0, 0), axes(58, 75), 0, 0, 360, (205, 165, 140), -1, cv2.LINE_AA)
    for side in (-1, 1):
        cv2.ellipse(image, place(side * 24, -18), axes(12, 6), 0, 0, 360, (250, 250, 250), -1, cv2.LINE_AA)
        cv2.circle(image, place(side * 24, -18), max(1, round(5 * unit)), (40, 30, 30), -1, cv2.LINE_AA)
        cv2.ellipse(image, place(side * 24, -33), axes(15, 4), 0, 180, 360, (70, 50, 40), 3, cv2.LINE_AA)
    cv2.ellipse(image, place(0, 8), axes(8, 12), 0, 0, 180, (165, 120, 100), 2, cv2.LINE_AA)
    mouth = 6 + 5 * np.sin(number / 7)
    cv2.ellipse(image, place(0, 38), axes(22, mouth), 0, 0, 360, (140, 60, 60), -1, cv2.LINE_AA)
    return image


class PeakWatch:
    """The largest sum of the private memory of the service's processes (replicas, proxy, decoding), sampled."""

    def __init__(self) -> None:
        self.peak_mib = 0.0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._stop.is_set():
            self.peak_mib = max(self.peak_mib, memory_mib())
            time.sleep(0.25)


@dataclass(frozen=True)
class Process:
    """A running process, as /proc tells it."""

    pid: int
    parent: int
    title: str


def processes() -> dict[int, Process]:
    """All that run now."""
    found = {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                title = (folder / "cmdline").read_bytes().decode(errors="replace")
                parent = int((folder / "stat").read_text().rsplit(")", 1)[1].split()[1])
            except OSError:
                continue
            found[int(folder.name)] = Process(int(folder.name), parent, title)
    return found


def service_pids(known: dict[int, Process] | None = None) -> list[int]:
    """Replicas of this run's application, and the proxy beside them."""
    all_ = (known or processes()).values()
    replicas = [process for process in all_ if process.title.startswith(f"ray::ServeReplica:{APPLICATION}:")]
    raylets = {process.parent for process in replicas}
    proxies = [one.pid for one in all_ if one.title.startswith("ray::ProxyActor") and one.parent in raylets]
    return [process.pid for process in replicas] + proxies


def forker_pids() -> list[int]:
    """The processes that fork decoders, below this run's replicas."""
    known = processes()
    service = set(service_pids(known))
    return [one.pid for one in known.values() if one.parent in service and "serve.decoding.forker" in one.title]


def memory_mib() -> float:
    """Private memory of the service's processes now, decoding among them; a page that forks share counts once."""
    known = processes()
    family = set(service_pids(known))
    for _ in range(2):  # forkers, then their children
        family |= {one.pid for one in known.values() if one.parent in family}
    return sum(map(private_mib, family))


def decode_cpu_s(forkers: list[int]) -> float:
    """CPU seconds of all decoding processes that have ended."""
    ticks = 0
    for pid in forkers:
        fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
        ticks += int(fields[13]) + int(fields[14])
    return ticks / os.sysconf("SC_CLK_TCK")


def private_mib(pid: int) -> float:
    """Anonymous memory of a process; of what it shares with others, its part."""
    try:
        text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    except OSError:
        return 0.0
    return next((int(line.split()[1]) for line in text.splitlines() if line.startswith("Pss_Anon:")), 0) / 1024
