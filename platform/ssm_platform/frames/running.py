"""A run of the frame baseline: read, encode once, train heads, choose smoothing on validation, judge, save.

    result = run_frames(frame_recipe("abaw_frame_tiny"))     # also `python jobs/frames.py --recipe abaw_frame_tiny`

Writes below the run's folder: `frames.json`, `evaluation.json`, `report.html` and, where the encoder is a network of
torch, `model/`, which serves as any model does; an ONNX encoder's heads are judged and kept as `heads.safetensors`.
"""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors.torch import save
from tqdm import tqdm

from ssm import SSM
from ssm.interface import DecisionRule, Smoothing
from ssm.labels import Vocabulary
from ssm.model import MappingConfig, ModelConfig, TextConfig
from ssm.saved import ModelFacts
from ssm_platform.base import Storage, describe_machine, open_storage
from ssm_platform.cluster import joined
from ssm_platform.evaluate import About, Evaluation, Provenance, describe, evaluate, render
from ssm_platform.frames.afterwards import Book, choose, scored, tables
from ssm_platform.frames.cache import place_of, read_features, spans
from ssm_platform.frames.config import FrameRun
from ssm_platform.frames.encoders import OnnxEncoder, OwnEncoder, TimmEncoder, encoder_key, make_encoder
from ssm_platform.frames.encoding import encode
from ssm_platform.frames.heads import Frames, Heads, frames_of, train_heads
from ssm_platform.frames.pooling import video_classifier, video_features
from ssm_platform.models import Registry
from ssm_platform.records import Manifest, Task
from ssm_platform.runs import Prepared, load, prepare_corpora
from ssm_platform.train import upload_model

TASKS: tuple[Task, ...] = ("au", "fe", "va")
_WINDOW = 4  # frames that a saved model takes at once: it reads each by itself


@dataclass(frozen=True)
class FrameResult:
    """What a run left behind."""

    folder: str
    evaluation: Evaluation
    smoothing: Smoothing
    version: str | None  # in the registry; None where the encoder cannot be saved with its heads
    videos: dict[str, float]  # WAR of whole clips by expression corpus: an SVM on statistics over their frames
    notes: tuple[str, ...]  # where what serves is not what was judged


def run_frames(run: FrameRun) -> FrameResult:
    """From corpora to a judged model. ValueError names what does not fit."""
    run = run.anchored(Path.cwd())
    storage = open_storage(f"{run.storage}/{run.name}")
    prepared = prepare_corpora(run.corpora, run.protocol, run.seed, TASKS)
    vocabulary = Vocabulary.union(side.test.labels for side in prepared.splits.values())
    storage.write("frames.json", run.model_dump_json(indent=1).encode())
    book = encoded(run, {corpus.name: load(corpus) for corpus in run.corpora})
    train = by_task(prepared.train, book, vocabulary)
    heads = train_heads(
        train, by_task(prepared.validation, book, vocabulary), vocabulary, _width(book), run.heads, run.seed
    )
    evaluation, rule, smoothing = _judged(run, prepared, book, heads, vocabulary)
    storage.write("evaluation.json", evaluation.model_dump_json(indent=1).encode())
    storage.write("report.html", render(evaluation, rules=describe(rule)).encode())
    kept = smoothing.model_copy(update={"gate": 1.0})  # the encoder's own classes are not saved with the heads
    facts = ModelFacts(rule=rule, smoothing=kept, metrics={"protocol": run.protocol})
    version = _keep(run, storage, heads, vocabulary, facts)
    notes = tuple(_notes(storage.uri, smoothing, version))
    videos = judged_videos(prepared, book)
    storage.write("videos.json", json.dumps(videos).encode())
    return FrameResult(storage.uri, evaluation, smoothing, version, videos, notes)


def _notes(folder: str, smoothing: Smoothing, version: str | None) -> Iterator[str]:
    if version is None:
        yield (
            f"heads: {folder}/heads.safetensors. They are judged and kept, not served: a saved model holds networks of "
            "torch, and this encoder is an ONNX file. To serve, use a timm encoder or a trained model of ours"
        )
    elif smoothing.gate < 1:
        yield (
            f"the figures are with the gate at {smoothing.gate:g}; the model answers without it, by its heads alone, "
            "since the encoder's own classes are not saved with them. --afterwards.gates=[1.0] judges what is served"
        )


def judged_videos(prepared: Prepared, book: Book) -> dict[str, float]:
    """Share of test clips whose class `pooling` names right, for each expression corpus with two classes to learn."""
    found = {}
    for side in prepared.splits.values():
        if side.train.task != "fe" or not len(side.test) or len(np.unique(side.train.expression_columns)) < 2:
            continue
        model = video_classifier(_clips(side.train, book), side.train.expression_columns.tolist())
        stats = np.stack([video_features(clip) for clip in _clips(side.test, book)])
        found[side.test.corpus] = float((model.predict(stats) == side.test.expression_columns).mean())
    return found


