"""What a start costs over a million clips: seconds from the command to the first batch, and the driver's memory.

    python bench/starts.py [--clips 1000000] [--epochs 30] [--json FILE]

Two manifests (three clips of five are expression clips of 40 frames, the rest windows of AU records of 1,600) name two
small videos over and over, so all that grows with a corpus is there but its pixels. A run over them is opened as
`jobs/train.py` opens it and its stream is laid as Ray Train asks for it; its worker takes one batch. Three starts, each
in a process of its own: the first, which reads and keeps what may be kept, the second, and one of ten times as many
epochs. Exit code 1, and a line for each reason, where the second takes more than 30 s or 1 GiB, or the third more than
a tenth above the second.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from ssm.labels.vocabulary import Vocabulary
from ssm_platform.base.machine import describe_machine
from ssm_platform.base.overrides import override
from ssm_platform.cluster import joined
from ssm_platform.data.feed import START, ResumingDataConfig
from ssm_platform.data.pace import keep_pace
from ssm_platform.data.shared import Shared
from ssm_platform.data.streams import ClipStream
from ssm_platform.records.manifest import SCHEMA, Manifest
from ssm_platform.runs.config import RunConfig
from ssm_platform.runs.preflight import cpus_needed, store_bytes
from ssm_platform.runs.recipes import tiny
from ssm_platform.train.building import run_reader
from ssm_platform.train.checkpoints import Attempt
from ssm_platform.train.opening import open_run
from ssm_platform.train.running import course

SECONDS, MIB, GROWTH = 30.0, 1024.0, 1.1
FE_LENGTH, AU_LENGTH, OF_A_PERSON = 40, 1_600, 200  # frames, frames, clips


@dataclass(frozen=True)
class Started:
    """One start."""

    first_batch_s: float  # from the command
    driver_mib: float  # at most


def config_over(place: Path, epochs: int) -> RunConfig:
    """Recipe `tiny`, its corpora replaced by the manifests in `place`."""
    fields: dict[str, Any] = {
        "storage": str(place / "runs"),
        "name": f"epochs-{epochs}",
        "epochs": epochs,
        "steps": None,
    }
    for name in ("bp4d", "dfew"):
        fields |= {
            f"data.corpora.{name}.manifest": str(place / f"{name}.parquet"),
            f"data.corpora.{name}.root": None,
            f"data.corpora.{name}.synthetic": None,
            f"data.corpora.{name}.crops": "always",
            f"data.corpora.{name}.test_parts": (),
            f"data.corpora.{name}.validation_parts": (),
        }
    return override(tiny(), fields)


def write_corpora(place: Path, clips: int) -> None:
    """Two videos, and the manifests that name them."""
    vocabulary = tiny().model.vocabulary
    windows = AU_LENGTH // tiny().model.frames
    for name, labels, count, length in (
        ("dfew", Vocabulary(expressions=vocabulary.expressions), clips * 3 // 5, FE_LENGTH),
        ("bp4d", Vocabulary(aus=vocabulary.aus), max(8, clips * 2 // 5 // windows), AU_LENGTH),
    ):
        write_video(place / f"{name}.mp4", length)
        repeated(place, name, labels, count, length).write(place / f"{name}.parquet")


def write_video(path: Path, frames: int) -> None:
    """Grey noise of 64 pixels."""
    import av  # not at the top: the driver that is measured does not have it

    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25)
        stream.width = stream.height = 64
        stream.pix_fmt = "yuv420p"
        for image in np.random.default_rng(1).integers(0, 256, (frames, 64, 64, 3), np.uint8):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode())


def repeated(place: Path, name: str, labels: Vocabulary, count: int, length: int) -> Manifest:
    """`count` records of one video, of people with a few records each."""
    text = pa.large_string()
    people = OF_A_PERSON if labels.expressions else 1
    columns: dict[str, Any] = {field: pa.nulls(count, SCHEMA.field(field).type) for field in SCHEMA.names}
    columns["clip"] = pa.array([f"{number:07}" for number in range(count)], text)
    columns["subject"] = pa.array([f"S{number // people:06}" for number in range(count)], text)
    columns["source"], columns["kind"] = pa.array([f"{name}.mp4"] * count, text), pa.array(["video"] * count, text)
    columns["start"], columns["length"] = pa.array([0] * count, pa.int64()), pa.array([length] * count, pa.int32())
    if labels.expressions:
        classes = labels.expressions
        columns["expression"] = pa.array([classes[number % len(classes)] for number in range(count)], text)
    else:
        width = length * len(labels.aus)
        values = np.random.default_rng(1).integers(-1, 2, count * width, np.int8)
        columns["au_labels"] = pa.LargeListArray.from_arrays(np.arange(count + 1) * width, values)
    task: Any = "fe" if labels.expressions else "au"
    return Manifest(str(place), name, task, labels, pa.table(columns, schema=SCHEMA))


def start(place: Path, epochs: int, began: float) -> Started:
    """This process opens the run and waits for its worker's first batch."""
    from ray.train import LoggingConfig, ScalingConfig
    from ray.train import RunConfig as RayRunConfig
    from ray.train.torch import TorchTrainer

    config = config_over(place, epochs)
    run = open_run(config)
    with joined(cpus_needed(config), store_bytes=store_bytes(config)):
        keep_pace()
        reader = run_reader(config, run.prepared.train, run.job.validation)
        clips = ClipStream(Shared(reader), config.data.decode_workers, config.data.decode_cpus)
        feed = ResumingDataConfig(clips, course(run), partial(Attempt, 0, None))
        trainer = TorchTrainer(
            _first_batch,
            scaling_config=ScalingConfig(num_workers=1, resources_per_worker={"CPU": config.scale.cpus_per_worker}),
            run_config=RayRunConfig(name="start", storage_path=str(place), logging_config=LoggingConfig("WARNING")),
            datasets=feed.names,
            dataset_config=feed,
        )
        there: Any = trainer.fit().return_value
    return Started(there - began, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)


