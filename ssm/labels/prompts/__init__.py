"""Prompt styles: named sets of description texts, one per AU and per expression, read from JSON (section 7).

A style is a table, never a branch: the shipped ones lie beside this file, one of your own is a path. Format:
`{"name": "...", "about": "...", "aus": {"1": "..."}, "expressions": {"happiness": "..."}}`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from ssm.labels.vocabulary import ACTION_UNITS, EXPRESSIONS, Vocabulary

_FOLDER = Path(__file__).parent
Key = TypeVar("Key", int, str)


@dataclass(frozen=True)
class PromptStyle:
    """Descriptions by AU number and by expression name."""

    name: str
    aus: Mapping[int, str]
    expressions: Mapping[str, str]

    def texts(self, vocabulary: Vocabulary) -> Descriptions:
        """The vocabulary's descriptions in column order; ValueError names a label the style lacks."""
        return Descriptions(
            expressions=_choose(self.expressions, vocabulary.expressions, "expression", self.name),
            aus=_choose(self.aus, vocabulary.aus, "AU", self.name),
        )


@dataclass(frozen=True)
class Descriptions:
    """One text per expression and per AU, in the column order of a vocabulary."""

    expressions: tuple[str, ...]
    aus: tuple[str, ...]

    def scrambled(self, seed: int) -> Descriptions:
        """The same texts under other labels: a permutation without fixed points within each task."""
        import torch  # only a scrambled style pays for it

        generator = torch.Generator().manual_seed(seed)
        cycles = (torch.randperm(len(texts), generator=generator).tolist() for texts in (self.expressions, self.aus))
        return Descriptions(_moved(self.expressions, next(cycles)), _moved(self.aus, next(cycles)))


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
    aus = _table(content, "aus", path, text)
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
    return PromptStyle(name, {int(key): value for key, value in aus.items()}, expressions)


def _table(content: dict[str, Any], field: str, path: Path, text: str) -> dict[str, str]:
    table = content.get(field)
    if not isinstance(table, dict):
        raise ValueError(f"{path}: {field!r} must map labels to texts; it is {type(table).__name__}")
    for key, value in table.items():
        if not isinstance(value, str) or not value.strip():
            raise ValueError(
                f"{_place(path, text, key)}: the text of {key!r} is {value!r}; it must be a non-empty string"
            )
    return table


def _place(path: Path, text: str, key: str) -> str:
    """Path and line of a key, for messages."""
    quoted = json.dumps(key, ensure_ascii=False)
    lines = [number for number, line in enumerate(text.splitlines(), start=1) if quoted in line]
    return f"{path}, line {lines[0]}" if lines else str(path)


def _choose(table: Mapping[Key, str], labels: Sequence[Key], what: str, style: str) -> tuple[str, ...]:
    for label in labels:
        if label not in table:
            raise ValueError(f"prompt style {style!r} lacks a text for {what} {label!r}")
    return tuple(table[label] for label in labels)


def _moved(texts: tuple[str, ...], cycle: list[int]) -> tuple[str, ...]:
    """Texts moved along one cycle of all positions, so that no label keeps its own (unless it is alone)."""
    moved = dict(zip(cycle, cycle[1:] + cycle[:1], strict=True))
    return tuple(texts[moved[index]] for index in range(len(texts)))
