"""Baselines and ablations on the synthetic corpora, several seeds each, as the table of docs/results.md.

    python bench/study.py --out runs/study --seeds 1 2 3 [--variants full au_only ...] [--field=value ...]

Every run is `jobs/train.py --recipe quickstart+VARIANT --seed=S`, at most `--jobs` of them at a time on one local Ray
cluster; finished runs are kept, so a study that was cut off goes on; one that was trained with other fields is refused.
The corpora and their test sides are the same in all runs, so differences to `full` are paired by subject and seed: the
interval of a difference is for other people and other seeds, with the subjects and the seeds that it rests on and, seed
by seed, the difference itself. Last comes the noise floor: how far a figure of the full model moves with the choice of
the people it is tested on. With `--unseen` a second table scores the same models on many more people, whom no run has
seen.
"""

from __future__ import annotations

import argparse
import json
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
    confusion_by_subject,
    f1_score,
    hits_by_subject,
    macro,
    ranked_area,
    scores_by_subject,
    seeds_difference,
    unweighted_recall,
)
from ssm_platform.base.machine import describe_machine
from ssm_platform.base.overrides import override, split_assignments
from ssm_platform.base.storage import open_storage
from ssm_platform.cluster import joined
from ssm_platform.data.clips import ClipConfig
from ssm_platform.evaluate.noise import noise_floor
from ssm_platform.evaluate.prediction_files import from_parquet, to_parquet
from ssm_platform.evaluate.predictions import Pool, Table, predict
from ssm_platform.evaluate.rules import fit
from ssm_platform.evaluate.scores import Evaluation, NoiseFloor
from ssm_platform.records.manifest import Manifest
from ssm_platform.runs.config import CorpusConfig, RunConfig
from ssm_platform.runs.preparation import load, prepare
from ssm_platform.runs.recipes import recipe
from ssm_platform.synthetic import PRESETS, write_corpus

REPOSITORY = Path(__file__).resolve().parents[1]
ABLATIONS = ("full", "au_only", "fe_only", "no_tsp", "no_dpm", "fixed_prior", "au_to_fe", "fe_to_au", "mal")
METHODS = ("evidential", "hiva", "hiva+evidential", "cvae_evidential")
"""AU readers (docs/methods.md): their further tables are bench/methods.py's."""
VARIANTS = (*ABLATIONS, *METHODS)
READER_FIELDS = {"cvae_evidential": {"model.au_reader.kind": "cvae_evidential"}}
"""Variants that no modifier makes: `full` with these fields."""
MEASURES = {
    "AU AUC": lambda counts: macro(ranked_area(counts)),
    "macro F1": lambda counts: macro(f1_score(counts)),
    "UAR": unweighted_recall,
}
UNSEEN = PRESETS["quickstart"].model_copy(
    update={
        "lab": PRESETS["quickstart"].lab.model_copy(update={"subjects": 27, "sequences": 2, "frames": 100}),
        "wild": PRESETS["quickstart"].wild.model_copy(update={"clips": 1000, "people": 400}),
    }
)
UNSEEN_SEED = 2  # those that are trained on have seed 1
NOISE = {"AU AUC": "auc", "macro F1": "macro_f1", "UAR": "uar"}
"""Each measure's field of `NoiseFloor`."""


@dataclass(frozen=True)
class Run:
    """A finished run of one variant with one seed."""

    evaluation: Evaluation
    counts: Mapping[str, NDArray[np.int64]]  # by measure: of each subject (S, ...), what intervals are made of
    noise: NoiseFloor


Runs = Mapping[int, Run]
"""The finished runs of a variant by seed."""


