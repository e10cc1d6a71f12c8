"""Thresholds, vote and temperature of any saved model, fitted on labelled clips: for a model that came without them.

The clips are given the model as serving would give them: crops as they are stored, or cut out of whole frames the way
the model learned it. AU labels give a temperature for all AUs, then each AU's threshold and vote; expression labels
give a temperature for expressions. What nothing labels keeps what it had. The figures are those of the clips it was
fitted on: judge the result on others.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ssm.inference import Predictor
from ssm.interface import AURule, DecisionRule, FaceCrop, served_crop
from ssm.metrics import (
    AUPredictions,
    AUTable,
    ExpressionPredictions,
    ExpressionTable,
    au_temperature,
    cooled_aus,
    expression_temperature,
    f1_score,
)
from ssm_platform.evaluate.predictions import shares
from ssm_platform.evaluate.rules import fit
from ssm_platform.faces import CropSettings, Detector, crop_source, make_detector, recorded_crop
from ssm_platform.media import FaceMark, decode_image, open_frames
from ssm_platform.records import UNKNOWN, Manifest, Record, sequence_of

LOG = logging.getLogger(__name__)
Frames = NDArray[np.uint8]

_CHUNK = 64  # frames of a clip in memory at once


@dataclass(frozen=True)
class Fitted:
    """What was fitted, and what it was worth on the clips it was fitted on: F1 of each labelled AU before and after."""

    clips: int
    rule: DecisionRule
    au_temperature: float | None
    expression_temperature: float | None
    before: dict[int, float]
    after: dict[int, float]


def fit_model(model: Path, manifests: Sequence[Manifest], out: Path, device: str = "cpu") -> Fitted:
    """Write the model of folder `model` to `out` with what these clips give it. ValueError where none can be used."""
    predictor = Predictor.from_pretrained(model, device=device, local_files_only=True)
    for manifest in manifests:
        _tell_crops(manifest, predictor)
    tables = {str(number): table for number, one in enumerate(manifests) if (table := _table(one, predictor))}
    if not tables:
        raise ValueError(
            f"{', '.join(one.corpus for one in manifests)}: no clip with a label the model has could be read"
        )
    aus = [table for table in tables.values() if isinstance(table, AUTable)]
    warmth = au_temperature(aus)
    cooled = {
        name: cooled_aus(table, warmth or 1.0) if isinstance(table, AUTable) else table
        for name, table in tables.items()
    }
    labelled = sorted(
        {au for table in aus for au, column in zip(table.aus, table.labels.T, strict=True) if 1 in column}
    )
    kept = _warmed(predictor.rule, warmth or 1.0)
    rule = DecisionRule(rules={**kept.rules, **fit(cooled, labelled).rules}).select(predictor.rule.aus)
    expressions = expression_temperature([one for one in tables.values() if isinstance(one, ExpressionTable)])
    fitted = Fitted(
        clips=sum(len(manifest) for manifest in manifests),
        rule=rule,
        au_temperature=warmth,
        expression_temperature=expressions,
        before=_f1(aus, predictor.rule),
        after=_f1([table for table in cooled.values() if isinstance(table, AUTable)], rule),
    )
    _save(predictor, fitted, manifests, out)
    return fitted


def _save(predictor: Predictor, fitted: Fitted, manifests: Sequence[Manifest], out: Path) -> None:
    facts = predictor.model.facts
    noted = {"clips": fitted.clips, "manifests": {one.corpus: one.fingerprint for one in manifests}}
    changes = {
        "rule": fitted.rule,
        "au_temperature": _product(facts.au_temperature, fitted.au_temperature),
        "expression_temperature": _product(facts.expression_temperature, fitted.expression_temperature),
        "data": {**facts.data, "fitted": json.loads(json.dumps(noted))},
        "metrics": {},  # those that were measured are of the rule before
    }
    predictor.model.save_pretrained(out, facts=facts.model_copy(update=changes))


def _table(manifest: Manifest, predictor: Predictor) -> AUTable | ExpressionTable | None:
    """What the model says of a manifest's clips, beside their labels; None where none of them can be used."""
    known = tuple(au for au in manifest.labels.aus if au in predictor.model.vocabulary.aus)
    if manifest.task == "au":
        return _au_table(manifest, predictor, known) if known else None
    classes = predictor.model.vocabulary.expression_columns(manifest.labels.expressions)
    gathered, read = ExpressionPredictions(manifest.labels.expressions), 0
    for index, record, pieces in _clips(manifest, predictor):
        try:
            said = predictor.predict(np.concatenate([frames for frames, _ in pieces])).expression
        except ValueError as error:
            LOG.warning("left out: %s", error)
            continue
        label, votes = int(manifest.expression_columns[index]), manifest.distribution(index)
        gathered.update(record.clip, record.subject, shares(said[classes]), label, votes)
        read += 1
    return gathered.table() if read else None