def _first_batch() -> float:
    import ray.train

    stream: Any = ray.train.get_dataset_shard(START)
    next(stream.batches(ray.train.get_dataset_shard, 1))
    return time.time()


def in_a_process(place: Path, epochs: int) -> Started:
    """One start by its own command."""
    command = [sys.executable, __file__, "--place", str(place), "--epochs", str(epochs), "--began", str(time.time())]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=600)
    if done.returncode:
        sys.exit(done.stderr[-3000:])
    return Started(**json.loads(done.stdout.splitlines()[-1]))


def failures(second: Started, longer: Started) -> list[str]:
    """What is missed, one line each."""
    figures: Mapping[str, tuple[float, float]] = {
        "seconds to the first batch of the second start": (second.first_batch_s, SECONDS),
        "MiB of the driver": (second.driver_mib, MIB),
        "seconds with ten times the epochs": (longer.first_batch_s, GROWTH * second.first_batch_s),
        "MiB with ten times the epochs": (longer.driver_mib, GROWTH * second.driver_mib),
    }
    return [
        f"FAILED: {name}: {value:.1f}, at most {most:.1f}" for name, (value, most) in figures.items() if value > most
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", type=int, default=1_000_000)
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--place", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--began", type=float, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.place:
        print(json.dumps(asdict(start(arguments.place, arguments.epochs, arguments.began))))
        return
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        write_corpora(place, arguments.clips)
        asked = (arguments.epochs, arguments.epochs, 10 * arguments.epochs)
        first, second, longer = (in_a_process(place, epochs) for epochs in asked)
    found = {"machine": describe_machine(), "clips": arguments.clips, "epochs": arguments.epochs}
    found |= {"first": asdict(first), "second": asdict(second), "ten times the epochs": asdict(longer)}
    print(json.dumps(found, indent=1))
    if arguments.json:
        arguments.json.write_text(json.dumps(found, indent=1) + "\n")
    missed = failures(second, longer)
    print("\n".join(missed), file=sys.stderr)
    sys.exit(bool(missed))


if __name__ == "__main__":
    main()
