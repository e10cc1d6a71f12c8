"""Frames a second of the face renderer on one core, by frame size, and of whole corpora (with encoding and labels).

    python bench/synthetic.py

Times are CPU times of one process, so other work on the machine disturbs them little. The aim is 150 frames/s at 112.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path

import cv2
import numpy as np

from ssm_platform.base.machine import describe_machine
from ssm_platform.synthetic import CORPORA, LabSpec, SyntheticSpec, WildSpec, corpus_jobs, run_job
from ssm_platform.synthetic.behaviour import prototypes
from ssm_platform.synthetic.dynamics import clip_course
from ssm_platform.synthetic.lab import LAB_CORPORA
from ssm_platform.synthetic.performance import person, stream, wild_performance


def main() -> None:
    """Prints a table, or JSON with --json."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="also write the numbers here")
    options = parser.parse_args()
    cv2.setNumThreads(1)
    rows = {f"render {size} px": render_rate(size) for size in (64, 112, 192)}
    with tempfile.TemporaryDirectory() as folder:
        rows |= {f"write {name}": corpus_rate(name, Path(folder)) for name in CORPORA}
    print(f"machine: {describe_machine()}")
    for name, rate in rows.items():
        print(f"{name:16} {rate:7.0f} frames/s per core")
    if options.json is not None:
        options.json.write_text(json.dumps({"machine": describe_machine(), "frames_per_second": rows}, indent=1) + "\n")


def render_rate(size: int, clips: int = 12, frames: int = 32) -> float:
    """Frames a second of CPU time over different people in wild clips."""
    played = []
    for number in range(clips):
        rng = stream(1, "bench", number)
        peaks = np.where(rng.random(prototypes().shape[1]) < 0.3, 4.0, 0.0)
        face = person(1, "bench", number)
        played.append(wild_performance(face, rng, clip_course(rng, frames, 25.0, peaks), 25.0, 1.0, size))
    started = time.process_time()
    for clip in played:
        for _ in clip.frames():
            pass
    return clips * frames / (time.process_time() - started)


def corpus_rate(name: str, folder: Path) -> float:
    """Frames a second of CPU time for jobs of a corpus: render, encode, label files, truth."""
    spec = SyntheticSpec(
        lab=LabSpec(subjects=2, sequences=1, frames=200), wild=WildSpec(clips=25, people=25, shortest=20, longest=20)
    )
    work = corpus_jobs(name, folder / name, spec, seed=1)
    started = time.process_time()
    for job in work.jobs:
        run_job(job)
    frames = 400 if name in LAB_CORPORA else 500
    return frames / (time.process_time() - started)


if __name__ == "__main__":
    main()