def _au_table(manifest: Manifest, predictor: Predictor, known: tuple[int, ...]) -> AUTable | None:
    columns, own = predictor.model.vocabulary.au_columns(known), manifest.labels.au_columns(known)
    gathered, read = AUPredictions(known), 0
    for index, record, pieces in _clips(manifest, predictor):
        hidden = list[bool]()
        try:
            found = np.concatenate([one.au_probability for one in predictor.stream(_noting(pieces, hidden))])
        except ValueError as error:
            LOG.warning("left out: %s", error)
            continue
        truth = np.where(np.array(hidden)[:, None], np.int8(UNKNOWN), manifest.au_labels(index))[:, own]
        subject = record.subject or sequence_of(record.clip)
        gathered.update(record.clip, subject, np.arange(len(found)), found[:, columns], truth)
        read += 1
    return gathered.table() if read else None


Pieces = Iterator[tuple[Frames, list[bool]]]
"""Crops of a clip, a few at a time, and whether each shows no face."""


def _clips(manifest: Manifest, predictor: Predictor) -> Iterator[tuple[int, Record, Pieces]]:
    """Every record with its number and its crops."""
    kind = served_crop(predictor.preprocessing.crop)
    settings = CropSettings(margin=kind.margin or 0.0, alignment=kind.alignment)
    detector: Detector | None = None
    for index, record in enumerate(manifest):
        if recorded_crop(record.kind, manifest.corpus, record.crop) == FaceCrop(source="frame"):
            detector = detector or make_detector(settings.faces)
            yield index, record, _cut(record, manifest, settings, detector)
        else:
            yield index, record, _stored(record, manifest)


def _stored(record: Record, manifest: Manifest) -> Pieces:
    with closing(open_frames(record, manifest.root)) as source:
        for first in range(0, record.length, _CHUNK):
            frames = source.read(range(first, min(first + _CHUNK, record.length)))
            yield frames, [False] * len(frames)


def _cut(record: Record, manifest: Manifest, settings: CropSettings, detector: Detector) -> Pieces:
    for frame in crop_source(record, Path(manifest.root), manifest.corpus, settings, detector).frames():
        yield decode_image(frame.data, record.clip)[None], [frame.mark == FaceMark.NONE]


def _noting(pieces: Pieces, hidden: list[bool]) -> Iterator[Frames]:
    for frames, without in pieces:
        hidden += without
        yield frames


def _tell_crops(manifest: Manifest, predictor: Predictor) -> None:
    """Say where the clips are cut in another way than the model learned from."""
    learned = predictor.preprocessing.crop
    kinds = {recorded_crop(record.kind, manifest.corpus, record.crop) for record in manifest}
    for kind in kinds:
        unlike = kind is not None and kind.source != "frame" and learned is not None and not kind.alike(learned)
        if kind is not None and learned is not None and unlike:
            LOG.warning("%s: holds %s; the model learned from %s", manifest.corpus, kind.words, learned.words)


def _f1(tables: Sequence[AUTable], rule: DecisionRule) -> dict[int, float]:
    """F1 of each AU over the tables that label it positive."""
    hits: dict[int, NDArray[np.int64]] = {}
    for table in tables:
        said = rule.select(table.aus).apply(table.probabilities, table.lengths)
        for au, yes, labels in zip(table.aus, said.T, table.labels.T, strict=True):
            counts = [(yes & (labels == 1)).sum(), (yes & (labels == 0)).sum(), (~yes & (labels == 1)).sum()]
            hits[au] = hits.get(au, np.zeros(3, np.int64)) + np.array(counts)
    return {au: float(f1_score(counts)) for au, counts in hits.items() if counts[0] + counts[2]}


def _warmed(rule: DecisionRule, temperature: float) -> DecisionRule:
    """A rule that decides after the temperature what it decided before."""

    def moved(one: AURule) -> AURule:
        logit = np.log(one.threshold / (1 - one.threshold)) / temperature
        threshold = min(float(1 / (1 + np.exp(-logit))), float(np.nextafter(1, 0)))  # a rule of 1 is none
        return one.model_copy(update={"threshold": threshold})

    return DecisionRule(rules={au: moved(one) for au, one in rule.rules.items()})


def _product(before: float | None, found: float | None) -> float | None:
    return before if found is None else (before or 1.0) * found
