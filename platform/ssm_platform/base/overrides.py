"""Command-line overrides for any frozen pydantic config: dotted fields in, a validated config out.

`--data.fe_batch=8`, `--data.fe_batch 8` and `--set data.fe_batch=8` are the same. A value is read as JSON, then as
a Python literal, else as text. Steps of a path are field names, keys of a dict field, or positions (or `name`s) in
a list. An unknown field is an error that names the nearest one. It knows no recipe and no run: those are given by
the caller.
"""

from __future__ import annotations

import ast
import difflib
import json
import types
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

Config = TypeVar("Config", bound=BaseModel)


class OverrideError(ValueError):
    """A command line that does not describe a config: an unknown field, a value out of range."""


@dataclass(frozen=True)
class FieldHelp:
    """One settable field: dotted path, type, default and description as `--help` prints them."""

    path: str
    type: str
    default: str
    description: str


def parse_value(text: str) -> Any:
    """`text` as JSON, else as a Python literal, else as itself (so `--name=first` needs no quotes)."""
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        pass
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text


def override(config: Config, assignments: Mapping[str, Any]) -> Config:
    """`config` with each dotted path set to its value; raises `OverrideError` for what does not fit."""
    tree = config.model_dump()
    for path, value in assignments.items():
        _assign(tree, type(config), path, value)
    try:
        return type(config).model_validate(tree)
    except ValidationError as error:
        raise OverrideError(explain(error)) from None


def as_items(model: type[BaseModel], values: Mapping[str, Any]) -> dict[str, Any]:
    """`values` with words between commas made the items of those fields that may hold several, and a word alone the one
    item of those that hold nothing else.
    """
    fields = model.model_fields
    return {
        name: _items(value, _options(fields[name].annotation)) if name in fields else value
        for name, value in values.items()
    }


def _items(value: Any, options: tuple[Any, ...]) -> Any:
    several = [option for option in options if _is_sequence(option)]
    if not several or str in options:
        return value
    if isinstance(value, str) and ("," in value or len(several) == len(options)):
        return [parse_value(word.strip()) for word in value.split(",")]
    alone = isinstance(value, (int, float)) and not isinstance(value, bool) and len(several) == len(options)
    return [value] if alone else value


def _options(annotation: Any) -> tuple[Any, ...]:
    """What a value may be besides None."""
    options = get_args(annotation) if get_origin(annotation) in (Union, types.UnionType) else (annotation,)
    return tuple(option for option in options if option is not type(None))


def explain(error: ValidationError) -> str:
    """A validation error as one line per field: dotted path, value, rule."""
    lines = []
    for item in error.errors():
        path = ".".join(str(step) for step in item["loc"]) or "config"
        value = "" if item["type"] in ("missing", "extra_forbidden") else f" = {item['input']!r}"
        lines.append(f"{path}{value}: {item['msg']}")
    return "\n".join(lines)


def split_assignments(arguments: Sequence[str]) -> dict[str, Any]:
    """`--a.b=1 --c 2 --set d=3` as `{"a.b": 1, "c": 2, "d": 3}`; raises `OverrideError` for a stray word.

    A word that begins with `--` is the next field and never a value; write `--field=--text` for such a text.
    """
    assignments: dict[str, Any] = {}
    words = iter(arguments)
    for word in words:
        if not word.startswith("--"):
            raise OverrideError(f"unexpected argument {word!r}; a field is set by --field=value")
        text = next(words, "") if word == "--set" else word[2:]
        path, equals, value = text.partition("=")
        if not equals:
            value = "" if word == "--set" else next(words, "")
            if not value or value.startswith("--"):
                raise OverrideError(
                    f"{word} {text if word == '--set' else ''}".strip() + " has no value; write field=value"
                )
        assignments[path.replace("-", "_")] = parse_value(value)
    return assignments


