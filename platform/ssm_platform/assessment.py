"""What follows training: evaluate a finished run, write its report, and publish its model.

    outcome = assess("runs/quickstart")     # also `python jobs/evaluate.py runs/quickstart`

Writes below the run's folder: `predictions/<corpus>.<side>.parquet`, `evaluation.json`, `report.html`, and the model
again with its fitted rule and figures; then a version in the registry. Everything can be made again from the run's
checkpoints, so an interrupted assessment is simply started again.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ssm import SSM
from ssm.metrics import AUTable
from ssm.rules import DecisionRule
from ssm_platform import cluster
from ssm_platform.clips import ClipConfig
from ssm_platform.config import RunConfig
from ssm_platform.evaluation import Tables, describe, evaluate, map_report
from ssm_platform.frames import open_frames
from ssm_platform.machine import describe_machine
from ssm_platform.prediction_files import to_parquet
from ssm_platform.predictions import Pool, predict
from ssm_platform.preparation import Prepared, prepare
from ssm_platform.records import Manifest
from ssm_platform.registry import Registry
from ssm_platform.report.page import Thumbnail, render
from ssm_platform.results import Evaluation, Protocol, Provenance
from ssm_platform.sampling import segment_indices
from ssm_platform.storage import Storage, open_storage
from ssm_platform.synthetic.truth import read_truth

_SHOWN = 3  # clips per row of thumbnails
_STRIP = 5  # frames of a thumbnail


@dataclass(frozen=True)
class Outcome:
    """What an assessment left behind."""

    evaluation: Evaluation
    report: str
    version: str  # in the registry


def assess(folder: str, protocol: Protocol | None = None, registry: str | None = None) -> Outcome:
    """Evaluate the finished run in `folder` (or `s3://` prefix) under its own protocol or another.

    ValueError where the folder holds no finished run, or where no corpus has a test side.
    """
    storage = open_storage(folder)
    config = run_config(storage)
    prepared = prepare(config)
    with local_model(storage) as path:
        validation, test = _predict(config, prepared, path)
        model = SSM.from_pretrained(path)
        evaluation, rule = evaluate(
            test,
            validation,
            protocol or config.protocol,
            config.model.vocabulary.aus,
            _provenance(folder, config, prepared),
            map_report(model, _true_association(prepared)),
        )
        for side, tables in (("validation", validation), ("test", test)):
            for corpus, table in tables.items():
                storage.write(f"predictions/{corpus}.{side}.parquet", to_parquet(table))
        storage.write("evaluation.json", evaluation.model_dump_json(indent=1).encode())
        storage.write("report.html", _page(storage, evaluation, rule, prepared, test).encode())
        version = _publish(model, path, storage, config, evaluation, rule, registry)
    return Outcome(evaluation, f"{storage.uri}/report.html", version)


def run_config(storage: Storage) -> RunConfig:
    """The config of the run in this folder; ValueError says what is missing."""
    try:
        stored = json.loads(storage.read("run.json"))
    except ValueError as error:
        raise ValueError(f"{storage.uri}: no run here: {error}") from error
    return RunConfig.model_validate(stored["config"])


@contextmanager
def local_model(storage: Storage) -> Iterator[Path]:
    """The run's model as a local folder; what lies in an object store is copied for as long as it is needed."""
    keys = storage.list("model/")
    if "model/config.json" not in keys:
        raise ValueError(f"{storage.uri}: the run has no model yet: train it to its end first")
    if "://" not in storage.uri:
        yield Path(storage.uri) / "model"
        return
    with tempfile.TemporaryDirectory() as scratch:
        for key in keys:
            path = Path(scratch) / key
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(storage.read(key))
        yield Path(scratch) / "model"


def _predict(config: RunConfig, prepared: Prepared, model: Path) -> tuple[Tables, Tables]:
    """Validation and test tables by corpus, both in one pass over one pool of workers."""
    sides = [*prepared.validation, *(prepared.test if config.protocol != "published" else [])]
    scale = config.scale
    pool = Pool(
        config.data.decode_workers,
        config.data.decode_cpus,
        scale.bounds[0],
        scale.cpus_per_worker,
        scale.gpu,
        scale.threads_per_worker,
    )
    clips = ClipConfig(frames=config.model.frames, preprocessing=config.preprocessing, decoder=config.data.decoder)
    with cluster.joined(pool.cpus):
        tables = predict(model, sides, config.model.vocabulary, clips, pool)
    count = len(prepared.validation)
    validation = {manifest.corpus: table for manifest, table in zip(sides[:count], tables[:count], strict=True)}
    if config.protocol == "published":
        return validation, validation
    return validation, {manifest.corpus: table for manifest, table in zip(sides[count:], tables[count:], strict=True)}


