"""Priors over (expression, AU) pairs: tables of links (method, section 4).

A prior is a matrix P (E A), made by `ssm.model.mapping`: `on` where a table links the pair, `off` elsewhere; the
neutral row is all `off`.
Sources: the authors' released constants; EMFACS (Ekman & Friesen), with the authors' rows for MAFW's four classes.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from ssm.labels.vocabulary import BASIC_EXPRESSIONS, Vocabulary

PRIOR_OFF = 0.02
"""The prior of a pair that no link joins."""

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