def describe_fields(model: type[BaseModel], prefix: str = "") -> Iterator[FieldHelp]:
    """Every settable leaf of `model`, depth first; the fields of list items are shown under `N`."""
    for name, info in model.model_fields.items():
        path = f"{prefix}{name}"
        nested = _nested_model(info.annotation)
        if nested is None:
            yield FieldHelp(path, _type_name(info.annotation), _default(info), info.description or "")
            continue
        if _is_optional(info.annotation) or _is_sequence(info.annotation):
            yield FieldHelp(path, _type_name(info.annotation), _default(info), info.description or "")
        step = ".N." if _is_sequence(info.annotation) else "."
        yield from describe_fields(nested, path + step)


def format_fields(model: type[BaseModel]) -> str:
    """The fields of `model` as the second half of `--help`."""
    lines = []
    for field in describe_fields(model):
        lines.append(f"  --{field.path}=<{field.type}>  (default: {field.default})")
        lines.append(f"      {field.description}")
    return "\n".join(lines)


def _assign(tree: Any, model: type[BaseModel] | None, path: str, value: Any) -> None:
    steps = path.split(".")
    for position, step in enumerate(steps):
        last, holder = position == len(steps) - 1, model if isinstance(tree, dict) else None
        if isinstance(tree, dict):
            key, model = _dict_step(tree, model, step, path)
        elif isinstance(tree, (list, tuple)):
            key = _list_step(tree, step, path)
        else:
            raise OverrideError(f"{path}: {'.'.join(steps[:position])} is {tree!r} and has no field {step!r}")
        if last:
            tree[key] = as_items(holder, {step: value})[step] if holder is not None else value
            return
        if isinstance(tree[key], tuple):
            tree[key] = list(tree[key])
        tree = tree[key]


def _dict_step(tree: dict[str, Any], model: type[BaseModel] | None, step: str, path: str) -> tuple[Any, Any]:
    """The key for `step` and the model beneath it; `model` is None inside a free-form dict."""
    if model is None:
        tree.setdefault(step, {})
        return step, None
    if step not in model.model_fields:
        raise OverrideError(f"unknown field {path!r}: {model.__name__} has no {step!r}{_nearest(step, model)}")
    nested = _nested_model(model.model_fields[step].annotation)
    return step, nested


def _list_step(items: Sequence[Any], step: str, path: str) -> int:
    names = [item.get("name") if isinstance(item, dict) else None for item in items]
    if step in names:
        return names.index(step)
    if step.isdigit() and int(step) < len(items):
        return int(step)
    known = ", ".join(str(name) for name in names if name) or f"0..{len(items) - 1}"
    raise OverrideError(f"{path}: no item {step!r}; known: {known}")


def _nearest(step: str, model: type[BaseModel]) -> str:
    close = difflib.get_close_matches(step, model.model_fields, n=1, cutoff=0.5)
    if close:
        return f"; did you mean {close[0]!r}?"
    return f"; known: {', '.join(model.model_fields)}"


def _nested_model(annotation: Any) -> type[BaseModel] | None:
    """The config class inside an annotation (bare, optional or in a sequence), if there is one."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    if get_origin(annotation) in (Union, types.UnionType, tuple, list):
        for part in get_args(annotation):
            if part is not Ellipsis and (found := _nested_model(part)) is not None:
                return found
    return None


def _is_sequence(annotation: Any) -> bool:
    return get_origin(annotation) in (tuple, list)


def _is_optional(annotation: Any) -> bool:
    return get_origin(annotation) in (Union, types.UnionType) and type(None) in get_args(annotation)


def _type_name(annotation: Any) -> str:
    if get_origin(annotation) is None and isinstance(annotation, type):
        return annotation.__name__
    return str(annotation).replace("typing.", "").replace("NoneType", "null").replace("None", "null")


def _default(info: FieldInfo) -> str:
    if info.is_required():
        return "required"
    value = info.get_default(call_default_factory=True)
    return "see its fields" if isinstance(value, BaseModel) else repr(value)
