"""Validation while training: a spread of held-out clips, decoded in threads, counted exactly over all workers.

Each worker takes every world-th clip; confusion counts, AU hits and sums of CCC are whole numbers, so any split over
workers gives the same figures. AUs are judged at probability 0.5: thresholds and vote rules are fitted after training
(`evaluation`). `score`, by which the best checkpoint is chosen, is the mean over tasks of the mean over corpora (UAR,
macro F1, mean CCC); a corpus where nothing is defined among the clips looked at is left out of it.
Letters: B clips, T frames, A AUs, E expressions.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from ssm.interface import Preprocessing, normalise
from ssm.labels import AFFECT, Vocabulary
from ssm.metrics import AFFECT_SUMS, affect_sums, mean_ccc
from ssm.model import Precision, SSMNetwork, autocast
from ssm.training import AUBatch, Collective, FEBatch, VABatch, send
from ssm_platform.data import Batches, Rows
from ssm_platform.records import Manifest, Task

_HITS = 3  # true positives, false positives, misses
_AHEAD = 2


def spread(rows: Rows, limit: int | None) -> Rows:
    """At most `limit` rows of each corpus, evenly spaced; all of them where it is None."""
    if limit is None:
        return rows
    kept = []
    for corpus in np.unique(rows.corpus):
        mine = np.flatnonzero(rows.corpus == corpus)
        kept.append(mine[np.unique(np.linspace(0, len(mine) - 1, min(limit, len(mine))).round().astype(np.int64))])
    return rows[np.concatenate(kept)]


Read = Callable[[Rows], Batches]
"""Clips and labels of evaluation rows, all of one corpus."""


@dataclass(frozen=True)
class Validation:
    """What is validated on, and how it is read; calling it validates one model."""

    manifests: Sequence[Manifest]
    rows: Rows  # of all workers
    vocabulary: Vocabulary
    read: Read
    preprocessing: Preprocessing
    collective: Collective
    device: torch.device
    precision: Precision = "float32"  # the run's
    batch: int = 8

    def __call__(self, model: nn.Module) -> dict[str, float]:
        """`uar/CORPUS`, `macro_f1/CORPUS`, `ccc/CORPUS`, `score`; all workers call it and get the same."""
        if isinstance(model, SSMNetwork):
            model.fold()  # once, not at every batch; training forgets it
        scores: dict[str, list[float]] = {name: [] for name, _ in _FIGURES.values()}
        metrics = {}
        for place, manifest in enumerate(self.manifests):
            table = self.collective.sum(self._count(model, self.rows[self.rows.corpus == place], manifest.task))
            name, figure = _FIGURES[manifest.task]
            value = figure(table)
            metrics[f"{name}/{manifest.corpus}"] = value
            if not math.isnan(value):
                scores[name].append(value)
        means = [sum(values) / len(values) for values in scores.values() if values]
        return {**metrics, "score": sum(means) / len(means) if means else math.nan}

    @torch.no_grad()
    def _count(self, model: nn.Module, rows: Rows, task: Task) -> Tensor:
        """Confusion counts (E E), hits per AU (3 A) or sums of affect (2 7) of this worker's share of one corpus."""
        classes, aus = len(self.vocabulary.expressions), len(self.vocabulary.aus)
        shapes: dict[Task, tuple[int, int]] = {
            "fe": (classes, classes),
            "au": (_HITS, aus),
            "va": (len(AFFECT), len(AFFECT_SUMS)),
        }
        table = torch.zeros(shapes[task], dtype=torch.int64, device=self.device)
        for fe, au, va in self._batches(rows[self.collective.rank :: self.collective.world]):
            with autocast(self.device, self.precision):
                if fe is not None:
                    fe = fe.to(self.device)
                    table += confusion(model(fe_clips=self._pixels(fe.clips), fe_distinct=fe.distinct).fe_logits, fe)
                if au is not None:
                    table += hits(model(au_clips=self._pixels(au.clips)).au_logits, au.to(self.device))
                if va is not None:
                    table += concordance(model(va_clips=self._pixels(va.clips)).affect, va).to(self.device)
        return table

    def _batches(self, rows: Rows) -> Iterator[Batches]:
        """Batches in order, the next one being read while the model works on this one."""
        cuts = [rows[first : first + self.batch] for first in range(0, len(rows), self.batch)]
        with ThreadPoolExecutor(max_workers=1, thread_name_prefix="validation") as pool:
            ahead = deque(pool.submit(self.read, cut) for cut in cuts[:_AHEAD])
            for following in [*cuts[_AHEAD:], *[None] * min(_AHEAD, len(cuts))]:
                yield ahead.popleft().result()
                if following is not None:
                    ahead.append(pool.submit(self.read, following))

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
