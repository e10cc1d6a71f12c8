"""What follows training: evaluate a finished run, write its report, and publish its model.

    outcome = assess("runs/quickstart")     # also `python jobs/evaluate.py runs/quickstart`

Writes below the run's folder: `predictions/<corpus>.<side>.parquet`, `evaluation.json`, `report.html`, and the model
again with its fitted rule and figures; then a version in the registry. Under `published` (and
`published_per_au`), for a run that was not trained so, it writes `evaluation.published.json` and
`report.published.html` and leaves model and registry alone: what
was chosen on test labels is for comparison, not for use. Everything can be made again from the run's checkpoints, so an
interrupted assessment is simply started again.
"""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ssm import SSM
from ssm.interface import DecisionRule
from ssm.metrics import AffectTable, AUTable, ExpressionTable
from ssm.model import READERS
from ssm_platform.base import Storage, describe_machine, open_storage, override
from ssm_platform.cluster import joined
from ssm_platform.data import ClipConfig, keep_pace, segment_indices
from ssm_platform.evaluate.groups import People
from ssm_platform.evaluate.prediction_files import to_parquet
from ssm_platform.evaluate.predictions import Pool, Tables, predict
from ssm_platform.evaluate.report import Thumbnail, map_report, render
from ssm_platform.evaluate.rules import ON_TEST, describe
from ssm_platform.evaluate.scores import Evaluation, EvaluationProtocol, Provenance
from ssm_platform.evaluate.scoring import About, evaluate
from ssm_platform.media import open_frames
from ssm_platform.models import Registry
from ssm_platform.records import Manifest, Record
from ssm_platform.runs import Prepared, RunConfig, preflight, prepare
from ssm_platform.synthetic import read_truth
from ssm_platform.train import download_model, upload_model

_SHOWN = 3  # clips per row of thumbnails
_STRIP = 5  # frames of a thumbnail


@dataclass(frozen=True)
class Outcome:
    """What an assessment left behind."""

    evaluation: Evaluation
    report: str
    version: str | None  # in the registry; None where nothing was published


def assess(
    folder: str,
    protocol: EvaluationProtocol | None = None,
    registry: str | None = None,
    changes: Mapping[str, Any] | None = None,
    people: People | None = None,
    *,
    risk: float | None = None,
    blur: bool = False,
) -> Outcome:
    """Evaluate the finished run in `folder` (or `s3://` prefix) under its own protocol or one that fits on test labels.

    `changes` replace fields of the run's config that leave its numbers alone: CPUs, GPU, places of corpora. `people`
    says who is in which group (`read_people`): the same figures are then given for each. `risk` is the share of wrong
    AU answers that is wanted among those given: when to abstain is then fitted and saved with the model. `blur`: the
    faces in the report cannot be recognised, as a report needs whose corpus forbids to show them. ValueError
    where the folder holds no finished run, where its corpora have changed, for a protocol that the run was not split
    for, and where no corpus has a test side.
    """
    storage = open_storage(folder)
    stored = _run_file(storage)
    config = _changed(RunConfig.model_validate(stored["config"]), changes or {})
    protocol = _checked(protocol, config)
    _check_risk(risk, config)
    prepared = prepare(config)
    _check_data(storage.uri, stored["data"], prepared)
    with local_model(storage) as path:
        validation, test, unreadable = _predict(config, prepared, path)
        model, digest = SSM.from_pretrained(path), _digest(path)
        about = About(
            _provenance(folder, protocol, config, prepared, digest),
            map_report(model, _true_association(prepared)),
            unreadable,
            people,
            risk,
        )
        evaluation, rule = evaluate(test, validation, protocol, config.model.vocabulary.aus, about)
        for side, tables in (("validation", validation), ("test", test)):
            for corpus, table in tables.items():
                storage.write(f"predictions/{corpus}.{side}.parquet", to_parquet(table, digest))
        own = protocol == config.protocol
        place = "" if own else f".{protocol}"
        storage.write(f"evaluation{place}.json", evaluation.model_dump_json(indent=1).encode())
        storage.write(f"report{place}.html", _page(storage, evaluation, rule, prepared, test, blur).encode())
        version = _publish(model, path, storage, config.name, evaluation, rule, registry) if own else None
    return Outcome(evaluation, f"{storage.uri}/report{place}.html", version)


def _check_risk(risk: float | None, config: RunConfig) -> None:
    """ValueError for a risk that no model has, or that this one has no doubts to keep it by."""
    if risk is None:
        return
    if not 0 < risk < 1:
        raise ValueError(f"the wanted risk is {risk}: must lie in (0, 1)")
    kind = config.model.au_reader.kind
    if not READERS[kind].gives_evidence:
        raise ValueError(f"au_reader.kind is {kind!r}, which gives no evidence to abstain by: train with +evidential")