class OtherSettings(ValueError):
    """A folder holds a run that was trained with other settings than those asked for."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/study"), help="folder of the study's runs")
    parser.add_argument("--recipe", default="quickstart", help="recipe that the variants modify")
    parser.add_argument("--variants", nargs="+", default=list(ABLATIONS), choices=VARIANTS)
    parser.add_argument("--seeds", nargs="+", type=int, default=[1, 2, 3])
    parser.add_argument("--jobs", type=int, default=2, help="runs at a time, each with one thread")
    parser.add_argument(
        "--unseen", action="store_true", help="also score every run on corpora of 27 and 400 new people"
    )
    parser.add_argument("--table-only", action="store_true", help="print the table of the runs that are finished")
    options, fields = parser.parse_known_args()
    study = Study(options.out.absolute(), options.recipe, tuple(fields))
    wanted = [(variant, seed) for seed in options.seeds for variant in options.variants]
    try:
        others = agreed({study.folder(*one): study.differing(*one) for one in study.finished(wanted)})
        if others and (fields or not options.table_only):
            raise OtherSettings(f"the runs in {study.out} have {_named(others)}: give these fields, or another --out")
    except OtherSettings as error:
        parser.error(str(error))
    if not options.table_only:
        _train_all(study, wanted, options.jobs)
    print(f"<!-- python {' '.join(sys.argv)} -->\n\nMachine: {describe_machine()}\n")
    if others:
        print(f"Unlike the recipe, these runs have {_named(others)}.\n")
    finished = study.finished(wanted)
    print(table(_by_variant({one: _read(study.folder(*one)) for one in finished})))
    if options.unseen:
        print(
            f"\nOn people whom no run has seen ({UNSEEN.lab.subjects} for AUs, {UNSEEN.wild.people} for expressions):\n"
        )
        print(table(_by_variant(_score_unseen(study, finished))))


def _by_variant(runs: Mapping[tuple[str, int], Run]) -> dict[str, dict[int, Run]]:
    found: dict[str, dict[int, Run]] = {}
    for variant, seed in sorted(runs, key=lambda one: (VARIANTS.index(one[0]), one[1])):
        found.setdefault(variant, {})[seed] = runs[variant, seed]
    return found


@dataclass(frozen=True)
class Study:
    """Where the runs of a study lie, and what each is asked to be."""

    out: Path
    base: str  # recipe that the variants modify
    fields: tuple[str, ...]  # of the command line

    def folder(self, variant: str, seed: int) -> Path:
        return self.out / f"{self.base}-{variant.replace('+', '_')}-{seed}"

    def config(self, variant: str, seed: int) -> RunConfig:
        fields = {"seed": seed, **READER_FIELDS.get(variant, {}), **split_assignments(self.fields)}
        return override(recipe(f"{self.base}+{modifier(variant)}"), fields)

    def finished(self, wanted: Sequence[tuple[str, int]]) -> list[tuple[str, int]]:
        return [one for one in wanted if (self.folder(*one) / "evaluation.json").is_file()]

    def differing(self, variant: str, seed: int) -> dict[str, Any]:
        """Fields that decide numbers and have another value in the finished run than is asked for: theirs."""
        file = self.folder(variant, seed) / "run.json"
        try:
            theirs = RunConfig.model_validate(json.loads(file.read_text())["config"]).mathematics()
        except (OSError, ValueError, KeyError) as error:
            raise OtherSettings(f"{file}: cannot tell how this run was trained: {error}; remove its folder") from error
        ours = self.config(variant, seed).mathematics()
        return {name: theirs.get(name) for name in sorted({*theirs, *ours}) if theirs.get(name) != ours.get(name)}


def modifier(variant: str) -> str:
    """What makes a variant of a recipe, besides its fields."""
    return "full" if variant in READER_FIELDS else variant


def agreed(differing: Mapping[Path, Mapping[str, Any]]) -> Mapping[str, Any]:
    """What all runs have in common beside the recipe; `OtherSettings` where they differ among themselves."""
    first = next(iter(differing), None)
    for folder, others in differing.items():
        if others != differing[first]:
            one, other = (f"{place.name} has {_named(differing[place])}" for place in (first, folder))
            raise OtherSettings(f"{folder.parent} holds runs with different settings: {one}, {other}")
    return {} if first is None else differing[first]


def _named(fields: Mapping[str, Any]) -> str:
    return ", ".join(f"{name}={value}" for name, value in fields.items()) or "the recipe's"


def _train_all(study: Study, wanted: Sequence[tuple[str, int]], jobs: int) -> None:
    import ray

    prepare(study.config("full", 1))  # the corpora are written once, by one process
    context = ray.init(num_cpus=4 * jobs, include_dashboard=False, object_store_memory=2**30)
    environment = {**os.environ, "RAY_ADDRESS": context.address_info["address"], "OMP_NUM_THREADS": "1"}
    finished = study.finished(wanted)
    with ThreadPoolExecutor(jobs) as pool:
        list(pool.map(partial(_train, study, environment), [one for one in wanted if one not in finished]))
    ray.shutdown()


def _train(study: Study, environment: dict[str, str], one: tuple[str, int]) -> None:
    variant, seed = one
    folder = study.folder(variant, seed)
    folder.parent.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, str(REPOSITORY / "jobs" / "train.py"), f"--recipe={study.base}+{modifier(variant)}"]
    command += [f"--{name}={value}" for name, value in READER_FIELDS.get(variant, {}).items()]
    command += [f"--name={folder.name}", f"--storage={folder.parent}", f"--seed={seed}"]
    command += ["--scale.threads_per_worker=1", *study.fields]  # two runs of two threads each wait for one another
    with folder.with_suffix(".log").open("w") as log:
        code = subprocess.run(command, env=environment, stdout=log, stderr=log, check=False).returncode
    print(f"{folder.name}: {'done' if code == 0 else f'exit code {code}, see {log.name}'}", file=sys.stderr, flush=True)


def _score_unseen(study: Study, finished: Sequence[tuple[str, int]]) -> dict[tuple[str, int], Run]:
    """Every finished run on the same corpora of new people, which are written here once; answers are kept."""
    missing = [one for one in finished if not list((study.folder(*one) / "predictions").glob("*.unseen.parquet"))]
    if missing:
        every = study.config("full", 1).data.corpora
        manifests = {corpus.name: _unseen(study.out / "unseen" / corpus.name, corpus) for corpus in every}
        with joined(3):
            for one in missing:
                _answer_unseen(study.config(*one), study.folder(*one), manifests)
    return {one: _read(study.folder(*one), "unseen") for one in finished}


def _answer_unseen(config: RunConfig, folder: Path, corpora: Mapping[str, Manifest]) -> None:
    manifests = [corpora[corpus.name] for corpus in config.data.corpora]
    clips = ClipConfig(frames=config.model.frames, preprocessing=config.preprocessing, decoder=config.data.decoder)
    answers = predict(folder / "model", manifests, config.model.vocabulary, clips, Pool())
    model = Evaluation.read(folder / "evaluation.json").provenance.model
    for manifest, found in zip(manifests, answers.tables, strict=True):
        open_storage(folder).write(f"predictions/{manifest.corpus}.unseen.parquet", to_parquet(found, model))


def _unseen(root: Path, corpus: CorpusConfig) -> Manifest:
    write_corpus(corpus.reader or corpus.name, root, UNSEEN, UNSEEN_SEED, os.cpu_count() or 1)
    return load(corpus.model_copy(update={"root": str(root), "synthetic": None}))


def _read(folder: Path, side: str = "test") -> Run:
    evaluation = Evaluation.read(folder / "evaluation.json")
    sides: dict[str, dict[str, Table]] = {"validation": {}, side: {}}
    for path in sorted((folder / "predictions").glob("*.parquet")):
        corpus, of = path.name.removesuffix(".parquet").rsplit(".", 1)
        if of in sides:
            sides[of][corpus] = _table(path, evaluation.provenance.model)
    counts: dict[str, NDArray[np.int64]] = {}
    for found in sides[side].values():
        if isinstance(found, AUTable):
            rule = fit(sides["validation"], found.aus)
            counts["AU AUC"] = scores_by_subject(found)
            counts["macro F1"] = hits_by_subject(found, rule.apply(found.probabilities, found.lengths))
        else:
            counts["UAR"] = confusion_by_subject(found)
    return Run(evaluation, counts, noise_floor(sides[side]))


def _table(path: Path, model: str) -> Table:
    try:
        return from_parquet(path.read_bytes(), model)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def table(runs: Mapping[str, Runs]) -> str:
    """Markdown: each variant's test figures (mean over seeds, spread over seeds), and its difference to `full`."""
    lines = [
        f"| variant | seeds | {' | '.join(f'{name} | to full' for name in MEASURES)} | map r (prior -> learned) |",
        f"|---|---|{'---|---|' * len(MEASURES)}---|",
    ]
    full = runs.get("full", {})
    for variant, found in runs.items():
        cells = [variant, str(len(found))]
        for measure in MEASURES:
            cells += [_mean(found, measure), "" if variant == "full" else _difference(found, full, measure)]
        lines.append(f"| {' | '.join([*cells, _map(found)])} |")
    if full:
        cells = [cell for measure in MEASURES for cell in ("", _noise(full, measure))]
        lines.append(f"| {' | '.join(['noise floor', '', *cells, ''])} |")
    return "\n".join(lines)


