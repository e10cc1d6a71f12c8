"""What a model says of every held-out clip: probabilities beside labels, gathered over a pool of Ray workers.

One pass: pointers of the evaluation rows, decoded as in training but centred, scored by actors that each hold the
model, and gathered on the driver, a few bytes per frame, into the tables that `ssm.metrics` computes from. A clip
without pixels is left out and named; past a ceiling the job refuses. Letters: T frames of a clip, A AUs, E expressions.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from ssm.interface import Preprocessing
from ssm.labels import Vocabulary
from ssm.metrics import (
    AffectPredictions,
    AffectTable,
    AUPredictions,
    AUTable,
    ExpressionPredictions,
    ExpressionTable,
)
from ssm_platform.cluster import blocks_of, executed
from ssm_platform.data import (
    AU,
    FE,
    VA,
    ClipConfig,
    ClipReader,
    ClipStream,
    Columns,
    Quarantine,
    Rows,
    Shared,
    evaluation_rows,
    to_batches,
)
from ssm_platform.records import Manifest, sequence_of

LOG = logging.getLogger(__name__)

Table = AUTable | ExpressionTable | AffectTable
Tables = Mapping[str, Table]
"""Predictions of one side by corpus."""
Floats = NDArray[np.float32]

_SHARE = 8  # clips decoded and scored together


@dataclass(frozen=True)
class Answers:
    """A table for each manifest, in their order, and why clips are missing from them."""

    tables: list[Table]
    unreadable: tuple[str, ...]


@dataclass(frozen=True)
class Pool:
    """The processes that answer: decoders feed scorers, each with its own copy of the model."""

    decode_workers: int = 1
    decode_cpus: float = 0.5
    score_workers: int = 1
    score_cpus: float = 1.0
    gpu: bool = False
    threads: int = 1


def predict(
    model: Path, manifests: Sequence[Manifest], vocabulary: Vocabulary, clips: ClipConfig, pool: Pool
) -> Answers:
    """What the saved model in folder `model` says of all clips of `manifests`. Draws a progress bar."""
    from tqdm import tqdm

    gathered = [_Gatherer(manifest, vocabulary) for manifest in manifests]
    quarantine = Quarantine()
    rows = evaluation_rows(manifests, clips.frames)
    with tqdm(total=len(rows), desc="scoring", unit="clip", dynamic_ncols=True, disable=None) as bar:
        for batch in _scored(model, manifests, rows, vocabulary, clips, pool):
            for problem in quarantine.check(batch):
                LOG.warning("clip without pixels: %s", problem)
            for place in np.flatnonzero(batch["problem"] == ""):
                task = gathered[batch["corpus"][place]]
                task.add(int(batch["record"][place]), int(batch["start"][place]), batch[task.name][place])
            bar.update(len(batch["row"]))
    return Answers([gatherer.table() for gatherer in gathered], tuple(quarantine.problems))


def shares(chosen: NDArray[Any]) -> NDArray[np.float64]:
    """Probabilities of some classes as shares of their sum; equal ones where the model gives them none at all."""
    among = chosen.astype(np.float64)
    total = among.sum()
    return among / total if total > 0 else np.full(len(among), 1 / len(among))


def _scored(
    model: Path, manifests: Sequence[Manifest], rows: Rows, vocabulary: Vocabulary, clips: ClipConfig, pool: Pool
) -> Iterator[Columns]:
    from ray.data import ActorPoolStrategy

    stream = ClipStream(Shared(ClipReader(manifests, vocabulary, clips)), pool.decode_workers, pool.decode_cpus)
    scored = stream.decode(rows, _SHARE * stream.steps_per_block(_SHARE)).map_batches(
        _Scorer,
        fn_constructor_args=(str(Path(model).absolute()), pool.gpu, pool.threads, clips.preprocessing),
        batch_size=_SHARE,
        batch_format="numpy",
        compute=ActorPoolStrategy(size=pool.score_workers),
        num_cpus=pool.score_cpus,
        num_gpus=1 if pool.gpu else 0,
    )
    yield from cast(Iterator[Columns], executed(scored, blocks_of))


class _Gatherer:
    """The answers for one corpus, in the columns of its own labels."""

    def __init__(self, manifest: Manifest, vocabulary: Vocabulary) -> None:
        self._manifest = manifest
        labels = manifest.labels
        self.name = manifest.task
        self._au_columns, self._aus = vocabulary.au_columns(labels.aus), len(vocabulary.aus)
        self._fe_columns = vocabulary.expression_columns(labels.expressions)
        self._au, self._fe = AUPredictions(labels.aus), ExpressionPredictions(labels.expressions)
        self._va = AffectPredictions()
        self._names = manifest.column("clip").to_pylist()
        self._subjects = manifest.column("subject").to_pylist()

    def add(self, record: int, start: int, answer: Floats) -> None:
        """Take in the answer to one row of the plan: (E) for a clip, (T A) or (T 2) for frames."""
        name, manifest = self._names[record], self._manifest
        if self.name == "fe":
            label = int(manifest.expression_columns[record])
            said = manifest.distribution(record)
            self._fe.update(name, self._subjects[record], shares(answer[self._fe_columns]), label, said)
            return
        count = min(len(answer), int(manifest.lengths[record]) - start)
        frames, subject = np.arange(start, start + count), self._subjects[record] or sequence_of(name)
        if self.name == "va":
            self._va.update(name, subject, frames, answer[:count], manifest.va_labels(record, start, count))
            return
        labels = manifest.au_labels(record, start, count)
        found, *evidence = (part[:count, self._au_columns] for part in np.split(answer, self._parts(answer), axis=1))
        self._au.update(name, subject, frames, found, labels, (evidence[0], evidence[1]) if evidence else None)

    def _parts(self, answer: Floats) -> range:
        """Where probabilities end, and doubts, of an answer (T A) or (T 3A)."""
        return range(self._aus, answer.shape[1], self._aus)

    def table(self) -> Table:
        if self.name == "va":
            return self._va.table()
        return self._au.table() if self.name == "au" else self._fe.table()


class _Scorer:
    """The Ray side of scoring: one model per process."""

    def __init__(self, folder: str, gpu: bool, threads: int, preprocessing: Preprocessing) -> None:
        import torch

        from ssm import SSM
        from ssm.model import resolve

        torch.set_num_threads(threads)
        self._device = torch.device("cuda" if gpu else "cpu")
        self._model = SSM.from_pretrained(folder).to(self._device)
        self._preprocessing = preprocessing
        self._precision = resolve(self._model.facts.precision, self._device)  # as serving reads it

    def __call__(self, columns: dict[str, NDArray[Any]]) -> Columns:
        import torch

        from ssm.interface import normalise
        from ssm.model import autocast

        labels, (count, frames) = self._model.vocabulary, columns["clip"].shape[:2]
        answers: Columns = {name: columns[name] for name in ("row", "corpus", "record", "start", "problem")}
        parts = 3 if self._model.au_head.gives_evidence else 1  # probabilities, doubts, tilted probabilities
        answers["au"] = np.zeros((count, frames, parts * len(labels.aus)), np.float32)
        answers["fe"] = np.zeros((count, len(labels.expressions)), np.float32)
        answers["va"] = np.zeros((count, frames, len(labels.affect)), np.float32)
        fe, au, va = to_batches(columns)
        with torch.inference_mode(), autocast(self._device, self._precision):
            if au is not None:
                output = self._model(au_clips=normalise(au.clips.to(self._device), self._preprocessing))
                answers["au"][columns["task"] == AU] = self._au_answer(output).cpu().numpy()
            if fe is not None:
                fe = fe.to(self._device)
                clips = normalise(fe.clips, self._preprocessing)
                logits = self._model(fe_clips=clips, fe_distinct=fe.distinct).fe_logits
                answers["fe"][columns["task"] == FE] = logits.float().softmax(-1).cpu().numpy()
            if va is not None:
                found = self._model(va_clips=normalise(va.clips.to(self._device), self._preprocessing)).affect
                answers["va"][columns["task"] == VA] = found.float().cpu().numpy()
        return answers

    def _au_answer(self, output: Any) -> Any:
        """Probabilities (B T A); of a model that gives evidence also doubts and tilted probabilities (B T 3A)."""
        import torch

        from ssm.model import Evidence

        found = output.au_logits.float().sigmoid()
        if output.au_evidence is None:
            return found
        evidence = Evidence.of(output.au_evidence)
        return torch.cat([found, evidence.doubt(self._model.config.au_reader.focus), evidence.probability], dim=-1)
