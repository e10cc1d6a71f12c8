"""A record: one contiguous run of frames of one clip with its labels, and the rules that it keeps.

What a reader yields and a manifest holds. Legend: L frames of a record, A action units, E classes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from ssm.interface import FaceCrop
from ssm.labels import AFFECT, Vocabulary

Task = Literal["au", "fe", "va"]
Kind = Literal["video", "frames", "shard", "pixels"]
TASKS: tuple[Task, ...] = ("au", "fe", "va")
KINDS: tuple[Kind, ...] = ("video", "frames", "shard", "pixels")

UNKNOWN = -1
"""The AU label of a frame nobody scored: masked out of loss and metrics."""

_SHARES_OFF = 1e-4  # how far shares in float32 may sum from 1

LABELS: tuple[tuple[Task, str], ...] = (("au", "aus"), ("fe", "expressions"), ("va", "affect"))
"""The label columns of each task, by their field of a vocabulary."""


@dataclass(frozen=True, eq=False, slots=True)
class Record:
    """One contiguous run of frames and its labels. A gap in frame numbers splits a clip: ``clip#0``, ``clip#1``, ..."""

    clip: str  # unique in the corpus; what reports, plans and hashes call this record
    source: str  # path below the manifest's root: a video file, a folder of frames, a shard, or a table of pixels
    kind: Kind
    start: int  # first frame, counted from 0 in the video or shard; 0 for frame folders; kind "pixels": line, from 0
    length: int  # number of frames L
    subject: str | None = None  # None where the owner does not say (most wild corpora)
    part: str | None = None  # the owner's split: "P1".., "1".. (fold in which the clip is test), "train" / "test"
    files: tuple[str, ...] | None = None  # kind "frames": the L file names inside ``source``, in order
    rate: float | None = None  # frames per second, None where unknown
    expression: str | None = None  # the clip's class, by name
    au_labels: npt.NDArray[np.int8] | None = None  # (L, A): 1 active, 0 not, -1 unknown; columns are the manifest's AUs
    aus: tuple[int, ...] = ()  # AU numbers of the columns; filled in by the manifest
    group: str | None = None  # what no split divides where no subject is known: the video that several records show
    distribution: npt.NDArray[np.float32] | None = None  # (E,) shares of the manifest's classes; None: all on its class
    crop: str | None = None  # what its frames are cut out by (`ssm.interface.FaceCrop.text`); None: not recorded
    va_labels: npt.NDArray[np.float32] | None = None  # (L, 2): valence and arousal in [-1, 1]; nan: unknown


def tasks_of(labels: Vocabulary) -> tuple[Task, ...]:
    """The tasks that a vocabulary has label columns for, in the order of `TASKS`."""
    return tuple(task for task, field in LABELS if getattr(labels, field))


def check(record: Record, corpus: str, task: Task, labels: Vocabulary) -> None:
    """Raise ValueError where ``record`` breaks a rule of the manifest."""
    tasks = {task, *tasks_of(labels)}
    rules = (
        (bool(record.clip), "a clip has a name"),
        (record.kind in KINDS, f"kind is one of {', '.join(KINDS)}, not {record.kind!r}"),
        (record.start >= 0, f"start counts from 0, got {record.start}"),
        (record.length >= 1, f"a record has at least one frame, got {record.length}"),
        (record.rate is None or record.rate > 0, f"rate is positive or unknown, got {record.rate}"),
        ((record.files is not None) == (record.kind == "frames"), "kind 'frames', and no other, lists its files"),
        (record.files is None or len(record.files) == record.length, f"it lists one file per frame ({record.length})"),
        (tasks != {"fe"} or record.expression is not None, "a clip of an expression corpus has an expression"),
        (
            record.expression is None or record.expression in labels.expressions,
            f"expression {record.expression!r} is not in {labels.expressions}",
        ),
        ((record.au_labels is not None) == ("au" in tasks), "AU corpora, and no other, carry AU labels"),
        ((record.va_labels is not None) == ("va" in tasks), "corpora with affect, and no other, carry its labels"),
    )
    for holds, rule in rules:
        if not holds:
            raise ValueError(f"{corpus}: clip {record.clip!r}: {rule}")
    _check_crop(record, f"{corpus}: clip {record.clip!r}")
    if record.au_labels is not None:
        _check_au_labels(record.au_labels, (record.length, len(labels.aus)), f"{corpus}: clip {record.clip!r}")
    if record.va_labels is not None:
        _check_affect(record.va_labels, (record.length, len(AFFECT)), f"{corpus}: clip {record.clip!r}")
    if record.distribution is not None:
        _check_distribution(record, labels.expressions, f"{corpus}: clip {record.clip!r}")


def _check_crop(record: Record, where: str) -> None:
    try:
        FaceCrop.parse(record.crop or "frame")
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from error


def _check_au_labels(values: npt.NDArray[np.int8], shape: tuple[int, int], where: str) -> None:
    if values.dtype != np.int8 or values.shape != shape:
        raise ValueError(f"{where}: AU labels are int8 {shape}, got {values.dtype} {values.shape}")
    if values.min(initial=0) < UNKNOWN or values.max(initial=0) > 1:
        raise ValueError(f"{where}: AU labels are 1, 0 or -1, got {values.min()}..{values.max()}")


def _check_affect(values: npt.NDArray[np.float32], shape: tuple[int, int], where: str) -> None:
    if values.dtype != np.float32 or values.shape != shape:
        raise ValueError(f"{where}: valence and arousal are float32 {shape}, got {values.dtype} {values.shape}")
    known = values[~np.isnan(values)]
    if (np.abs(known) > 1).any():
        raise ValueError(f"{where}: valence and arousal are in [-1, 1] or nan, got {known.min()}..{known.max()}")


def _check_distribution(record: Record, classes: tuple[str, ...], where: str) -> None:
    """A distribution is of the manifest's classes, sums to 1, and its record's class is one of the likeliest."""
    shares = record.distribution
    assert shares is not None
    if record.expression is None or shares.dtype != np.float32 or shares.shape != (len(classes),):
        raise ValueError(f"{where}: a distribution is float32 ({len(classes)},) beside a class, got {shares.shape}")
    if not (shares >= 0).all() or abs(float(shares.sum()) - 1) > _SHARES_OFF:
        raise ValueError(f"{where}: shares are >= 0 and sum to 1, got {shares.tolist()}")
    if shares[classes.index(record.expression)] < shares.max():
        raise ValueError(f"{where}: class {record.expression!r} is not the likeliest of {shares.tolist()}")
