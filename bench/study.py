"""Baselines and ablations on the synthetic corpora, several seeds each, as the table of docs/results.md.

    python bench/study.py --out runs/study --seeds 1 2 3 [--variants full au_only ...] [--field=value ...]

Every run is `jobs/train.py --recipe quickstart+VARIANT --seed=S`, at most `--jobs` of them at a time on one local Ray
cluster; finished runs are kept, so a study that was cut off goes on. The corpora and their test sides are the same in
all runs, so differences to `full` are paired by subject: the interval of a difference resamples subjects
and averages over seeds; the spread over seeds stands beside it.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ssm.metrics import (
    AUTable,
    Estimate,
    bootstrap,
    confusion_by_subject,
    f1_score,
    hits_by_subject,
    macro,
    ranked_area,
    scores_by_subject,
    unweighted_recall,
)
from ssm_platform.cli import override, split_assignments
from ssm_platform.evaluation import fit
from ssm_platform.machine import describe_machine
from ssm_platform.prediction_files import from_parquet
from ssm_platform.predictions import Table
from ssm_platform.preparation import prepare
from ssm_platform.recipes import recipe
from ssm_platform.results import Evaluation

REPOSITORY = Path(__file__).resolve().parents[1]
VARIANTS = ("full", "au_only", "fe_only", "no_tsp", "no_dpm", "fixed_prior", "au_to_fe", "fe_to_au", "mal")
MEASURES = {
    "AU AUC": lambda counts: macro(ranked_area(counts)),
    "macro F1": lambda counts: macro(f1_score(counts)),
    "UAR": unweighted_recall,
}


@dataclass(frozen=True)
class Run:
    """A finished run of one variant with one seed."""

    evaluation: Evaluation
    counts: Mapping[str, NDArray[np.int64]]  # by measure: what a bootstrap over subjects (S, ...) resamples


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/study"), help="folder of the study's runs")
    parser.add_argument("--recipe", default="quickstart", help="recipe that the variants modify")
    parser.add_argument("--variants", nargs="+", default=list(VARIANTS), choices=VARIANTS)
    parser.add_argument("--seeds", nargs="+", type=int, default=[1, 2, 3])
    parser.add_argument("--jobs", type=int, default=2, help="runs at a time, each with one thread")
    parser.add_argument("--table-only", action="store_true", help="print the table of the runs that are finished")
    options, fields = parser.parse_known_args()
    if not options.table_only:
        _train_all(options, fields)
    runs = {variant: _finished(options.out, options.recipe, variant, options.seeds) for variant in options.variants}
    print(f"<!-- python {' '.join(sys.argv)} -->\n\nMachine: {describe_machine()}\n")
    print(table({variant: found for variant, found in runs.items() if found}))


def _train_all(options: argparse.Namespace, fields: list[str]) -> None:
    import ray

    prepare(override(recipe(options.recipe), split_assignments(fields)))  # the corpora are written once, by one process
    context = ray.init(num_cpus=4 * options.jobs, include_dashboard=False, object_store_memory=2**30)
    environment = {**os.environ, "RAY_ADDRESS": context.address_info["address"], "OMP_NUM_THREADS": "1"}
    wanted = [(variant, seed) for seed in options.seeds for variant in options.variants]
    with ThreadPoolExecutor(options.jobs) as pool:
        list(pool.map(partial(_train, options, fields, environment), wanted))
    ray.shutdown()


def _train(options: argparse.Namespace, fields: list[str], environment: dict[str, str], one: tuple[str, int]) -> None:
    variant, seed = one
    folder = _folder(options.out, options.recipe, variant, seed)
    if (folder / "evaluation.json").is_file():
        return
    folder.parent.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, str(REPOSITORY / "jobs" / "train.py"), f"--recipe={options.recipe}+{variant}"]
    command += [f"--name={folder.name}", f"--storage={folder.parent}", f"--seed={seed}", *fields]
    with folder.with_suffix(".log").open("w") as log:
        code = subprocess.run(command, env=environment, stdout=log, stderr=log, check=False).returncode
    print(f"{folder.name}: {'done' if code == 0 else f'exit code {code}, see {log.name}'}", file=sys.stderr, flush=True)


def _folder(out: Path, base: str, variant: str, seed: int) -> Path:
    return out.absolute() / f"{base}-{variant}-{seed}"


def _finished(out: Path, base: str, variant: str, seeds: Sequence[int]) -> list[Run]:
    folders = [_folder(out, base, variant, seed) for seed in seeds]
    return [_read(folder) for folder in folders if (folder / "evaluation.json").is_file()]


def _read(folder: Path) -> Run:
    sides: dict[str, dict[str, Table]] = {"validation": {}, "test": {}}
    for path in sorted((folder / "predictions").glob("*.parquet")):
        corpus, side = path.name.removesuffix(".parquet").rsplit(".", 1)
        sides[side][corpus] = from_parquet(path.read_bytes())
    counts: dict[str, NDArray[np.int64]] = {}
    for found in sides["test"].values():
        if isinstance(found, AUTable):
            rule = fit(sides["validation"], found.aus)
            counts["AU AUC"] = scores_by_subject(found)
            counts["macro F1"] = hits_by_subject(found, rule.apply(found.probabilities, found.lengths))
        else:
            counts["UAR"] = confusion_by_subject(found)
    return Run(Evaluation.read(folder / "evaluation.json"), counts)


def table(runs: Mapping[str, Sequence[Run]]) -> str:
    """Markdown: each variant's test figures (mean over seeds, spread over seeds), and its difference to `full`."""
    lines = [
        f"| variant | seeds | {' | '.join(f'{name} | to full' for name in MEASURES)} | map r (prior -> learned) |",
        f"|---|---|{'---|---|' * len(MEASURES)}---|",
    ]
    for variant, found in runs.items():
        cells = [variant, str(len(found))]
        for measure in MEASURES:
            cells += [_mean(found, measure), _difference(found, runs.get("full", ()), measure)]
        lines.append(f"| {' | '.join([*cells, _map(found)])} |")
    return "\n".join(lines)


