"""Heads on cached features: expressions by weighted cross-entropy, AUs by weighted BCE, valence and arousal by 1 - CCC.

Constants: `config.HeadsConfig`. Of all epochs the one is kept that is best on validation: by accuracy for expressions,
by loss for the others. AU rows with an unknown label are masked per AU. Every draw comes from the seed.
Letters: F frames, D width, A AUs, E expressions.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from ssm.labels import Vocabulary
from ssm.model import FrameHead
from ssm.training import concordance_loss, moments
from ssm_platform.frames.config import HeadConfig, HeadsConfig
from ssm_platform.records import Manifest, Task

_CHUNK = 8192  # frames of a pass without gradient


@dataclass(frozen=True)
class Frames:
    """Frames of one task with their features and labels in the columns of the run's vocabulary."""

    features: Tensor  # float16 F D
    targets: Tensor  # fe: int64 F; au: float32 F A; va: float32 F 2
    known: Tensor  # bool, as targets; au, va: which of them are labelled

    @classmethod
    def joined(cls, parts: Sequence[Frames]) -> Frames:
        """One after the other; at least one."""
        fields = ("features", "targets", "known")
        return cls(*(torch.cat([getattr(part, name) for part in parts]) for name in fields))

    def __len__(self) -> int:
        return len(self.features)


def frames_of(manifest: Manifest, features: NDArray[np.float16], vocabulary: Vocabulary) -> Frames:
    """The labelled frames of a manifest of one task; `features` are of all its frames, record after record."""
    table = torch.from_numpy(features)
    if manifest.task == "fe":
        columns = np.array(vocabulary.expression_columns(manifest.labels.expressions))
        classes = np.repeat(columns[manifest.expression_columns], manifest.lengths)
        return Frames(table, torch.from_numpy(classes), torch.ones(len(classes), dtype=torch.bool))
    if manifest.task == "va":
        targets, known = np.array(manifest.frame_affect), ~np.isnan(manifest.frame_affect)
    else:
        targets = np.zeros((len(table), len(vocabulary.aus)), np.float32)
        known = np.zeros(targets.shape, bool)
        columns = np.array(vocabulary.au_columns(manifest.labels.aus))
        targets[:, columns], known[:, columns] = manifest.frame_labels == 1, manifest.frame_labels >= 0
    some = torch.from_numpy(known.any(1))
    return Frames(table[some], torch.from_numpy(np.nan_to_num(targets))[some], torch.from_numpy(known)[some])


@dataclass(frozen=True)
class Heads:
    """What was trained; None for a task without a corpus. All take features (..., D)."""

    fe: FrameHead | None
    au: FrameHead | None
    va: nn.Linear | None


def train_heads(
    train: dict[Task, Frames], validation: dict[Task, Frames], vocabulary: Vocabulary, width: int,
    config: HeadsConfig, seed: int,
) -> Heads:  # fmt: skip
    """A head for each task that has frames on both sides."""
    there = {task for task in train if task in validation}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        fe = FrameHead(width, config.hidden, len(vocabulary.expressions)) if "fe" in there else None
        au = FrameHead(width, config.hidden, len(vocabulary.aus)) if "au" in there else None
        va = nn.Linear(width, 2) if "va" in there else None
    if fe is not None:
        loss = _expression_loss(fe, train["fe"])
        _fit(fe, train["fe"], config.fe, seed, loss, lambda: _accuracy(fe, validation["fe"]))
    if au is not None:
        loss = _au_loss(au, train["au"])
        _fit(au, train["au"], config.au, seed, loss, lambda: -_mean_loss(_plain_au_loss(au), validation["au"]))
    if va is not None:
        _fit(va, train["va"], config.va, seed, _affect_loss(va), lambda: -_affect_of(va, validation["va"]))
    return Heads(fe, au, va)


@torch.inference_mode()
def applied(head: nn.Module, features: Tensor) -> Tensor:
    """Logits (F K) of cached features, some at a time."""
    pieces = [head(piece.float()) for piece in torch.split(features, _CHUNK)]
    return torch.cat([piece[0] if isinstance(piece, tuple) else piece for piece in pieces])


