"""Validation while training: a spread of held-out clips, counted exactly over all workers.

They come in the stream that training reads (`data.Turns`), decoded by the same processes. Confusion counts, AU hits and
sums of CCC are whole numbers, so any split over workers gives the same figures. AUs are judged at probability 0.5:
thresholds and vote rules are fitted after training (`evaluation`). `score`, by which the best checkpoint is chosen, is
the mean over tasks of the mean over corpora (UAR, macro F1, mean CCC); a corpus where nothing is defined among the
clips looked at is left out of it.
Letters: B clips, T frames, A AUs, E expressions.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ssm.interface import Preprocessing, normalise
from ssm.labels import AFFECT, Vocabulary
from ssm.metrics import AFFECT_SUMS, affect_sums, mean_ccc
from ssm.model import Precision, SSMNetwork, autocast
from ssm.training import PADDING, AUBatch, Collective, FEBatch, VABatch, send
from ssm_platform.data import AU, FE, VA, OrderError, Rows, Shares, evaluation_rows
from ssm_platform.records import Manifest, Task
from ssm_platform.runs import RunConfig
from ssm_platform.train.loop import Batch

_HITS = 3  # true positives, false positives, misses


def spread(rows: Rows, limit: int | None) -> Rows:
    """At most `limit` rows of each corpus, evenly spaced; all of them where it is None."""
    if limit is None:
        return rows
    kept = []
    for corpus in np.unique(rows.corpus):
        mine = np.flatnonzero(rows.corpus == corpus)
        kept.append(mine[np.unique(np.linspace(0, len(mine) - 1, min(limit, len(mine))).round().astype(np.int64))])
    return rows[np.concatenate(kept)]


def validation_rows(config: RunConfig, manifests: Sequence[Manifest]) -> Rows:
    """What a run is validated on while it trains: rows over its validation manifests."""
    return spread(evaluation_rows(manifests, config.model.frames), config.validation_clips)


@dataclass(frozen=True)
class Validation:
    """What is validated on; calling it validates one model on the rounds that come next in the stream."""

    manifests: Sequence[Manifest]
    rows: Rows  # of all workers
    shares: Shares
    vocabulary: Vocabulary
    preprocessing: Preprocessing
    collective: Collective
    device: torch.device
    precision: Precision = "float32"  # the run's

    def __call__(self, model: nn.Module, stream: Iterator[Batch]) -> dict[str, float]:
        """`uar/CORPUS`, `macro_f1/CORPUS`, `ccc/CORPUS`, `score`; all workers call it and get the same.

        May raise `OrderError`.
        """
        if isinstance(model, SSMNetwork):
            model.fold()  # once, not at every batch; training forgets it
        tables = [self._empty(manifest.task) for manifest in self.manifests]
        for number in range(self.shares.rounds(len(self.rows))):
            self._count(model, self._next(stream, number), number, tables)
        scores: dict[str, list[float]] = {name: [] for name, _ in _FIGURES.values()}
        metrics = {}
        for manifest, mine in zip(self.manifests, tables, strict=True):
            table = self.collective.sum(mine)
            name, figure = _FIGURES[manifest.task]
            value = figure(table)
            metrics[f"{name}/{manifest.corpus}"] = value
            if not math.isnan(value):
                scores[name].append(value)
        means = [sum(values) / len(values) for values in scores.values() if values]
        return {**metrics, "score": sum(means) / len(means) if means else math.nan}

    def _empty(self, task: Task) -> Tensor:
        """Confusion counts (E E), hits per AU (3 A) or sums of affect (2 7)."""
        classes, aus = len(self.vocabulary.expressions), len(self.vocabulary.aus)
        shapes: dict[Task, tuple[int, int]] = {
            "fe": (classes, classes),
            "au": (_HITS, aus),
            "va": (len(AFFECT), len(AFFECT_SUMS)),
        }
        return torch.zeros(shapes[task], dtype=torch.int64, device=self.device)

    def _mine(self, number: int) -> NDArray[np.int64]:
        return self.shares.of_round(len(self.rows), number, self.collective.rank)

    def _next(self, stream: Iterator[Batch], number: int) -> Batch:
        """The next batch, which must be this worker's part of that round."""
        batch, mine = next(stream, None), self._mine(number)
        wanted = np.where(mine == PADDING, PADDING, self.rows.row[mine.clip(0)])
        if batch is None or not np.array_equal(batch.rows, wanted):
            found = "nothing" if batch is None else f"rows {batch.rows[:3]}.."
            raise OrderError(f"round {number} of a validation: got {found}, not rows {wanted[:3]}..")
        return batch

    @torch.no_grad()
    def _count(self, model: nn.Module, batch: Batch, number: int, tables: list[Tensor]) -> None:
        """Adds what the model says of a round to the tables of its clips' corpora."""
        mine = self._mine(number)
        places = np.where(mine == PADDING, PADDING, self.rows.corpus[mine.clip(0)])
        tasks = np.where(mine == PADDING, self.shares.tasks[self.collective.rank], self.rows.task[mine.clip(0)])
        with autocast(self.device, self.precision):
            if batch.fe is not None:
                fe = batch.fe.to(self.device)
                logits = model(fe_clips=self._pixels(fe.clips), fe_distinct=fe.distinct).fe_logits
                for place, rows in self._by_corpus(places[tasks == FE]):
                    labels = replace(fe, labels=fe.labels[rows], class_mask=fe.class_mask[rows])
                    tables[place] += confusion(logits[rows], labels)
            if batch.au is not None:
                au = batch.au.to(self.device)
                logits = model(au_clips=self._pixels(au.clips)).au_logits
                for place, rows in self._by_corpus(places[tasks == AU]):
                    targets = replace(au, targets=au.targets[rows], mask=au.mask[rows])
                    tables[place] += hits(logits[rows], targets)
            if batch.va is not None:
                va = batch.va.to(self.device)
                affect = model(va_clips=self._pixels(va.clips)).affect
                for place, rows in self._by_corpus(places[tasks == VA]):
                    known = replace(va, targets=va.targets[rows], mask=va.mask[rows])
                    tables[place] += concordance(affect[rows], known).to(self.device)

    def _by_corpus(self, places: NDArray[np.int64]) -> Iterator[tuple[int, Tensor]]:
        """Each corpus among the clips of a side, with its rows."""
        for place in np.unique(places[places != PADDING]).tolist():
            yield place, send(torch.from_numpy(np.flatnonzero(places == place)), self.device)

    def _pixels(self, clips: Tensor) -> Tensor:
        return normalise(send(clips, self.device), self.preprocessing)