def _mean(found: Sequence[Run], measure: str) -> str:
    values = [float(MEASURES[measure](run.counts[measure].sum(0))) for run in found if measure in run.counts]
    return f"{np.mean(values):.3f} ± {np.std(values, ddof=1) if len(values) > 1 else 0:.3f}" if values else ""


def _difference(found: Sequence[Run], full: Sequence[Run], measure: str) -> str:
    pairs = [
        (one.counts[measure], other.counts[measure])
        for one, other in zip(found, full, strict=False)
        if measure in one.counts and measure in other.counts and one is not other
    ]
    if not pairs:
        return ""
    estimate = difference(pairs, MEASURES[measure])
    return f"{float(estimate.value):+.3f} [{float(estimate.low):+.3f}, {float(estimate.high):+.3f}]"


def difference(pairs: Sequence[tuple[NDArray[Any], NDArray[Any]]], measure: Any) -> Estimate:
    """Mean over seeds of measure(one) - measure(other), with its interval over the same subjects in all of them."""
    both = np.stack([np.stack(pair, axis=1) for pair in pairs], axis=1)  # S seeds 2 ...
    return bootstrap(both, lambda total: (measure(total[:, :, 0]) - measure(total[:, :, 1])).mean(1))


def _map(found: Sequence[Run]) -> str:
    maps = [run.evaluation.maps for run in found if run.evaluation.maps and run.evaluation.maps.learned_correlation]
    if not maps:
        return ""
    prior, learned = ([getattr(one, f"{name}_correlation") for one in maps] for name in ("prior", "learned"))
    return f"{np.mean(prior):.3f} -> {np.mean(learned):.3f}"


if __name__ == "__main__":
    main()