def run_config(storage: Storage) -> RunConfig:
    """The config of the run in this folder; ValueError says what is missing."""
    return RunConfig.model_validate(_run_file(storage)["config"])


def _run_file(storage: Storage) -> dict[str, Any]:
    try:
        stored: dict[str, Any] = json.loads(storage.read("run.json"))
    except ValueError as error:
        raise ValueError(f"{storage.uri}: no run here: {error}") from error
    return stored


def _changed(config: RunConfig, changes: Mapping[str, Any]) -> RunConfig:
    changed = override(config, changes)
    theirs, ours = config.mathematics(), changed.mathematics()
    if differing := sorted(name for name in {*theirs, *ours} if theirs.get(name) != ours.get(name)):
        raise ValueError(f"{', '.join(differing)}: decided the numbers of the run and cannot change afterwards")
    return changed


def _digest(model: Path) -> str:
    """SHA-256 of the weights."""
    return hashlib.sha256((model / "model.safetensors").read_bytes()).hexdigest()


def _checked(protocol: EvaluationProtocol | None, config: RunConfig) -> EvaluationProtocol:
    """The protocol to evaluate under; a run's split decides which ones say something true of it."""
    if protocol not in (None, config.protocol, *ON_TEST):
        raise ValueError(
            f"protocol {protocol}: the run was split for {config.protocol}, so it can be evaluated under "
            f"{config.protocol}, published or published_per_au; train with --protocol={protocol} for the other"
        )
    return protocol or config.protocol


def _check_data(run: str, trained: Mapping[str, str], prepared: Prepared) -> None:
    """ValueError where the training sides are not those the run was trained on: then its test sides are not either."""
    if changed := [name for name, digest in prepared.fingerprints.items() if trained.get(name) != digest]:
        raise ValueError(
            f"{run}: {', '.join(changed)}: the corpus is not as it was when the run was trained; people of its "
            f"test side may have been trained on"
        )


@contextmanager
def local_model(storage: Storage) -> Iterator[Path]:
    """The run's model as a local folder; what lies in an object store is copied for as long as it is needed."""
    if not storage.exists("model/config.json"):
        raise ValueError(f"{storage.uri}: the run has no model yet: train it to its end first")
    if "://" not in storage.uri:
        yield Path(storage.uri) / "model"
        return
    with tempfile.TemporaryDirectory() as scratch:
        yield download_model(storage, Path(scratch))


def _predict(config: RunConfig, prepared: Prepared, model: Path) -> tuple[Tables, Tables, tuple[str, ...]]:
    """Validation and test tables by corpus, in one pass over one pool of workers; why clips are missing from them."""
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
    # Scorers take the place of the training workers.
    with joined(preflight.cpus_needed(config), store_bytes=preflight.store_bytes(config)) as size:
        preflight.require(preflight.check_cluster(config, size))
        keep_pace()
        answers = predict(model, sides, config.model.vocabulary, clips, pool)
    named = [(manifest.corpus, table) for manifest, table in zip(sides, answers.tables, strict=True)]
    validation = dict(named[: len(prepared.validation)])
    test = validation if config.protocol == "published" else dict(named[len(prepared.validation) :])
    return validation, test, answers.unreadable


def _provenance(
    folder: str, protocol: EvaluationProtocol, config: RunConfig, prepared: Prepared, model: str
) -> Provenance:
    return Provenance(
        run=config.name,
        model=model,
        command=f"python jobs/evaluate.py {_from_here(folder)} --protocol={protocol}",
        seed=config.seed,
        config_fingerprint=config.fingerprint(),
        data=prepared.fingerprints,
        splits={name: _split_in_words(config, name, prepared) for name in prepared.splits},
        versions=Provenance.installed(),
        machine=describe_machine(),
    )


def _from_here(folder: str) -> str:
    """A run's folder as one would type it here: a card is read on other machines, where our own folders are not."""
    here, there = Path.cwd(), Path(folder)
    return str(there.relative_to(here)) if there.is_relative_to(here) else folder


