"""The label tables: facial action units, expressions, and which of them a corpus uses.

Everything that depends on labels (prompts, priors, heads, metrics, readers) looks them up here, by
AU number or expression name; nothing in the project branches on the name of a corpus.
Sources: Ekman & Friesen, Facial Action Coding System (names, muscles); the class list of MAFW; Russell's circumplex.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Self, TypeVar

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    field_validator,
    model_serializer,
)

Label = TypeVar("Label", int, str)


@dataclass(frozen=True)
class ActionUnit:
    """One FACS action unit: its number, FACS name, the muscles that move and the region of the face."""

    number: int
    name: str
    muscles: tuple[str, ...]
    region: str  # "brows", "eyes", "cheeks", "nose", "mouth", "chin", "jaw"

    @property
    def code(self) -> str:
        """The column name used in every table: ``AU`` and two digits, as OpenFace and py-feat write it."""
        return f"AU{self.number:02d}"


_TABLE = (
    ActionUnit(1, "inner brow raiser", ("frontalis, pars medialis",), "brows"),
    ActionUnit(2, "outer brow raiser", ("frontalis, pars lateralis",), "brows"),
    ActionUnit(4, "brow lowerer", ("corrugator supercilii", "depressor supercilii", "procerus"), "brows"),
    ActionUnit(5, "upper lid raiser", ("levator palpebrae superioris",), "eyes"),
    ActionUnit(6, "cheek raiser", ("orbicularis oculi, pars orbitalis",), "cheeks"),
    ActionUnit(7, "lid tightener", ("orbicularis oculi, pars palpebralis",), "eyes"),
    ActionUnit(9, "nose wrinkler", ("levator labii superioris alaeque nasi",), "nose"),
    ActionUnit(10, "upper lip raiser", ("levator labii superioris",), "mouth"),
    ActionUnit(12, "lip corner puller", ("zygomaticus major",), "mouth"),
    ActionUnit(14, "dimpler", ("buccinator",), "mouth"),
    ActionUnit(15, "lip corner depressor", ("depressor anguli oris",), "mouth"),
    ActionUnit(17, "chin raiser", ("mentalis",), "chin"),
    ActionUnit(20, "lip stretcher", ("risorius",), "mouth"),
    ActionUnit(23, "lip tightener", ("orbicularis oris",), "mouth"),
    ActionUnit(24, "lip pressor", ("orbicularis oris",), "mouth"),
    ActionUnit(25, "lips part", ("depressor labii inferioris", "relaxed mentalis"), "mouth"),
    ActionUnit(26, "jaw drop", ("relaxed masseter", "temporalis", "internal pterygoid"), "jaw"),
)

ACTION_UNITS: Mapping[int, ActionUnit] = MappingProxyType({unit.number: unit for unit in _TABLE})
"""Every AU the project knows, by number, in ascending order."""

BASIC_EXPRESSIONS = ("happiness", "sadness", "neutral", "anger", "surprise", "disgust", "fear")
"""The seven classes of DFEW and FERV39K, in the order of the released code and the prepared lists."""

EXPRESSIONS = (*BASIC_EXPRESSIONS, "contempt", "anxiety", "helplessness", "disappointment")
"""Every expression the project knows: the eleven single classes of MAFW."""

NEUTRAL = "neutral"
"""The expression without active AUs; the map never learns it (method, section 4)."""

OTHER = "other"
"""Faces of none of a corpus's classes. It has no prompt and no prior: only models without a text side can learn it."""

AFFECT = ("valence", "arousal")
"""How pleasant and how aroused a face looks, each in [-1, 1], in the order of every column."""

BP4D_AUS = (1, 2, 4, 6, 7, 10, 12, 14, 15, 17, 23, 24)
"""The twelve AUs in use on BP4D, in the order of the released heads and lists."""

DISFA_AUS = (1, 2, 4, 6, 9, 12, 25, 26)
"""The eight AUs in use on DISFA, likewise."""


class Vocabulary(BaseModel):
    """An ordered choice of labels: the columns of a head, of a label matrix, or of a corpus.

    Either side may be empty (an FE corpus labels no AU). Order matters: column ``i`` of any AU tensor
    is ``aus[i]``. Raises ``ValueError`` (pydantic) for an unknown or repeated label.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    aus: tuple[int, ...] = Field(default=(), description="AU numbers, in column order")
    expressions: tuple[str, ...] = Field(default=(), description="expression names, in column order")
    affect: tuple[str, ...] = Field(default=(), description="valence and arousal, or none of the two")

    @field_validator("aus")
    @classmethod
    def _known_aus(cls, aus: tuple[int, ...]) -> tuple[int, ...]:
        return _distinct_and_known(aus, ACTION_UNITS, "AU")

    @field_validator("expressions")
    @classmethod
    def _known_expressions(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        return _distinct_and_known(names, (*EXPRESSIONS, OTHER), "expression")

    @field_validator("affect")
    @classmethod
    def _both_or_none(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        if names not in ((), AFFECT):
            raise ValueError(f"affect is {names}: it is {AFFECT}, in this order, or empty")
        return names

    @model_serializer(mode="wrap")
    def _as_before(self, write: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Without affect it is written, and so hashed, as before there was any."""
        written: dict[str, Any] = write(self)
        return {name: value for name, value in written.items() if name != "affect" or value}

    @classmethod
    def union(cls, parts: Iterable[Vocabulary]) -> Self:
        """The labels of all ``parts`` in the project's global order, each once."""
        parts = list(parts)
        aus = {number for part in parts for number in part.aus}
        expressions = {name for part in parts for name in part.expressions}
        return cls(
            aus=tuple(number for number in ACTION_UNITS if number in aus),
            expressions=tuple(name for name in (*EXPRESSIONS, OTHER) if name in expressions),
            affect=AFFECT if any(part.affect for part in parts) else (),
        )

    @property
    def au_codes(self) -> tuple[str, ...]:
        """Column names of the AUs: ``AU01``, ``AU02``, ..."""
        return tuple(ACTION_UNITS[number].code for number in self.aus)

    @property
    def neutral_index(self) -> int | None:
        """Column of the neutral expression, or None where it is not in use."""
        return self.expressions.index(NEUTRAL) if NEUTRAL in self.expressions else None

    def au_columns(self, aus: Iterable[int]) -> list[int]:
        """Columns of ``aus`` in this vocabulary; ValueError names the one that is absent."""
        return [_index(self.aus, number, "AU") for number in aus]

    def expression_columns(self, expressions: Iterable[str]) -> list[int]:
        """Columns of ``expressions`` in this vocabulary; ValueError names the one that is absent."""
        return [_index(self.expressions, name, "expression") for name in expressions]

    def affect_columns(self, dimensions: Iterable[str]) -> list[int]:
        """Columns of valence and arousal in this vocabulary; ValueError names the one that is absent."""
        return [_index(self.affect, name, "dimension of affect") for name in dimensions]


def _distinct_and_known(labels: tuple[Label, ...], known: Iterable[Label], what: str) -> tuple[Label, ...]:
    known = list(known)
    for position, label in enumerate(labels):
        if label not in known:
            raise ValueError(f"unknown {what} {label!r}; known: {', '.join(map(str, known))}")
        if label in labels[:position]:
            raise ValueError(f"{what} {label!r} is listed twice")
    return labels


def _index(labels: tuple[Label, ...], label: Label, what: str) -> int:
    if label not in labels:
        raise ValueError(f"{what} {label!r} is not in this vocabulary: {', '.join(map(str, labels))}")
    return labels.index(label)
