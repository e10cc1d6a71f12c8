"""How fast and how frugal the data path is, as ratios measured side by side in one run.

    python bench/data.py [--size 112] [--stored 128] [--steps 320] [--rounds 5] [--json FILE]

Owners' frame folders (256 pixels, one JPEG a frame) are written and ingested into shards, and the same frames into
H.264 videos; then, in turns, the same clips are read by a bare loop (decode and crop, one process per core, no Ray), by
Ray Data as training does, and by today's habit (PIL, frame by frame from the folders). All rates are those after the
first quarter, in which processes start, files are opened for the first time and Ray decodes ahead. Ray's is the slope
of a straight line through the arrivals of a stream's blocks, and the stream is twice as long as what is read bare:
clips come a block at a time (11 batches here), so a line through the clips would lean on where it is cut. Ratios are
medians over the rounds. Also: seconds to the first batch, peak memory with ten times the clips, and the cost of
planning a million clips. Exit code 1 where a target is missed. With fewer steps than by default a stream has too few
blocks for a rate: that only shows that it runs.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import multiprocessing.pool
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pyarrow as pa

from ssm.interface.preprocessing import Preprocessing
from ssm.labels.vocabulary import BASIC_EXPRESSIONS, BP4D_AUS, Vocabulary
from ssm.training.augmentation import AU_AUGMENTATION, Augmentation
from ssm_platform.data.clips import ClipConfig, ClipReader
from ssm_platform.data.pace import keep_pace
from ssm_platform.data.plan import AU, Plan, PlanConfig, Rows
from ssm_platform.data.sampling import segment_indices, window_indices
from ssm_platform.records.manifest import SCHEMA, Manifest, Record

FRAME_PIXELS = 256
FE_CLIPS, FE_LENGTH = 96, 32
AU_RECORDS, AU_LENGTH = 16, 128
VOCABULARY = Vocabulary(aus=BP4D_AUS, expressions=BASIC_EXPRESSIONS)
FE_AUGMENTATION = Augmentation(scale=(0.5, 1.0), ratio=(0.8, 1.25), flip=0.5)
PLAN = PlanConfig(fe_batch=12, au_batch=8)
LONGER = 2  # times what is read bare that a stream is
SLOWER = 2  # times as few steps of what takes longer to decode
MIB = 2**20


@dataclass(frozen=True)
class Figure:
    """One measured number beside its target."""

    name: str
    value: float
    target: str
    met: bool


@dataclass(frozen=True)
class Corpora:
    """The same clips three times: as owners' frame folders, as shards, as videos."""

    folders: list[Manifest]
    shards: list[Manifest]
    videos: list[Manifest]


def at_least(name: str, value: float, bound: float) -> Figure:
    return Figure(name, value, f">= {bound:g}", value >= bound)


def at_most(name: str, value: float, bound: float) -> Figure:
    return Figure(name, value, f"<= {bound:g}", value <= bound)


# The corpora --------------------------------------------------------------------------------------------------------


def write_corpora(folder: Path, stored: int) -> Corpora:
    """Frame folders of face-sized noise that compresses like a face, and their shards at `stored` pixels."""
    from ssm_platform.ingest.corpus import IngestSettings, ingest_shard, read_manifest, run

    def here(manifest: Manifest, out: str, settings: IngestSettings, tasks: list[Any]) -> Any:
        return (ingest_shard(manifest, out, settings, task, None) for task in tasks)  # type: ignore[arg-type]

    folders = [_folders(folder / "owners", "fe"), _folders(folder / "owners", "au")]
    shards = []
    for manifest in folders:
        out = folder / f"shards-{manifest.corpus}"
        run(manifest, out, IngestSettings(crops="always", size=stored), here)
        shards.append(read_manifest(out))
    return Corpora(folders, shards, [_videos(folder / "videos", manifest) for manifest in folders])


def _videos(root: Path, manifest: Manifest) -> Manifest:
    """Each folder of frames as an H.264 video."""
    import av

    records = []
    for record in manifest:
        path = root / f"{record.clip}.mp4"
        path.parent.mkdir(parents=True, exist_ok=True)
        with av.open(str(path), "w") as container:
            stream = container.add_stream("libx264", rate=25)
            stream.width = stream.height = FRAME_PIXELS
            stream.pix_fmt = "yuv420p"
            for name in record.files or ():
                image = cv2.imread(str(Path(manifest.root) / record.source / name))
                container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="bgr24")))
            container.mux(stream.encode())
        records.append(replace(record, source=path.name, kind="video", files=None))
    return Manifest.build(root, manifest.corpus, manifest.task, manifest.labels, records)