def _mean(found: Runs, measure: str) -> str:
    values = [float(MEASURES[measure](run.counts[measure].sum(0))) for run in found.values() if measure in run.counts]
    return f"{np.mean(values):.3f} ± {np.std(values, ddof=1) if len(values) > 1 else 0:.3f}" if values else ""


def _noise(full: Runs, measure: str) -> str:
    values = [run.noise.model_dump().get(NOISE[measure]) for run in full.values()]
    known = [value for value in values if value is not None]
    return f"± {np.mean(known):.3f}" if known else ""


def _difference(found: Runs, full: Runs, measure: str) -> str:
    """Over the seeds that both have finished."""
    pairs = [
        (run.counts[measure], full[seed].counts[measure])
        for seed, run in found.items()
        if seed in full and measure in run.counts and measure in full[seed].counts
    ]
    if not pairs:
        return ""
    estimate = difference(pairs, MEASURES[measure])
    seeds = [float(MEASURES[measure](one.sum(0)) - MEASURES[measure](other.sum(0))) for one, other in pairs]
    interval = f"[{float(estimate.low):+.3f}, {float(estimate.high):+.3f}, n {int(estimate.subjects)} x {len(pairs)}]"
    return f"{float(estimate.value):+.3f} {interval} ({', '.join(f'{one:+.3f}' for one in seeds)})"


def difference(pairs: Sequence[tuple[NDArray[Any], NDArray[Any]]], measure: Any) -> Estimate:
    """Mean over seeds of measure(one) - measure(other), with its interval for other people and other seeds."""
    ones, others = (np.stack(side, axis=1) for side in zip(*pairs, strict=True))  # S seeds ...
    return seeds_difference(ones, others, measure)


def _map(found: Runs) -> str:
    maps = [
        run.evaluation.maps for run in found.values() if run.evaluation.maps and run.evaluation.maps.learned_correlation
    ]
    if not maps:
        return ""
    prior, learned = ([getattr(one, f"{name}_correlation") for one in maps] for name in ("prior", "learned"))
    return f"{np.mean(prior):.3f} -> {np.mean(learned):.3f}"


if __name__ == "__main__":
    main()