Loss = Callable[[Frames], Tensor]


def _fit(
    head: nn.Module, frames: Frames, config: HeadConfig, seed: int, loss: Loss, quality: Callable[[], float]
) -> None:
    """Adam over shuffled frames; the weights of the epoch of best quality, the first of equal ones, are kept."""
    optimizer = torch.optim.Adam(head.parameters(), lr=config.rate)
    best, kept = -float("inf"), copy.deepcopy(head.state_dict())
    for epoch in range(config.epochs):
        order = torch.randperm(len(frames), generator=torch.Generator().manual_seed(seed * 1009 + epoch))
        for rows in torch.split(order, config.batch):
            if len(rows) < min(config.batch, len(frames)) // 2 and len(frames) > config.batch:
                continue  # a small rest would weigh as much as a whole batch
            batch = Frames(frames.features[rows], frames.targets[rows], frames.known[rows])
            optimizer.zero_grad()
            loss(batch).backward()  # type: ignore[no-untyped-call]
            optimizer.step()
        found = quality()
        if found > best:
            best, kept = found, copy.deepcopy(head.state_dict())
    head.load_state_dict(kept)


def _expression_loss(head: FrameHead, frames: Frames) -> Loss:
    """Cross-entropy, a class weighing n_max / n_c."""
    counts = torch.bincount(frames.targets, minlength=head.net[-1].out_features).float()  # type: ignore[arg-type]
    weights = torch.where(counts > 0, counts.max() / counts.clamp_min(1), 0.0)
    return lambda batch: F.cross_entropy(head(batch.features.float())[0], batch.targets, weights)


def _au_loss(head: FrameHead, frames: Frames) -> Loss:
    """BCE over known labels, active ones weighing n / (2 pos), others n / (2 neg), AU by AU."""
    n, active = frames.known.sum(0).float(), (frames.targets * frames.known).sum(0)
    on, off = n / (2 * active).clamp_min(1), n / (2 * (n - active)).clamp_min(1)

    def loss(batch: Frames) -> Tensor:
        weights = torch.where(batch.targets > 0.5, on, off) * batch.known
        logits = head(batch.features.float())[0]
        each = F.binary_cross_entropy_with_logits(logits, batch.targets, weights, reduction="sum")
        return each / batch.known.sum().clamp_min(1)

    return loss


def _plain_au_loss(head: FrameHead) -> Loss:
    def loss(batch: Frames) -> Tensor:
        logits = head(batch.features.float())[0]
        return F.binary_cross_entropy_with_logits(logits, batch.targets, batch.known.float())

    return loss


def _affect_loss(head: nn.Linear) -> Loss:
    """1 - CCC over the batch, the mean over the dimensions."""

    def loss(batch: Frames) -> Tensor:
        found = head(batch.features.float()).tanh()[:, None]
        targets, weights = batch.targets[:, None], batch.known[:, None].float()
        return concordance_loss(found, targets, weights, moments(found, targets, weights)) / weights.sum().clamp_min(1)

    return loss


@torch.inference_mode()
def _accuracy(head: FrameHead, frames: Frames) -> float:
    return float((applied(head, frames.features).argmax(1) == frames.targets).float().mean())


@torch.inference_mode()
def _mean_loss(loss: Loss, frames: Frames) -> float:
    starts = range(0, len(frames), _CHUNK)
    parts = [
        Frames(frames.features[at : at + _CHUNK], frames.targets[at : at + _CHUNK], frames.known[at : at + _CHUNK])
        for at in starts
    ]
    return sum(float(loss(part)) * len(part) for part in parts) / len(frames)


@torch.inference_mode()
def _affect_of(head: nn.Linear, frames: Frames) -> float:
    """1 - CCC over all frames at once."""
    found = applied(head, frames.features).tanh()[:, None]
    targets, weights = frames.targets[:, None], frames.known[:, None].float()
    return float(concordance_loss(found, targets, weights, moments(found, targets, weights)) / weights.sum())