def _provenance(folder: str, config: RunConfig, prepared: Prepared) -> Provenance:
    return Provenance(
        run=config.name,
        command=f"python jobs/evaluate.py {folder}",
        seed=config.seed,
        config_fingerprint=config.fingerprint(),
        data=prepared.fingerprints,
        versions=Provenance.installed(),
        machine=describe_machine(),
    )


def _true_association(prepared: Prepared) -> dict[tuple[str, int], float] | None:
    """P(AU | expression) by which a synthetic expression corpus was drawn; None where none of the corpora knows it."""
    for side in prepared.splits.values():
        root = Path(side.train.root)
        if side.train.task == "fe" and (root / "truth" / "association.npz").is_file():
            known = read_truth(root).association
            if known is not None:
                return {
                    (name, au): float(known.designed[row, column])
                    for row, name in enumerate(known.expressions)
                    for column, au in enumerate(known.aus)
                }
    return None


def _publish(
    model: SSM, path: Path, storage: Storage, config: RunConfig, evaluation: Evaluation, rule: DecisionRule,
    registry: str | None,
) -> str:  # fmt: skip
    """Save the model with what was found out about it, in the run and in the registry (beside the runs by default)."""
    figures = json.loads(evaluation.model_dump_json(exclude={"provenance", "maps"}))
    provenance = json.loads(evaluation.provenance.model_dump_json())
    model.facts = model.facts.model_copy(
        update={"rule": rule.model_dump(mode="json"), "metrics": figures, "data": provenance}
    )
    model.save_pretrained(path)
    if "://" in storage.uri:
        for file in sorted(path.iterdir()):
            storage.write(f"model/{file.name}", file.read_bytes())
    place = registry or f"{config.storage.rstrip('/')}/registry"
    return Registry(place).publish(path, config.name)


def _page(storage: Storage, evaluation: Evaluation, rule: DecisionRule, prepared: Prepared, test: Tables) -> str:
    curves = json.loads(storage.read("curves.json"))
    losses, validation = _series(curves, "loss/"), _series(curves, "validation/")
    manifests = {manifest.corpus: manifest for manifest in prepared.test}
    return render(evaluation, losses, validation, _thumbnails(test, manifests), describe(rule))


def _series(curves: list[dict[str, float]], prefix: str) -> dict[str, list[tuple[int, float]]]:
    series: dict[str, list[tuple[int, float]]] = {}
    for point in curves:
        for name, value in point.items():
            if name.startswith(prefix):
                series.setdefault(name.removeprefix(prefix), []).append((int(point["step"]), value))
    return series


def _thumbnails(test: Tables, manifests: Mapping[str, Manifest]) -> dict[str, list[Thumbnail]]:
    """The clips that the model is surest of and right, and those that it is surest of and wrong."""
    rows: dict[str, list[Thumbnail]] = {}
    for corpus, table in test.items():
        if isinstance(table, AUTable):
            continue
        predicted = table.probabilities.argmax(axis=1)
        confidence = table.probabilities.max(axis=1)
        right = predicted == table.labels
        for title, chosen in (("Right and sure", right), ("Wrong and sure", ~right)):
            order = np.flatnonzero(chosen)[np.argsort(-confidence[chosen], kind="stable")][:_SHOWN]
            rows[f"{title} · {corpus}"] = [
                _thumbnail(
                    manifests[corpus],
                    table.clips[place],
                    f"{table.clips[place]}: {table.expressions[predicted[place]]} (p {confidence[place]:.2f})"
                    + ("" if right[place] else f", labelled {table.expressions[table.labels[place]]}"),
                )
                for place in order
            ]
    return rows


def _thumbnail(manifest: Manifest, clip: str, caption: str) -> Thumbnail:
    record = manifest[manifest.column("clip").to_pylist().index(clip)]
    source = open_frames(record, manifest.root)
    try:
        return Thumbnail.of(source.read(segment_indices(record.length, _STRIP).tolist()), caption)
    finally:
        source.close()
