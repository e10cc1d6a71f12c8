"""Priors over (expression, AU) pairs: tables of links, and matrices made of them (method, section 4).

A prior is a matrix P (E A): `on` where a table links the pair, `off` elsewhere; the neutral row is all `off`.
Sources: the authors' released constants; EMFACS (Ekman & Friesen), with the authors' rows for MAFW's four classes.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

import torch
from torch import Tensor

from ssm.config import PRIOR_OFF, MappingConfig
from ssm.vocabulary import BASIC_EXPRESSIONS, NEUTRAL, Vocabulary

Links = Mapping[str, tuple[int, ...]]

_AUTHORS_BP4D: Links = {
    "happiness": (6, 12), "sadness": (1, 4, 15), "anger": (4, 7, 23), "surprise": (1, 2), "disgust": (10, 17),
    "fear": (1, 2, 4, 7), "contempt": (12, 14), "anxiety": (1, 4), "helplessness": (1, 4, 15),
    "disappointment": (1, 4, 15),
}  # fmt: skip
_AUTHORS_DISFA: Links = {
    "happiness": (6, 12), "sadness": (1, 4), "anger": (4,), "surprise": (1, 2, 25, 26), "disgust": (9,),
    "fear": (1, 2, 4, 25, 26), "contempt": (12,), "anxiety": (1, 4, 25), "helplessness": (1, 4, 26),
    "disappointment": (1, 4, 25),
}  # fmt: skip
_EMFACS: Links = {
    "happiness": (6, 12), "sadness": (1, 4, 15), "anger": (4, 5, 7, 23), "surprise": (1, 2, 5, 26),
    "disgust": (9, 10, 15, 17), "fear": (1, 2, 4, 5, 7, 20, 26), "contempt": (12, 14),
    # EMFACS does not know MAFW's last three; these rows join the authors' two tables.
    "anxiety": (1, 4, 25), "helplessness": (1, 4, 15, 26), "disappointment": (1, 4, 15, 25),
}  # fmt: skip

TABLES: Mapping[str, Links] = MappingProxyType({
    "authors_bp4d": _AUTHORS_BP4D, "authors_disfa": _AUTHORS_DISFA, "emfacs": _EMFACS,
})  # fmt: skip
"""Linked AUs per expression; an expression that is absent (neutral) has none."""

_ELEVEN_CLASSES: Mapping[str, Links] = MappingProxyType({
    "authors_bp4d": {"disgust": (10, 15)}, "authors_disfa": {"surprise": (1, 2, 26), "fear": (1, 2, 4, 26)},
})  # fmt: skip
"""Where the authors' tables differ once a class beyond the basic seven is in the vocabulary."""


def links(name: str, vocabulary: Vocabulary) -> dict[str, tuple[int, ...]]:
    """The table `name` for this vocabulary's expressions, in the variant of its class count."""
    if name not in TABLES:
        raise ValueError(f"no prior table named {name!r}; known: {', '.join(TABLES)}")
    table = dict(TABLES[name])
    if not set(vocabulary.expressions) <= set(BASIC_EXPRESSIONS):
        table.update(_ELEVEN_CLASSES.get(name, {}))
    return {expression: table.get(expression, ()) for expression in vocabulary.expressions}


def prior_matrix(config: MappingConfig, vocabulary: Vocabulary) -> Tensor:
    """P, float32 (E A), as the configuration asks."""
    if config.matrix is not None:
        return torch.tensor(config.matrix, dtype=torch.float32)
    if config.prior == "uniform":
        return _uniform(config, vocabulary)
    table = links("emfacs" if config.prior == "scrambled" else config.prior, vocabulary)
    matrix = torch.tensor(
        [[config.on if au in table[name] else config.off for au in vocabulary.aus] for name in vocabulary.expressions]
    )
    if config.prior == "scrambled":
        order = torch.randperm(len(vocabulary.aus), generator=torch.Generator().manual_seed(config.seed))
        matrix = matrix[:, order]
    return matrix


def _uniform(config: MappingConfig, vocabulary: Vocabulary) -> Tensor:
    """EMFACS's total mass spread evenly over the non-neutral cells: the same pull, no information."""
    matrix = prior_matrix(config.model_copy(update={"prior": "emfacs"}), vocabulary)
    learned = torch.tensor([name != NEUTRAL for name in vocabulary.expressions])
    if learned.any():
        matrix[learned] = matrix[learned].mean()
    return matrix


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