def _clips(manifest: Manifest, book: Book) -> list[NDArray[np.float16]]:
    features = book.rows(manifest).features
    return [features[span] for span in spans(manifest.lengths.tolist())]


def encoded(run: FrameRun, manifests: dict[str, Manifest]) -> Book:
    """Features of all corpora, encoded where they are not there yet: beside the shards, else below the runs."""
    key, corpora = encoder_key(run.encoder, run.seed), {}
    with joined(cpus=run.workers + 1):
        for name, manifest in manifests.items():
            sharded = len(manifest) and manifest.column("kind")[0].as_py() == "shard"
            place = place_of(open_storage(manifest.root if sharded else run.storage), key, manifest)
            with tqdm(disable=None, total=int(manifest.lengths.sum()), unit="frame", desc=f"encode {name}") as bar:
                encode(run, manifest, place, lambda frames, bar=bar: bar.update(frames))  # type: ignore[misc]
            corpora[name] = (manifest, read_features(place, manifest))
    return Book.of(corpora)


def by_task(manifests: list[Manifest], book: Book, vocabulary: Vocabulary) -> dict[Task, Frames]:
    """Labelled frames of one side, the corpora of a task joined."""
    parts: dict[Task, list[Frames]] = {}
    for manifest in manifests:
        frames = frames_of(manifest, book.rows(manifest).features, vocabulary)
        parts.setdefault(manifest.task, []).append(frames)
    return {task: Frames.joined(members) for task, members in parts.items()}


def _judged(
    run: FrameRun, prepared: Prepared, book: Book, heads: Heads, vocabulary: Vocabulary
) -> tuple[Evaluation, DecisionRule, Smoothing]:
    sides, sigma = (prepared.validation, prepared.test), run.afterwards.sigma
    validation, test = ([scored(one, book, heads, sigma) for one in side] for side in sides)
    smoothing = choose(test if run.protocol == "published" else validation, run.afterwards, vocabulary)
    provenance = Provenance(
        run=run.name,
        command=f"python jobs/frames.py --recipe {run.storage}/{run.name}/frames.json",
        seed=run.seed,
        config_fingerprint=hashlib.sha256(run.model_dump_json().encode()).hexdigest(),
        data=prepared.fingerprints,
        versions=Provenance.installed(),
        machine=describe_machine(),
    )
    judged, fitted = (tables(side, smoothing, vocabulary) for side in (test, validation))
    evaluation, rule = evaluate(judged, fitted, run.protocol, vocabulary.aus, About(provenance))
    affect = evaluation.smoothing.affect if evaluation.smoothing else 0
    smoothing = smoothing.model_copy(update={"affect": affect})
    return evaluation.model_copy(update={"smoothing": smoothing}), rule, smoothing


def _keep(run: FrameRun, storage: Storage, heads: Heads, vocabulary: Vocabulary, facts: ModelFacts) -> str | None:
    """The model in the run's folder and in the registry."""
    encoder = make_encoder(run.encoder, run.seed)
    if isinstance(encoder, OnnxEncoder):
        named = {"fe": heads.fe, "au": heads.au, "va": heads.va}
        tensors = {f"{n}.{k}": v for n, head in named.items() if head for k, v in head.state_dict().items()}
        storage.write("heads.safetensors", save(tensors))
        return None
    assert isinstance(encoder, TimmEncoder | OwnEncoder)
    model = _assembled(encoder, heads, vocabulary, run.heads.hidden)
    model.facts = facts.model_copy(update={"preprocessing": encoder.preprocessing})
    with tempfile.TemporaryDirectory() as scratch:
        model.save_pretrained(Path(scratch) / "model")
        upload_model(Path(scratch) / "model", storage)
        return Registry(f"{run.storage}/registry").publish(Path(scratch) / "model", run.name)


def _assembled(encoder: TimmEncoder | OwnEncoder, heads: Heads, vocabulary: Vocabulary, hidden: int) -> SSM:
    """Encoder and heads as one model, read frame by frame."""
    config = ModelConfig(
        vocabulary=vocabulary,
        backbone=encoder.backbone_config.model_copy(update={"pretrained": False}),
        width=encoder.width,
        frames=_WINDOW,
        text=TextConfig(tower=None),
        mapping=MappingConfig(enabled=False),
        reading="frames",
        frame_hidden=hidden,
    )
    model = SSM(config)
    model.backbone.load_state_dict(encoder.backbone.state_dict())
    for own, trained in ((model.fe_head, heads.fe), (model.au_head, heads.au)):
        if trained is not None:
            own.load_state_dict(trained.state_dict())
    if heads.va is not None and model.affect_head is not None:
        model.affect_head.linear.load_state_dict(heads.va.state_dict())  # type: ignore[union-attr]
    return model.eval()


def _width(book: Book) -> int:
    return int(next(iter(book.features.values())).features.shape[1])
