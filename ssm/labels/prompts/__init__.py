"""Prompt styles: named sets of description texts, one per AU and per expression, read from JSON (section 7).

A style is a table, never a branch: the shipped ones lie beside this file, one of your own is a path. Format:
`{"name": "...", "about": "...", "aus": {"1": "..."}, "expressions": {"happiness": "..."}}`; an AU's value may be a list
of descriptions, of the same number for every AU.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any, TypeVar

from ssm.labels.vocabulary import ACTION_UNITS, EXPRESSIONS, Vocabulary

_FOLDER = Path(__file__).parent
Key = TypeVar("Key", int, str)
Text = TypeVar("Text")


@dataclass(frozen=True)
class PromptStyle:
    """Descriptions by AU number and by expression name."""

    name: str
    aus: Mapping[int, str | tuple[str, ...]]
    expressions: Mapping[str, str]

    def texts(self, vocabulary: Vocabulary) -> Descriptions:
        """The vocabulary's descriptions in column order; ValueError names a label the style lacks."""
        expressions = _choose(self.expressions, vocabulary.expressions, "expression", self.name)
        aus = [_listed(one) for one in _choose(self.aus, vocabulary.aus, "AU", self.name)]
        for number, texts in zip(vocabulary.aus, aus, strict=True):
            if len(texts) != len(aus[0]):
                raise ValueError(
                    f"prompt style {self.name!r} has {len(texts)} texts for AU {number} and {len(aus[0])} for AU "
                    f"{vocabulary.aus[0]}: give every AU as many"
                )
        return Descriptions(expressions, tuple(chain.from_iterable(aus)), len(aus[0]) if aus else 1)


@dataclass(frozen=True)
class Descriptions:
    """One text per expression and one or several per AU, in the column order of a vocabulary."""

    expressions: tuple[str, ...]
    aus: tuple[str, ...]  # those of one AU together
    per_au: int = 1

    def scrambled(self, seed: int) -> Descriptions:
        """The same texts under other labels: a permutation without fixed points within each task."""
        import torch  # only a scrambled style pays for it

        generator = torch.Generator().manual_seed(seed)
        aus = [self.aus[first : first + self.per_au] for first in range(0, len(self.aus), self.per_au)]
        of_expressions, of_aus = (torch.randperm(len(t), generator=generator).tolist() for t in (self.expressions, aus))
        moved = chain.from_iterable(_moved(aus, of_aus))
        return Descriptions(_moved(self.expressions, of_expressions), tuple(moved), self.per_au)


def style_names() -> list[str]:
    """Names of the shipped styles."""
    return sorted(path.stem for path in _FOLDER.glob("*.json"))


def load_style(source: str | Path) -> PromptStyle:
    """A shipped style by name, or the file at a path."""
    if isinstance(source, Path):
        return _read(source)
    if source not in style_names():
        raise ValueError(
            f"no prompt style named {source!r}; shipped: {', '.join(style_names())} (a file of yours: style_file)"
        )
    return _read(_FOLDER / f"{source}.json")


def _read(path: Path) -> PromptStyle:
    try:
        text = path.read_text(encoding="utf-8")
        content = json.loads(text)
    except OSError as error:
        raise ValueError(f"{path}: cannot read the prompt style: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: the prompt style is not UTF-8: {error}") from error
    except json.JSONDecodeError as error:
        raise ValueError(f"{path}, line {error.lineno}: not JSON: {error.msg}") from error
    unknown = set(content) - {"name", "about", "aus", "expressions"} if isinstance(content, dict) else {"(no object)"}
    if unknown:
        raise ValueError(f"{path}: unknown {sorted(unknown)}; a style has name, about, aus and expressions")
    aus = _table(content, "aus", path, text, lists=True)
    for key in aus:
        if key not in {str(number) for number in ACTION_UNITS}:
            raise ValueError(
                f"{_place(path, text, key)}: unknown AU {key!r}; known: {', '.join(map(str, ACTION_UNITS))}"
            )
    expressions = _table(content, "expressions", path, text)
    for key in expressions:
        if key not in EXPRESSIONS:
            raise ValueError(f"{_place(path, text, key)}: unknown expression {key!r}; known: {', '.join(EXPRESSIONS)}")
    name = str(content.get("name", path.stem))
    listed = {int(key): value if isinstance(value, str) else tuple(value) for key, value in aus.items()}
    return PromptStyle(name, listed, expressions)


def _table(content: dict[str, Any], field: str, path: Path, text: str, lists: bool = False) -> dict[str, Any]:
    table = content.get(field)
    if not isinstance(table, dict):
        raise ValueError(f"{path}: {field!r} must map labels to texts; it is {type(table).__name__}")
    for key, value in table.items():
        texts = value if lists and isinstance(value, list) else [value]
        if not texts or not all(isinstance(one, str) and one.strip() for one in texts):
            rule = "a non-empty string, or a list of such" if lists else "a non-empty string"
            raise ValueError(f"{_place(path, text, key)}: the text of {key!r} is {value!r}; it must be {rule}")
    return table


def _place(path: Path, text: str, key: str) -> str:
    """Path and line of a key, for messages."""
    quoted = json.dumps(key, ensure_ascii=False)
    lines = [number for number, line in enumerate(text.splitlines(), start=1) if quoted in line]
    return f"{path}, line {lines[0]}" if lines else str(path)


def _choose(table: Mapping[Key, Text], labels: Sequence[Key], what: str, style: str) -> tuple[Text, ...]:
    for label in labels:
        if label not in table:
            raise ValueError(f"prompt style {style!r} lacks a text for {what} {label!r}")
    return tuple(table[label] for label in labels)


def _listed(texts: str | tuple[str, ...]) -> tuple[str, ...]:
    return (texts,) if isinstance(texts, str) else texts


def _moved(texts: Sequence[Text], cycle: list[int]) -> tuple[Text, ...]:
    """Texts moved along one cycle of all positions, so that no label keeps its own (unless it is alone)."""
    moved = dict(zip(cycle, cycle[1:] + cycle[:1], strict=True))
    return tuple(texts[moved[index]] for index in range(len(texts)))
