"""Validation while training: counts that add up over workers, and figures of them."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from ssm.training.batch import AUBatch, FEBatch
from ssm_platform.data.plan import Rows
from ssm_platform.train.validation import confusion, hits, macro_f1, spread, uar


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