def _folders(root: Path, task: str) -> Manifest:
    count, length = (FE_CLIPS, FE_LENGTH) if task == "fe" else (AU_RECORDS, AU_LENGTH)
    files = tuple(f"{frame:05}.jpg" for frame in range(length))
    records = []
    for number in range(count):
        _write_frames(root / task / str(number), files, np.random.default_rng([number, length]))
        labels = {"expression": "fear"} if task == "fe" else {"au_labels": np.zeros((length, len(BP4D_AUS)), np.int8)}
        records.append(Record(f"{task}{number}", f"{task}/{number}", "frames", 0, length, files=files, **labels))
    labels_of = Vocabulary(expressions=BASIC_EXPRESSIONS) if task == "fe" else Vocabulary(aus=BP4D_AUS)
    return Manifest.build(root, task, task, labels_of, records)  # type: ignore[arg-type]


def _write_frames(folder: Path, files: tuple[str, ...], generator: np.random.Generator) -> None:
    folder.mkdir(parents=True)
    coarse = generator.integers(0, 256, (16, 16, 3), np.uint8)
    smooth = cv2.resize(coarse, (FRAME_PIXELS, FRAME_PIXELS), interpolation=cv2.INTER_CUBIC).astype(np.float32)
    for name in files:
        image = np.clip(smooth + generator.normal(0, 4, smooth.shape), 0, 255).astype(np.uint8)
        cv2.imwrite(str(folder / name), image, [cv2.IMWRITE_JPEG_QUALITY, 90])


def reader_of(manifests: list[Manifest], size: int) -> ClipReader:
    config = ClipConfig(
        preprocessing=Preprocessing(image_size=size), augmentation=(FE_AUGMENTATION, AU_AUGMENTATION), decoder="av"
    )
    return ClipReader(manifests, VOCABULARY, config)


# What is compared ---------------------------------------------------------------------------------------------------


def share_out(pool: multiprocessing.pool.Pool, work: Callable[..., float], source: Any, rows: Rows, size: int) -> float:
    """Clips a second of `work` over all rows, a global batch at a time, on every core."""
    batches = [rows[slice(first, first + PLAN.global_batch)] for first in range(0, len(rows), PLAN.global_batch)]
    cores = os.cpu_count() or 1
    return sum(pool.starmap(work, [(source, batches[core::cores], size) for core in range(cores)], chunksize=1))


def read_bare(manifests: list[Manifest], batches: list[Rows], size: int) -> float:
    """The bare loop: the code that Ray Data calls, without Ray."""
    cv2.setNumThreads(1)
    reader = reader_of(manifests, size)

    def read(rows: Rows) -> None:
        columns = reader.read(rows.columns())
        assert not any(columns["problem"]), columns["problem"]

    return after_a_quarter(read, batches)


def read_with_pil(manifests: list[Manifest], batches: list[Rows], size: int) -> float:
    """Today's habit: open, crop, resize and flip each frame file with PIL."""

    def read(rows: Rows) -> None:
        np.stack([_pil_clip(manifests, rows, place, size) for place in range(len(rows))])

    return after_a_quarter(read, batches)


def after_a_quarter(read: Callable[[Rows], None], batches: list[Rows]) -> float:
    """Clips a second of this process, after the first quarter of the batches."""
    quarter, start = len(batches) // 4, 0.0
    for number, rows in enumerate(batches):
        if number == quarter:
            start = time.perf_counter()
        read(rows)
    return sum(map(len, batches[quarter:])) / (time.perf_counter() - start)


def _pil_clip(manifests: list[Manifest], rows: Rows, place: int, size: int) -> Any:
    from PIL import Image, ImageOps

    record = manifests[rows.corpus[place]][int(rows.record[place])]
    seed, generator = int(rows.seed[place]), np.random.default_rng(int(rows.seed[place]))
    if rows.task[place] == AU:
        chosen = window_indices(int(rows.start[place]), record.length, 16).indices
    else:
        chosen = segment_indices(record.length, 16, seed)
    side = FRAME_PIXELS * generator.uniform(0.8, 1.0)
    left, top = generator.uniform(0, FRAME_PIXELS - side, 2)
    flip, folder = generator.random() < 0.5, Path(manifests[rows.corpus[place]].root) / record.source
    frames = []
    for frame in chosen.tolist():
        image = Image.open(folder / (record.files or ())[frame]).convert("RGB")
        image = image.resize((size, size), Image.Resampling.BILINEAR, box=(left, top, left + side, top + side))
        frames.append(np.asarray(ImageOps.mirror(image) if flip else image))
    return np.stack(frames)