def _split_in_words(config: RunConfig, name: str, prepared: Prepared) -> str:
    corpus, split = config.corpus(name), prepared.splits[name]
    sizes = f"{len(split.train)} train, {len(split.validation)} validation, {len(split.test)} test records"
    if corpus.role == "test":
        return f"{sizes}; left out of training"
    drawn = f"{corpus.holdout:.0%} drawn by hash"
    if config.protocol == "lodo":
        test = "none"
    else:
        test = f"parts {', '.join(corpus.test_parts)}" if corpus.test_parts else drawn
    validation = f"parts {', '.join(corpus.validation_parts)}" if corpus.validation_parts else drawn
    return f"{sizes}; test: {test}, validation: {'the test side' if config.protocol == 'published' else validation}"


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
    model: SSM, path: Path, storage: Storage, run: str, evaluation: Evaluation, rule: DecisionRule,
    registry: str | None,
) -> str:  # fmt: skip
    """Save the model with what was found out about it, in the run and in the registry (beside the runs by default)."""
    pictures = {"__all__": {"density", "paths"}}
    left_out: Any = {"provenance": True, "maps": True, "va": pictures, "va_pooled": {"density", "paths"}}
    figures = json.loads(evaluation.model_dump_json(exclude=left_out))
    provenance = json.loads(evaluation.provenance.model_dump_json())
    found = {"rule": rule, "metrics": figures, "data": provenance, "smoothing": evaluation.smoothing}
    found["abstention"] = evaluation.abstention
    model.facts = model.facts.model_copy(update=found)
    model.save_pretrained(path)
    if "://" in storage.uri:
        upload_model(path, storage)
    return Registry(registry or f"{storage.uri.rpartition('/')[0]}/registry").publish(path, run)


def _page(
    storage: Storage, evaluation: Evaluation, rule: DecisionRule, prepared: Prepared, test: Tables, blur: bool
) -> str:
    curves = json.loads(storage.read("curves.json"))
    losses, validation = _series(curves, "loss/"), _series(curves, "validation/")
    manifests = {manifest.corpus: manifest for manifest in prepared.test}
    return render(evaluation, losses, validation, _thumbnails(test, manifests, rule, blur), describe(rule))


def _series(curves: list[dict[str, float]], prefix: str) -> dict[str, list[tuple[int, float]]]:
    series: dict[str, list[tuple[int, float]]] = {}
    for point in curves:
        for name, value in point.items():
            if name.startswith(prefix):
                series.setdefault(name.removeprefix(prefix), []).append((int(point["step"]), value))
    return series


def _thumbnails(
    test: Tables, manifests: Mapping[str, Manifest], rule: DecisionRule, blur: bool
) -> dict[str, list[Thumbnail]]:
    """The best and the worst clips of each corpus."""
    rows: dict[str, list[Thumbnail]] = {}
    for corpus, table in test.items():
        if isinstance(table, AffectTable):
            continue
        chosen = _ranked_aus(table, rule) if isinstance(table, AUTable) else _ranked_expressions(table)
        names: list[str] = manifests[corpus].column("clip").to_pylist()
        for title, clips in chosen.items():
            found = [(manifests[corpus][names.index(clip)], caption) for clip, caption in clips if clip in names]
            root = manifests[corpus].root
            rows[f"{title} · {corpus}"] = [_thumbnail(record, root, text, blur) for record, text in found]
    return rows


def _ranked_aus(table: AUTable, rule: DecisionRule) -> dict[str, list[tuple[str, str]]]:
    """Sequences whose AUs agree most and least with the labels under `rule`, each with its caption."""
    known = table.labels >= 0
    said = rule.select(table.aus).apply(table.probabilities, table.lengths)
    right = known & (said == (table.labels > 0))
    names, sequence = np.unique(table.sequences, return_inverse=True)
    of_frame = np.repeat(sequence, table.lengths)
    labels, hits = (np.bincount(of_frame, cells.sum(1), len(names)) for cells in (known, right))
    shares = {str(name): hit / count for name, hit, count in zip(names, hits, labels, strict=True) if count}
    order = sorted(shares, key=lambda name: (-shares[name], name))
    captions = [(name, f"{name}: {shares[name]:.0%} of its labels right") for name in order]
    return {"Most labels right": captions[:_SHOWN], "Fewest labels right": captions[::-1][:_SHOWN]}


def _ranked_expressions(table: ExpressionTable) -> dict[str, list[tuple[str, str]]]:
    """Clips that the model is surest of and right, and surest of and wrong, each with its caption."""
    predicted, confidence = table.probabilities.argmax(axis=1), table.probabilities.max(axis=1)
    right = predicted == table.labels
    rows: dict[str, list[tuple[str, str]]] = {}
    for title, chosen in (("Right and sure", right), ("Wrong and sure", ~right)):
        order = np.flatnonzero(chosen)[np.argsort(-confidence[chosen], kind="stable")][:_SHOWN]
        rows[title] = [
            (
                table.clips[place],
                f"{table.clips[place]}: {table.expressions[predicted[place]]} (p {confidence[place]:.2f})"
                + ("" if right[place] else f", labelled {table.expressions[table.labels[place]]}"),
            )
            for place in order
        ]
    return rows


def _thumbnail(record: Record, root: str, caption: str, blur: bool) -> Thumbnail:
    source = open_frames(record, root)
    try:
        return Thumbnail.of(source.read(segment_indices(record.length, _STRIP).tolist()), caption, blur)
    finally:
        source.close()
