"""From frame scores to videos: which boxes and which gate are best on validation, and the tables that are judged.

Smoothing runs over whole videos (`stretches`). Legend: F frames of a manifest, E classes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from ssm.interface import Smoothing, fit_rule, gate
from ssm.labels import Vocabulary
from ssm.metrics import (
    AffectPredictions,
    AffectTable,
    AUPredictions,
    AUTable,
    ExpressionPredictions,
    ExpressionTable,
    f1_score,
    hits_by_subject,
    macro,
)
from ssm_platform.evaluate import Tables
from ssm_platform.frames.cache import Features, spans
from ssm_platform.frames.config import AfterwardsConfig
from ssm_platform.frames.heads import Heads, applied
from ssm_platform.frames.stretches import Stretches
from ssm_platform.records import Manifest, corpus_of, sequence_of

Floats = NDArray[np.float64]
Tried = TypeVar("Tried")


@dataclass(frozen=True)
class Book:
    """Features of whole corpora, looked up by a manifest of some of their records."""

    features: Mapping[str, Features]  # by corpus
    places: Mapping[str, Mapping[str, slice]]  # by corpus and clip

    @classmethod
    def of(cls, corpora: Mapping[str, tuple[Manifest, Features]]) -> Book:
        """Of corpora by name, each with the features of all its frames."""
        places = {
            name: dict(zip(manifest.column("clip").to_pylist(), spans(manifest.lengths.tolist()), strict=True))
            for name, (manifest, _) in corpora.items()
        }
        return cls({name: features for name, (_, features) in corpora.items()}, places)

    def rows(self, manifest: Manifest) -> Features:
        """The features of a manifest's frames, record after record."""
        name = corpus_of(manifest.corpus)
        whole, places = self.features[name], self.places[name]
        at = np.concatenate([np.arange(places[clip].start, places[clip].stop) for clip in _clips(manifest)])
        return Features(whole.features[at], None if whole.scores is None else whole.scores[at], whole.classes)


@dataclass(frozen=True)
class Scored:
    """One manifest with what the heads say of each of its frames."""

    manifest: Manifest
    values: Floats  # F K: probabilities, or valence and arousal
    encoder: Floats | None  # F K', probabilities of the encoder's own classes
    classes: tuple[str, ...]
    stretches: Stretches
    sigma: float | None = None  # of Gaussian weights over frames that lie apart; None: boxes, gaps filled in

    def smoothed(self, values: Floats, half_window: int) -> Floats:
        """Values of all frames (F K), over each video."""
        return self.stretches.smoothed(values, half_window, self.sigma)


def scored(manifest: Manifest, book: Book, heads: Heads, sigma: float | None = None) -> Scored:
    """The heads' answers to a manifest of one task."""
    rows = book.rows(manifest)
    head = {"fe": heads.fe, "au": heads.au, "va": heads.va}[manifest.task]
    assert head is not None
    logits = applied(head, torch.from_numpy(rows.features))
    values = {"fe": logits.softmax(-1), "au": logits.sigmoid(), "va": logits.tanh()}[manifest.task]
    encoder = None if rows.scores is None else torch.from_numpy(rows.scores.astype(np.float32)).softmax(-1)
    own = None if encoder is None else encoder.double().numpy()
    return Scored(manifest, values.double().numpy(), own, rows.classes, Stretches.of(manifest), sigma)


def choose(sides: Sequence[Scored], config: AfterwardsConfig, vocabulary: Vocabulary) -> Smoothing:
    """Boxes over AUs and expressions, and the gate, by macro F1 over all labelled frames; of equal ones the first."""
    expressions = [one for one in sides if one.manifest.task == "fe"]
    aus = [one for one in sides if one.manifest.task == "au"]
    gates = config.gates if expressions and all(one.encoder is not None for one in expressions) else (1.0,)
    tried = [Smoothing(expressions=half, gate=t) for half in config.half_windows for t in sorted(gates, reverse=True)]
    best = _first_best(tried, lambda one: _expression_f1(expressions, one, vocabulary)) if expressions else Smoothing()
    half = _first_best(config.au_half_windows, lambda one: _au_f1(aus, one, vocabulary)) if aus else 0
    return best.model_copy(update={"aus": half})


def tables(sides: Sequence[Scored], smoothing: Smoothing, vocabulary: Vocabulary) -> Tables:
    """What is judged, by corpus: smoothed AUs and classes, and affect frame by frame (its box is fitted there)."""
    found: dict[str, AUTable | ExpressionTable | AffectTable] = {}
    for one in sides:
        if one.manifest.task == "fe":
            found[one.manifest.corpus] = _expression_table(one, smoothing, vocabulary)
        elif one.manifest.task == "au":
            found[one.manifest.corpus] = _au_table(one, smoothing, vocabulary)
        else:
            found[one.manifest.corpus] = _affect_table(one, smoothing, vocabulary)
    return found