def stream(reader: ClipReader, plan: Plan, steps: int) -> tuple[float, float]:
    """So many global batches through Ray Data, every core decoding: seconds from the request to the first, and clips a
    second. The consumer is faster than decoding, so a block is counted when it has been decoded."""
    from ssm_platform.data.shared import Shared
    from ssm_platform.data.streams import ClipStream, batches
    from ssm_platform.data.turns import Course

    clips, start = ClipStream(Shared(reader), os.cpu_count() or 1, 1.0), time.perf_counter()
    (shard,) = clips.split(plan, 0, steps, 1)
    arrivals = np.array([time.perf_counter() - start for _ in islice(batches(shard, PLAN.global_batch), steps)])
    assert len(arrivals) == steps, (len(arrivals), steps)
    layout = clips.layout(Shared(Course(plan, steps)), 0, 1)
    heads = [layout.reach(block) for block in range(len(layout)) if layout.reach(block) > steps // 4]
    return arrivals[0], PLAN.global_batch * float(np.polyfit(arrivals[heads], heads, 1)[0])


class PeakMemory:
    """The most memory that this process and all below it held together, shared pages counted once (PSS)."""

    def __init__(self) -> None:
        self.peak = 0
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> PeakMemory:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()

    def _watch(self) -> None:
        import psutil

        while not self._done.wait(0.5):
            family = [*psutil.Process().children(recursive=True), psutil.Process()]
            self.peak = max(self.peak, sum(_proportional_bytes(process.pid) for process in family))


def _proportional_bytes(pid: int) -> int:
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:  # it ended meanwhile
        return 0
    return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:"))


# The measurements ---------------------------------------------------------------------------------------------------


def measure_speed(corpora: Corpora, size: int, steps: int, rounds: int) -> list[Figure]:
    """Ray Data from shards and from videos, each between two readings by the bare loop, so that a drift of the machine
    cancels, and PIL."""
    subjects = {"shards": (corpora.shards, steps), "videos": (corpora.videos, steps // SLOWER)}
    rates: dict[str, list[float]] = {}
    firsts: list[float] = []

    def on_ray(manifests: list[Manifest], steps: int) -> float:
        first, rate = stream(reader_of(manifests, size), Plan.of(manifests, PLAN), LONGER * steps)
        firsts.append(first)
        return rate

    with multiprocessing.get_context("spawn").Pool(os.cpu_count()) as pool:

        def alone(work: Callable[..., float], manifests: list[Manifest], steps: int) -> float:
            return share_out(pool, work, manifests, Plan.of(manifests, PLAN).rows(0, steps), size)

        for _ in range(rounds):
            for name, (manifests, count) in subjects.items():
                before, ray = alone(read_bare, manifests, count), on_ray(manifests, count)
                after = alone(read_bare, manifests, count)
                rates.setdefault(f"bare {name}", []).append((before + after) / 2)
                rates.setdefault(f"ray {name}", []).append(ray)
            rates.setdefault("pil folders", []).append(alone(read_with_pil, corpora.folders, steps // SLOWER))
            print({name: round(values[-1]) for name, values in rates.items()}, "clips/s", flush=True)
    ratio = {name: _ratio(rates[f"ray {name}"], rates[f"bare {name}"]) for name in subjects}
    return [
        *(Figure(f"{name}, clips/s", statistics.median(values), "", True) for name, values in rates.items()),
        *(at_least(f"Ray Data from {name} / bare loop", value, 0.9) for name, value in ratio.items()),
        at_least("Ray Data from shards / PIL from frame files", _ratio(rates["ray shards"], rates["pil folders"]), 3.0),
        at_most("first batch, s", statistics.median(firsts), 10.0),
    ]


def _ratio(ours: list[float], theirs: list[float]) -> float:
    return statistics.median(one / other for one, other in zip(ours, theirs, strict=True))


def measure_memory(corpora: Corpora, size: int, steps: int) -> list[Figure]:
    """Peak memory with ten times the clips: ten times the records and ten times the rows. Apart from the speeds, since
    looking takes half a core; the shorter stream fills all blocks that are decoded ahead."""
    peaks = []
    for times in (1, 10):
        manifests = [manifest.take(np.tile(np.arange(len(manifest)), times)) for manifest in corpora.shards]
        with PeakMemory() as memory:
            stream(reader_of(manifests, size), Plan.of(manifests, PLAN), times * steps)
        peaks.append(memory.peak / MIB)
    return [
        Figure(f"peak memory of the cluster, {steps * PLAN.global_batch} clips, MiB", peaks[0], "", True),
        Figure(f"peak memory of the cluster, {10 * steps * PLAN.global_batch} clips, MiB", peaks[1], "", True),
        at_most("peak memory, 10x the clips / 1x", peaks[1] / peaks[0], 1.2),
    ]


PLAN_A_MILLION = """
import resource, sys, time
from ssm_platform.data.plan import Plan, PlanConfig
from ssm_platform.records.manifest import Manifest
start = time.perf_counter()
plan = Plan.of([Manifest.read(path) for path in sys.argv[1:]], PlanConfig())
rows = plan.epoch(0)
print(sum(map(len, plan.corpora)), time.perf_counter() - start, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


def measure_plan(folder: Path) -> list[Figure]:
    """A million clips from stored manifests to the rows of an epoch, in a process of its own."""
    paths = [folder / "million-fe.parquet", folder / "million-au.parquet"]
    _million_manifest("fe", 600_000, 40).write(paths[0])
    _million_manifest("au", 4_000, 1_600).write(paths[1])
    command = [sys.executable, "-c", PLAN_A_MILLION, *map(str, paths)]
    clips, seconds, kib = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()
    return [
        at_least("clips in the plan", int(clips), 1_000_000),
        at_most("plan, s", float(seconds), 10.0),
        at_most("plan, peak resident memory, MiB", int(kib) / 1024, 1024),
    ]


def _million_manifest(task: str, count: int, length: int) -> Manifest:
    labels = Vocabulary(expressions=BASIC_EXPRESSIONS) if task == "fe" else Vocabulary(aus=BP4D_AUS)
    columns: dict[str, Any] = {name: pa.nulls(count, SCHEMA.field(name).type) for name in SCHEMA.names}
    columns["clip"] = pa.array([f"{number:07}" for number in range(count)], pa.large_string())
    columns["source"] = pa.array([f"{number:07}.mp4" for number in range(count)], pa.large_string())
    columns["kind"] = pa.array(["video"] * count, pa.large_string())
    columns["start"], columns["length"] = pa.array([0] * count, pa.int64()), pa.array([length] * count, pa.int32())
    if task == "fe":
        columns["expression"] = pa.array(["fear"] * count, pa.large_string())
    else:
        width = length * len(BP4D_AUS)
        values = np.random.default_rng(1).integers(-1, 2, count * width, np.int8)
        columns["au_labels"] = pa.LargeListArray.from_arrays(np.arange(count + 1) * width, values)
    return Manifest("/data", task, task, labels, pa.table(columns, schema=SCHEMA))  # type: ignore[arg-type]


def report(figures: list[Figure], settings: dict[str, Any], path: Path | None) -> bool:
    """Print the table; True where every target is met."""
    for figure in figures:
        verdict = "" if not figure.target else "ok" if figure.met else "MISSED"
        print(f"{figure.name:55} {figure.value:10.2f}  {figure.target:10} {verdict}")
    if path is not None:
        content = {"settings": settings, "figures": [asdict(figure) for figure in figures]}
        path.write_text(json.dumps(content, indent=1) + "\n")
    return all(figure.met for figure in figures)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=112, help="side of the model's input in pixels")
    parser.add_argument("--stored", type=int, default=128, help="side of the frames in the shards in pixels")
    parser.add_argument(
        "--steps", type=int, default=320, help="global batches of 20 clips that are read bare in a round"
    )
    parser.add_argument("--rounds", type=int, default=5, help="rounds; figures are medians")
    parser.add_argument("--json", type=Path, help="also write the figures here")
    options = parser.parse_args()
    from ssm_platform.cluster import joined

    with tempfile.TemporaryDirectory() as folder:
        corpora = write_corpora(Path(folder), options.stored)
        figures = measure_plan(Path(folder))
        with joined(2.0 + (os.cpu_count() or 1)):
            keep_pace()
            figures += measure_speed(corpora, options.size, options.steps, options.rounds)
        with joined(2.0 + (os.cpu_count() or 1)):
            keep_pace()
            figures += measure_memory(corpora, options.size, options.steps // 2)
    settings = {name: value for name, value in vars(options).items() if name != "json"} | {"cores": os.cpu_count()}
    return 0 if report(figures, settings, options.json) else 1


if __name__ == "__main__":
    sys.exit(main())
