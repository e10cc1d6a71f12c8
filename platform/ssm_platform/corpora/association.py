"""A prior counted from a corpus that labels the same frames twice: AUs in one manifest, expressions in another.

Frames meet by what they are (source and frame), not by how the two manifests cut them into records. Legend: N frames
labelled with both, A action units.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ssm.labels import PRIOR_OFF, Vocabulary
from ssm_platform.records import UNKNOWN, Manifest, Record


def cooccurrence(
    expressions: Tensor, au_targets: Tensor, au_mask: Tensor, vocabulary: Vocabulary, off: float = PRIOR_OFF
) -> tuple[tuple[float, ...], ...]:
    """A prior counted from frames labelled with both: the share of an expression's frames that show the AU.

    `expressions` int64 (N) columns of the vocabulary, `au_targets` (N A) in {0, 1}, `au_mask` bool (N A) where the
    target is known. Cells that no frame speaks of, the neutral row and anything smaller are `off`. The result is
    the `matrix` of a `MappingConfig(prior="explicit")`.
    """
    rows, columns = len(vocabulary.expressions), len(vocabulary.aus)
    if au_targets.shape != (len(expressions), columns) or au_mask.shape != au_targets.shape:
        raise ValueError(
            f"expected targets and mask of shape ({len(expressions)}, {columns}); "
            f"got {tuple(au_targets.shape)} and {tuple(au_mask.shape)}"
        )
    chosen = torch.nn.functional.one_hot(expressions, rows).double().T
    known = au_mask.double()
    share = (chosen @ (au_targets.double() * known)) / (chosen @ known).clamp(min=1)
    share = share.clamp(min=off)
    if vocabulary.neutral_index is not None:
        share[vocabulary.neutral_index] = off
    return tuple(tuple(row) for row in share.tolist())


@dataclass(frozen=True)
class CountedPrior:
    """The matrix of a `MappingConfig(prior="explicit")`, and how many frames it rests on, per expression."""

    matrix: tuple[tuple[float, ...], ...]
    frames: dict[str, int]


def count_prior(
    aus: Manifest, expressions: Manifest, vocabulary: Vocabulary, off: float = PRIOR_OFF, part: str | None = None
) -> CountedPrior:
    """P(AU | expression) over the frames that both manifests label, in the order of `vocabulary`.

    `part` restricts it to clips of one of the owner's parts, so that nothing of a test side is counted. ValueError
    where the manifests are not of one root, or share no frame.
    """
    if aus.root != expressions.root:
        raise ValueError(f"AUs lie in {aus.root}, expressions in {expressions.root}: both must label the same frames")
    columns = [aus.labels.aus.index(au) if au in aus.labels.aus else None for au in vocabulary.aus]
    labels = _by_frame(aus)
    classes, rows = [], []
    for record in expressions:
        if record.expression in vocabulary.expressions and part in (None, record.part):
            known = labels.get(record.source, {})
            found = [known[frame] for frame in _frames(record) if frame in known]
            classes += [vocabulary.expressions.index(record.expression)] * len(found)
            rows += found
    if not rows:
        where = f" of part {part}" if part else ""
        raise ValueError(f"{aus.root}: {aus.corpus} and {expressions.corpus} share no frame{where}: nothing to count")
    labels_NA = _reordered(np.stack(rows), columns)
    matrix = cooccurrence(
        torch.tensor(classes), torch.tensor(labels_NA == 1), torch.tensor(labels_NA != UNKNOWN), vocabulary, off
    )
    counts = np.bincount(classes, minlength=len(vocabulary.expressions))
    return CountedPrior(matrix, dict(zip(vocabulary.expressions, counts.tolist(), strict=True)))


def _by_frame(manifest: Manifest) -> dict[str, dict[Hashable, NDArray[np.int8]]]:
    """source -> frame -> its AU labels (A)."""
    labels: dict[str, dict[Hashable, NDArray[np.int8]]] = defaultdict(dict)
    for record in manifest:
        assert record.au_labels is not None, "a manifest of task au"
        labels[record.source].update(zip(_frames(record), record.au_labels, strict=True))
    return labels


def _frames(record: Record) -> Iterator[Hashable]:
    """What names each frame of a record within its source: the file, or the frame's number in the video."""
    return iter(record.files or range(record.start, record.start + record.length))


def _reordered(labels_NA: NDArray[np.int8], columns: list[int | None]) -> NDArray[np.int8]:
    """Columns in the order of the vocabulary; AUs that the corpus does not label are unknown."""
    blank = np.full((len(labels_NA), 1), UNKNOWN, np.int8)
    return np.hstack([blank if column is None else labels_NA[:, [column]] for column in columns])