def frame_classes(one: Scored, smoothing: Smoothing, vocabulary: Vocabulary) -> NDArray[np.intp]:
    """The class of each frame (F), a column of the vocabulary."""
    smooth = one.smoothed(one.values, smoothing.expressions)
    if one.encoder is None or smoothing.gate >= 1:
        return np.asarray(smooth.argmax(1), np.intp)
    own = one.smoothed(one.encoder, smoothing.expressions)
    return gate(own, one.classes, smooth, vocabulary.expressions, smoothing.gate)


def _expression_table(one: Scored, smoothing: Smoothing, vocabulary: Vocabulary) -> ExpressionTable:
    """A record's probabilities are the mean of its frames': of the head, or all on the gate's class."""
    manifest, columns = one.manifest, vocabulary.expression_columns(one.manifest.labels.expressions)
    smooth = one.smoothed(one.values, smoothing.expressions)
    classes = frame_classes(one, smoothing, vocabulary)
    gated = classes != smooth.argmax(1)
    frames = np.where(gated[:, None], np.eye(len(vocabulary.expressions))[classes], smooth)[:, columns]
    gathered = ExpressionPredictions(manifest.labels.expressions)
    labels = manifest.expression_columns
    for record, (clip, who, span) in enumerate(_each(manifest)):
        mean = frames[span].mean(0)
        total = mean.sum()
        among = mean / total if total > 0 else np.full(len(mean), 1 / len(mean))
        gathered.update(clip, who, among, int(labels[record]))
    return gathered.table()


def _au_table(one: Scored, smoothing: Smoothing, vocabulary: Vocabulary) -> AUTable:
    manifest, columns = one.manifest, vocabulary.au_columns(one.manifest.labels.aus)
    smooth = one.smoothed(one.values, smoothing.aus)[:, columns]
    gathered = AUPredictions(manifest.labels.aus)
    for record, (clip, who, span) in enumerate(_each(manifest)):
        frames = np.arange(span.stop - span.start)
        gathered.update(clip, who, frames, smooth[span], manifest.au_labels(record))
    return gathered.table()


def _affect_table(one: Scored, smoothing: Smoothing, vocabulary: Vocabulary) -> AffectTable:
    """Whole videos, since the box over affect is fitted later: a frame that was filled in has no label."""
    gathered, start = AffectPredictions(), 0
    labels = one.manifest.frame_affect
    people = np.repeat(np.array(_people(one.manifest), object), one.manifest.lengths)
    for number, (values, present) in enumerate(one.stretches.filled(one.values)):
        known = np.full(values.shape, np.nan, np.float32)
        known[present] = labels[start : start + present.sum()]
        name, found = f"{people[start]} {number}", np.clip(values, -1, 1)
        gathered.update(name, people[start], np.arange(len(values)), found, known)
        start += int(present.sum())
    return gathered.table()


def _expression_f1(sides: Sequence[Scored], smoothing: Smoothing, vocabulary: Vocabulary) -> float:
    from sklearn.metrics import f1_score as class_f1

    truth, found = [], []
    for one in sides:
        columns = np.array(vocabulary.expression_columns(one.manifest.labels.expressions))
        truth.append(np.repeat(columns[one.manifest.expression_columns], one.manifest.lengths))
        found.append(frame_classes(one, smoothing, vocabulary))
    return float(class_f1(np.concatenate(truth), np.concatenate(found), average="macro", zero_division=0))


def _au_f1(sides: Sequence[Scored], half_window: int, vocabulary: Vocabulary) -> float:
    """Macro F1 of the best rule for each AU, fitted where it is judged: this only ranks windows."""
    found = []
    for one in sides:
        table = _au_table(one, Smoothing(aus=half_window), vocabulary)
        rule = fit_rule(table.aus, table.probabilities, table.labels, table.lengths)
        hits = hits_by_subject(table, rule.apply(table.probabilities, table.lengths))
        found.append(float(macro(f1_score(hits.sum(0)))))
    return float(np.mean(found))


def _first_best(tried: Sequence[Tried], quality: Callable[[Tried], float]) -> Tried:
    """The first of those with the greatest quality."""
    qualities = [round(quality(one), 9) for one in tried]
    return tried[int(np.argmax(qualities))]


def _each(manifest: Manifest) -> Iterator[tuple[str, str, slice]]:
    """Name, person and frames of each record."""
    return zip(_clips(manifest), _people(manifest), spans(manifest.lengths.tolist()), strict=True)


def _clips(manifest: Manifest) -> list[str]:
    clips: list[str] = manifest.column("clip").to_pylist()
    return clips


def _people(manifest: Manifest) -> list[str]:
    """Who, or which video, each record shows."""
    columns = (manifest.column(name).to_pylist() for name in ("subject", "group", "clip"))
    return [subject or group or sequence_of(clip) for subject, group, clip in zip(*columns, strict=True)]
