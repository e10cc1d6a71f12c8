"""Validation while training: counts that add up over workers, and figures of them."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from ssm.interface.preprocessing import Preprocessing
from ssm.labels.vocabulary import Vocabulary
from ssm.training.batch import AUBatch, FEBatch
from ssm.training.collective import SingleProcess
from ssm.training.shares import PADDING
from ssm_platform.data.order import OrderError
from ssm_platform.data.plan import AU, FE, PlanConfig, Rows
from ssm_platform.data.shares import Shares
from ssm_platform.train.loop import Batch
from ssm_platform.train.validation import Validation, confusion, hits, macro_f1, spread, uar


def rows(*corpora: int) -> Rows:
    size = len(corpora)
    return Rows(
        row=np.arange(size),
        task=np.zeros(size, np.int8),
        corpus=np.array(corpora, np.int16),
        record=np.arange(size, dtype=np.int32),
        start=np.zeros(size, np.int32),
        seed=np.zeros(size, np.int64),
    )


def test_spread_takes_evenly_from_each_corpus() -> None:
    chosen = spread(rows(*[0] * 10, *[1] * 3), 4)
    assert chosen.corpus.tolist() == [0] * 4 + [1] * 3
    assert chosen.row.tolist() == [0, 3, 6, 9, 10, 11, 12]
    assert len(spread(rows(0, 0, 1), None)) == 3


def test_classes_outside_the_corpus_are_never_predicted() -> None:
    batch = FEBatch(
        clips=torch.zeros(3, 1, 1, 1, 3, dtype=torch.uint8),
        labels=torch.tensor([0, 1, 1]),
        class_mask=torch.tensor([[True, True, False]] * 3),
        row_ids=torch.arange(3),
    )
    logits = torch.tensor([[1.0, 0, 9], [0, 1, 9], [1, 0, 9]])
    assert confusion(logits, batch).tolist() == [[1, 0, 0], [1, 1, 0], [0, 0, 0]]


def test_a_clip_that_could_not_be_read_is_not_counted() -> None:
    batch = FEBatch(
        clips=torch.zeros(2, 1, 1, 1, 3, dtype=torch.uint8),
        labels=torch.tensor([0, 1]),
        class_mask=torch.tensor([[False, False], [True, True]]),
        row_ids=torch.arange(2),
    )
    assert confusion(torch.tensor([[1.0, 0], [0, 1]]), batch).tolist() == [[0, 0], [0, 1]]


def test_uar_is_the_mean_recall_of_classes_that_occur() -> None:
    assert uar(torch.tensor([[3, 1, 0], [0, 2, 2], [0, 0, 0]])) == pytest.approx((0.75 + 0.5) / 2)


def test_unknown_frames_do_not_count() -> None:
    shape = (1, 4, 1)
    batch = AUBatch(
        clips=torch.zeros(1, 4, 1, 1, 3, dtype=torch.uint8),
        targets=torch.tensor([1.0, 0, 1, 1]).view(shape),
        mask=torch.tensor([True, True, True, False]).view(shape),
        row_ids=torch.arange(1),
    )
    assert hits(torch.tensor([1.0, 1, -1, 1]).view(shape), batch).flatten().tolist() == [1, 1, 1]


def test_macro_f1_is_the_mean_over_aus_that_occur() -> None:
    assert macro_f1(torch.tensor([[2, 0, 1], [1, 5, 0], [1, 0, 3]])) == pytest.approx((2 / 3 + 2 / 5) / 2)


@pytest.mark.parametrize("world", [1, 3])
def test_any_number_of_workers_counts_every_clip_of_every_corpus_once(world: int) -> None:
    """A model that always says the same, clips of two FE corpora and one of AUs, and workers that take turns."""
    manifests = [SimpleNamespace(corpus=name, task=task) for name, task in (("a", "fe"), ("b", "fe"), ("c", "au"))]
    every = replace(rows(*[0] * 7, *[1] * 4, *[2] * 5), task=np.array([FE] * 11 + [AU] * 5, np.int8))
    shares = PlanConfig(fe_batch=3, au_batch=2).shares(world)
    counted = [0, 0, 0]

    class Together(SingleProcess):
        def __init__(self, rank: int) -> None:
            self.rank, self.world = rank, world

        def sum(self, tensor: torch.Tensor) -> torch.Tensor:
            counted[len(seen) % 3] += int(tensor.sum())
            seen.append(tensor)
            return tensor

    def model(fe_clips: torch.Tensor | None = None, au_clips: torch.Tensor | None = None, **_: object) -> Any:
        count = len(au_clips if fe_clips is None else fe_clips)
        return SimpleNamespace(fe_logits=torch.zeros(count, 2), au_logits=torch.ones(count, 1, 1))

    for rank in range(world):
        seen: list[torch.Tensor] = []
        validation = Validation(
            manifests, every, shares, Vocabulary(aus=(1,), expressions=("happiness", "sadness")),
            Preprocessing(image_size=8), Together(rank), torch.device("cpu"),
        )  # fmt: skip
        turns = [batch_of(every, shares, number, rank) for number in range(shares.rounds(len(every)))]
        validation(model, iter(turns))
        with pytest.raises(OrderError, match="round 0 of a validation"):
            validation(model, iter(turns[1:]))
    assert counted == [7, 4, 5]


def batch_of(every: Rows, shares: Shares, number: int, rank: int) -> Batch:
    part = every.filled(shares.of_round(len(every), number, rank), shares.tasks[rank])
    fe, au = part.row[part.task == FE], part.row[part.task == AU]
    known = torch.from_numpy(fe != PADDING)
    pixels = [torch.zeros(len(side), 1, 8, 8, 3, dtype=torch.uint8) for side in (fe, au)]
    labels, mask = torch.zeros(len(fe), dtype=torch.int64), torch.from_numpy(au != PADDING).view(-1, 1, 1)
    return Batch(
        part.row,
        part.row,
        FEBatch(pixels[0], labels, known[:, None].repeat(1, 2), torch.from_numpy(fe)) if len(fe) else None,
        AUBatch(pixels[1], torch.ones(len(au), 1, 1), mask, torch.from_numpy(au)) if len(au) else None,
    )
