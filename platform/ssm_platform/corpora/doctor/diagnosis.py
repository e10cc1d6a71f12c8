"""The doctor: is a corpus tree as its owner ships it, and what is in it? Numbers; `report` writes them, `page` draws
them.

`examine` reads a corpus with its own reader, judges it by the reader's ceiling, and counts: labels beside the published
numbers, subjects, parts, lengths, every issue. Reads no pixels. Legend: N records, F labelled frames, A action units, P
parts.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field

from ssm.labels import ACTION_UNITS
from ssm_platform.corpora.base import Corpus
from ssm_platform.corpora.duplicates import same_content
from ssm_platform.corpora.registry import corpus_named, refusal, settings_of, survey
from ssm_platform.records import Manifest, Reading, Task, groups_of, sequence_of

_FAR_POINTS, _FAR_RATIO = 5.0, 1.5  # a prevalence this far from the published one, both ways, is worth a look
_BINS = 24


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class LabelCount(_Frozen):
    """One label column: an AU over scored frames, or an expression over clips."""

    label: str = Field(description="AU01, the name of an expression, or 'valence > 0'")
    name: str = Field(description="what it is called in words")
    active: int = Field(description="frames in which the AU is active or affect positive, or clips of the expression")
    scored: int = Field(description="frames with a known label, or all clips")
    masked: int = Field(description="frames whose label is unknown")
    percent: float = Field(description="active in % of scored")
    published: float | None = Field(description="the same figure as published, where there is one")


class PartCount(_Frozen):
    """One part of the owner's split. ``percents`` is per label, in the order of `Diagnosis.labels`."""

    part: str
    records: int
    frames: int
    subjects: int
    percents: list[float | None]


class Lengths(_Frozen):
    """Frames per record: minimum, median, maximum and a histogram (``edges`` has one more than ``counts``)."""

    least: int
    median: float
    most: int
    edges: list[float]
    counts: list[int]


class IssueLine(_Frozen):
    """One issue, as `records.Issue`."""

    path: str
    line: int | None
    value: str
    rule: str
    count: int
    severity: str


class Diagnosis(_Frozen):
    """Everything the report says."""

    corpus: str
    title: str
    root: str
    task: Task = Field(description="the first of the tasks that it is labelled for")
    usable: bool
    reasons: list[str] = Field(description="why the corpus is not usable; empty where it is")
    remarks: list[str] = Field(description="what is worth a look although the corpus is usable")
    options: dict[str, Any]
    fingerprint: str
    records: int
    sequences: int
    frames: int
    subjects: int
    groups: int = Field(description="persons, or videos or clips of nobody known: what no split divides")
    seconds: float | None = Field(description="length of all records together, where every rate is known")
    rates: list[float]
    rows: int = Field(description="label rows in the owner's files")
    lost: int = Field(description="label rows that problems made unusable")
    labels: list[LabelCount]
    parts: list[PartCount]
    lengths: Lengths | None
    together: list[list[float | None]] = Field(
        description="AU corpora (A A): % of frames of AU i in which AU j is active"
    )
    issues: list[IssueLine]
    summary: list[str] = Field(description="one line per rule, worst first")


def examine(
    name: str, root: str | Path, content: bool = False, on_record: Callable[[], None] | None = None, **options: Any
) -> Diagnosis:
    """Read corpus ``name`` below ``root`` and count; ``content`` also looks for identical clips under other names.

    ValueError for an unknown corpus, option or root.
    """
    corpus = corpus_named(name)
    settings = settings_of(corpus, options)
    reading = survey(corpus, root, settings, on_record)
    reading.issues.extend(same_content(reading.manifest) if content else ())
    manifest, reasons = reading.manifest, refusal(corpus, reading, settings)
    counted = {"au": _au_counts, "fe": _class_counts, "va": _affect_counts}
    labels = [label for task in manifest.tasks for label in counted[task](corpus, manifest)]
    return Diagnosis(
        corpus=corpus.name,
        title=corpus.title,
        root=manifest.root,
        task=manifest.task,
        usable=not reasons,
        reasons=reasons,
        remarks=_remarks(labels, manifest),
        options=settings.model_dump(mode="json"),
        fingerprint=manifest.fingerprint,
        records=len(manifest),
        sequences=len({sequence_of(clip) for clip in manifest.column("clip").to_pylist()}),
        frames=int(manifest.lengths.sum()),
        subjects=len(manifest.codes("subject")[1]),
        groups=len(groups_of(manifest)[1]),
        seconds=_seconds(manifest),
        rates=sorted(_rates(manifest)),
        rows=reading.rows,
        lost=reading.lost,
        labels=labels,
        parts=_parts(manifest),
        lengths=_lengths(manifest),
        together=_together(manifest),
        **_issues(reading),
    )


def _frame_labels(manifest: Manifest) -> npt.NDArray[np.int8]:
    """The labels of all frames (F, A)."""
    rows = [manifest.au_labels(index) for index in range(len(manifest))]
    return np.concatenate([np.zeros((0, len(manifest.labels.aus)), np.int8), *rows])