def confusion(logits_BE: Tensor, batch: FEBatch) -> Tensor:
    """Counts (E E), row: true class, column: the likeliest among the classes of the clip's corpus.

    Clips without a class (their pixels could not be read) are not counted.
    """
    known_B = batch.class_mask.any(1)
    predicted_B = logits_BE.float().masked_fill(~batch.class_mask, -torch.inf).argmax(1)
    classes = logits_BE.shape[1]
    pairs = (batch.labels * classes + predicted_B)[known_B]
    return torch.bincount(pairs, minlength=classes**2).view(classes, classes)


def hits(logits_BTA: Tensor, batch: AUBatch) -> Tensor:
    """True positives, false positives and misses (3 A) at probability 0.5 over known labels."""
    predicted, true = (logits_BTA > 0) & batch.mask, (batch.targets > 0.5) & batch.mask
    return torch.stack(
        [(predicted & true).sum((0, 1)), (predicted & ~true).sum((0, 1)), (~predicted & true).sum((0, 1))]
    )


def concordance(affect_BTK: Tensor, batch: VABatch) -> Tensor:
    """Sums (2 7) that CCC is made of, over known labels."""
    labels = batch.targets.masked_fill(~batch.mask, torch.nan).flatten(0, 1)
    return torch.from_numpy(affect_sums(affect_BTK.float().cpu().flatten(0, 1).numpy(), labels.cpu().numpy()))


def uar(table_EE: Tensor) -> float:
    """Mean recall of the classes that occur."""
    totals = table_EE.sum(1)
    return float((table_EE.diag() / totals.clamp_min(1))[totals > 0].double().mean())


def macro_f1(table_3A: Tensor) -> float:
    """Mean F1 of the AUs that occur."""
    true, false, missed = table_3A.double()
    return float((2 * true / (2 * true + false + missed).clamp_min(1))[true + missed > 0].mean())


def concordance_of(table_K7: Tensor) -> float:
    """Mean CCC of valence and arousal, where defined."""
    return float(mean_ccc(table_K7.cpu().numpy()))


_FIGURES: Mapping[Task, tuple[str, Callable[[Tensor], float]]] = {
    "fe": ("uar", uar),
    "au": ("macro_f1", macro_f1),
    "va": ("ccc", concordance_of),
}
"""What each task is judged by, in the order of the score."""
