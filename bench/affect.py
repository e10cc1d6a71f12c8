"""Does affect help AUs and expressions, do they help it, and what does the frame baseline reach at what cost?

    python bench/affect.py --out runs/affect-study --seeds 1 2 3 [--steps 1200] [--baseline]

The joint runs are `jobs/train.py --recipe RECIPE --seed=S` on the drawn corpora of the quickstart, one after the other;
finished ones are kept. All share test sides, so differences are paired by subject and seed, with intervals for other
people and other seeds. `--baseline` trains the frame baseline on the backbone of each joint run and on an untrained
one, on the same corpora, and sets accuracy and seconds beside.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ssm.metrics import (
    AffectTable,
    AUTable,
    confusion_by_subject,
    macro,
    mean_ccc,
    ranked_area,
    scores_by_subject,
    seeds_difference,
    sums_by_subject,
    unweighted_recall,
)
from ssm_platform.base.machine import describe_machine
from ssm_platform.evaluate.prediction_files import from_parquet
from ssm_platform.evaluate.scores import Evaluation
from ssm_platform.frames import FrameRun
from ssm_platform.frames.config import EncoderConfig
from ssm_platform.runs.recipes import recipe

REPOSITORY = Path(__file__).resolve().parents[1]
RUNS = {
    "two tasks": "quickstart",
    "three tasks": "quickstart+with_affect",
    "three tasks, label head": "quickstart+with_affect+affect_labels",
    "affect alone": "quickstart+with_affect+va_only",
}
"""What is trained, by name: a recipe each."""

MEASURES: dict[str, tuple[str, Callable[[NDArray[Any]], Any]]] = {
    "AU AUC": ("bp4d", lambda counts: macro(ranked_area(counts))),
    "UAR": ("dfew", unweighted_recall),
    "mean CCC": ("affwild2_va", mean_ccc),
}
QUESTIONS = (
    ("does affect help AUs?", "AU AUC", "three tasks", "two tasks"),
    ("does affect help expressions?", "UAR", "three tasks", "two tasks"),
    ("do AUs and expressions help affect?", "mean CCC", "three tasks", "affect alone"),
    ("label head against features", "mean CCC", "three tasks, label head", "three tasks"),
)


@dataclass(frozen=True)
class Trained:
    """A finished run and what it took."""

    folder: Path
    seconds: float


def main() -> None:
    """Trains what is missing and prints the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--steps", type=int, help="optimiser steps; the recipe's where not given")
    parser.add_argument("--baseline", action="store_true")
    options = parser.parse_args()
    runs = {
        (name, seed): joint_run(options.out, text, seed, options.steps)
        for seed in options.seeds
        for name, text in RUNS.items()
    }
    print(f"machine: {describe_machine()}")
    for (name, seed), run in runs.items():
        print(f"{name}, seed {seed}: {figures(run.folder)} in {run.seconds:.0f} s")
    for question, measure, one, other in QUESTIONS:
        print(f"{question} {measure}, {one} minus {other}: {difference(runs, options.seeds, measure, one, other)}")
    for seed in options.seeds if options.baseline else ():
        for name, encoder in encoders(runs["three tasks", seed].folder).items():
            run = baseline_run(options.out, name, encoder, seed)
            print(f"frame baseline on {name}, seed {seed}: {figures(run.folder)} in {run.seconds:.0f} s")


def joint_run(out: Path, text: str, seed: int, steps: int | None) -> Trained:
    """The run of a recipe, trained where it is not there."""
    name = f"{text.replace('+', '-')}-{seed}"
    command = ["jobs/train.py", "--recipe", text, f"--seed={seed}", f"--storage={out}", f"--name={name}"]
    return _ran([*command, *([] if steps is None else [f"--steps={steps}"])], out / name)


def encoders(joint: Path) -> dict[str, EncoderConfig]:
    """The joint run's own backbone, and one of the same shape that nobody trained."""
    backbone = recipe("quickstart").model.backbone
    plain = EncoderConfig(
        timm=backbone.name, pretrained=False, options=backbone.options, image_size=backbone.image_size
    )
    return {"its backbone": EncoderConfig(model=str(joint / "model")), "an untrained one": plain}


def baseline_run(out: Path, name: str, encoder: EncoderConfig, seed: int) -> Trained:
    """The frame baseline over the joint runs' corpora."""
    run = FrameRun(
        name=f"frames-{name.split()[0]}-{seed}",
        seed=seed,
        storage=str(out),
        corpora=recipe("quickstart+with_affect").data.corpora,
        encoder=encoder,
    )
    path = out / f"{run.name}.json"
    path.write_text(run.model_dump_json(indent=1))
    return _ran(["jobs/frames.py", "--recipe", str(path)], out / run.name)


def _ran(command: list[str], folder: Path) -> Trained:
    """Runs it unless the folder holds its evaluation; seconds are kept beside."""
    clock = folder / "seconds.json"
    if not clock.is_file():
        started = time.perf_counter()
        subprocess.run([sys.executable, *command], cwd=REPOSITORY, check=True, stdout=subprocess.DEVNULL)
        clock.write_text(json.dumps(time.perf_counter() - started))
    return Trained(folder, json.loads(clock.read_text()))


def figures(folder: Path) -> str:
    """The figures of a run in a line."""
    found = Evaluation.read(folder / "evaluation.json")
    parts = [f"AUC {one.mean_auc}" for one in found.au] + [f"UAR {one.uar}" for one in found.fe]
    return "; ".join(parts + [f"mean CCC {one.mean_ccc}" for one in found.va])


def difference(runs: dict[tuple[str, int], Trained], seeds: Sequence[int], measure: str, one: str, other: str) -> str:
    """The paired difference with its interval."""
    corpus, figure = MEASURES[measure]
    sides = [np.stack([_counts(runs[name, seed].folder, corpus) for seed in seeds], axis=1) for name in (one, other)]
    found = seeds_difference(sides[0], sides[1], figure)
    return f"{float(found.value):+.3f} [{float(found.low):+.3f}, {float(found.high):+.3f}], n {int(found.subjects)}"


def _counts(folder: Path, corpus: str) -> NDArray[Any]:
    """What a measure is made of, subject by subject."""
    table = from_parquet((folder / "predictions" / f"{corpus}.test.parquet").read_bytes())
    if isinstance(table, AffectTable):
        return sums_by_subject(table)
    return scores_by_subject(table) if isinstance(table, AUTable) else confusion_by_subject(table)


if __name__ == "__main__":
    main()