def _au_counts(corpus: Corpus, manifest: Manifest) -> list[LabelCount]:
    labels = _frame_labels(manifest)
    active, scored = (labels == 1).sum(axis=0), (labels >= 0).sum(axis=0)
    return [
        LabelCount(
            label=ACTION_UNITS[au].code,
            name=ACTION_UNITS[au].name,
            active=int(active[column]),
            scored=int(scored[column]),
            masked=len(labels) - int(scored[column]),
            percent=_percent(active[column], scored[column]) or 0.0,
            published=corpus.prevalence.get(au),
        )
        for column, au in enumerate(manifest.labels.aus)
    ]


def _class_counts(corpus: Corpus, manifest: Manifest) -> list[LabelCount]:
    columns, total = manifest.expression_columns, sum(corpus.counts.values())
    return [
        LabelCount(
            label=name,
            name=name,
            active=int((columns == column).sum()),
            scored=int((columns >= 0).sum()),
            masked=int((columns < 0).sum()),
            percent=_percent((columns == column).sum(), (columns >= 0).sum()) or 0.0,
            published=_percent(corpus.counts[name], total) if name in corpus.counts else None,
        )
        for column, name in enumerate(manifest.labels.expressions)
    ]


def _affect_counts(corpus: Corpus, manifest: Manifest) -> list[LabelCount]:
    """Of valence and arousal: the frames on which each is positive."""
    values = manifest.frame_affect
    positive, scored = (values > 0).sum(axis=0), (~np.isnan(values)).sum(axis=0)
    return [
        LabelCount(
            label=f"{name} > 0",
            name="frames where it is positive, of those that it is known for",
            active=int(positive[column]),
            scored=int(scored[column]),
            masked=len(values) - int(scored[column]),
            percent=_percent(positive[column], scored[column]) or 0.0,
            published=None,
        )
        for column, name in enumerate(manifest.labels.affect)
    ]


def _percent(part: float, whole: float) -> float | None:
    return 100.0 * float(part) / float(whole) if whole else None


def _parts(manifest: Manifest) -> list[PartCount]:
    codes, names = manifest.codes("part")
    subjects, _ = manifest.codes("subject")
    found = [(name, codes == code) for code, name in enumerate(names)]
    rest = codes < 0
    if names and rest.any():
        found.append(("(none)", rest))
    return [
        PartCount(
            part=name,
            records=int(mask.sum()),
            frames=int(manifest.lengths[mask].sum()),
            subjects=len(set(subjects[mask & (subjects >= 0)].tolist())),
            percents=_label_percents(manifest.filter(mask)),
        )
        for name, mask in sorted(found, key=lambda entry: entry[0])
    ]


def _label_percents(manifest: Manifest) -> list[float | None]:
    found: list[float | None] = []
    if "au" in manifest.tasks:
        found += [_percent((column == 1).sum(), (column >= 0).sum()) for column in _frame_labels(manifest).T]
    columns = manifest.expression_columns
    known = (columns >= 0).sum()
    found += [_percent((columns == code).sum(), known) for code in range(len(manifest.labels.expressions))]
    if "va" in manifest.tasks:
        found += [_percent((column > 0).sum(), (~np.isnan(column)).sum()) for column in manifest.frame_affect.T]
    return found


def _together(manifest: Manifest) -> list[list[float | None]]:
    """Row i, column j: in what share of the frames of AU i AU j is active too."""
    if "au" not in manifest.tasks:
        return []
    active = (_frame_labels(manifest) == 1).astype(np.float64)
    both, alone = active.T @ active, active.sum(axis=0)
    return [[_percent(both[i, j], alone[i]) for j in range(len(alone))] for i in range(len(alone))]


def _lengths(manifest: Manifest) -> Lengths | None:
    lengths = manifest.lengths
    if not len(lengths):
        return None
    least, most = int(lengths.min()), int(lengths.max())
    width = -(-(most - least + 1) // _BINS)  # whole frames, rounded up
    counts, edges = np.histogram(lengths, bins=np.arange(least, most + width + 1, width) - 0.5)
    return Lengths(
        least=least, median=float(np.median(lengths)), most=most, edges=edges.tolist(), counts=counts.tolist()
    )


def _rates(manifest: Manifest) -> set[float]:
    return {round(rate, 2) for rate in manifest.column("rate").unique().to_pylist() if rate is not None}


def _seconds(manifest: Manifest) -> float | None:
    if manifest.column("rate").null_count or not len(manifest):
        return None
    return float((manifest.lengths / manifest.column("rate").to_numpy(zero_copy_only=False)).sum())


def _remarks(labels: list[LabelCount], manifest: Manifest) -> list[str]:
    """What is no error and yet surprises: labels that never occur, prevalences far from the published ones."""
    remarks = [f"{label.label} ({label.name}) is never active" for label in labels if not label.active]
    for label in labels:
        if label.active and label.published and _far(label.percent, label.published):
            remarks.append(f"{label.label} is {label.percent:.1f} %, published {label.published:.1f} %")
    rates = Counter(round(rate) for rate in _rates(manifest))
    if len(rates) > 1:
        remarks.append(f"frame rates differ: {', '.join(str(rate) for rate in sorted(rates))} per second")
    return remarks if len(manifest) else []


def _far(found: float, published: float) -> bool:
    ratio = max(found, published) / min(found, published)
    return abs(found - published) > _FAR_POINTS and ratio > _FAR_RATIO


def _issues(reading: Reading) -> dict[str, Any]:
    return {"issues": [IssueLine(**asdict(issue)) for issue in reading.issues], "summary": reading.summary()}
