"""What a sweep varies: fields of a recipe, each with choices or a range, from a file or from the command line.

    model.text.style: [facs, label, narrative]              # choices
    model.mapping.off: {low: 0.005, high: 0.1, log: true}   # a range; whole numbers where the field takes no others

Everything is checked before anything starts: a field that the recipe lacks, an empty list, an inverted range, a value
that the recipe refuses, a prompt style without a text for a label. Errors name file and line (or the argument). Knows
nothing of Ray.
"""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from ssm.model import descriptions, prior_matrix
from ssm_platform.base import OverrideError, override, parse_value
from ssm_platform.runs import RunConfig

Setting = dict[str, Any]
"""Values by dotted field."""

_OURS = ("name", "storage")
_SHARED = ("root", "manifest", "synthetic", "reader", "options", "name")  # of a corpus
_ATTEMPTS = 50  # draws per new setting: a small space runs out of them
_FORMS = "a list of choices, or {low: .., high: ..} with log: true where wanted"


class SpaceError(ValueError):
    """A space that cannot be searched; the message begins with file and line, or the argument."""


@dataclass(frozen=True)
class Choices:
    """One of these values."""

    values: tuple[Any, ...]

    def probes(self) -> tuple[Any, ...]:
        """Values that the recipe must accept before the sweep starts."""
        return self.values

    def draw(self, generator: np.random.Generator) -> Any:
        """One value."""
        return self.values[int(generator.integers(len(self.values)))]


@dataclass(frozen=True)
class Range:
    """Any value from `low` to `high`, both included."""

    low: float
    high: float
    log: bool = False
    integer: bool = False

    def probes(self) -> tuple[Any, ...]:
        """Values that the recipe must accept before the sweep starts."""
        return (int(self.low), int(self.high)) if self.integer else (self.low, self.high)

    def draw(self, generator: np.random.Generator) -> Any:
        """One value, uniform or log-uniform."""
        if self.integer and not self.log:
            return int(generator.integers(int(self.low), int(self.high) + 1))
        low, high = (math.log(self.low), math.log(self.high)) if self.log else (self.low, self.high)
        value = float(generator.uniform(low, high))
        value = float(f"{math.exp(value) if self.log else value:.4g}")  # as many digits as anyone will write down
        value = min(max(value, self.low), self.high)
        return round(value) if self.integer else value


Dimension = Choices | Range


@dataclass(frozen=True)
class Space:
    """The dimensions of a sweep by field."""

    dimensions: dict[str, Dimension]

    def grid(self) -> list[Setting]:
        """Every combination of the choices. SpaceError where a dimension is a range."""
        ranges = [field for field, dimension in self.dimensions.items() if isinstance(dimension, Range)]
        if ranges:
            raise SpaceError(f"{ranges[0]} is a range: a grid needs choices, or search with random or bayes")
        names = list(self.dimensions)
        columns = [self.dimensions[name].probes() for name in names]
        return [dict(zip(names, values, strict=True)) for values in itertools.product(*columns)]

    def random(self, count: int, seed: int) -> list[Setting]:
        """At most `count` different settings, drawn independently; fewer where the space has no more.

        A pure function of its arguments, and the settings of a smaller count are the first ones of a larger.
        """
        generator = np.random.default_rng(seed)
        found: dict[str, Setting] = {}
        for _ in range(_ATTEMPTS * count):
            setting = {name: one.draw(generator) for name, one in self.dimensions.items()}
            found.setdefault(key(setting), setting)
            if len(found) == count:
                break
        return list(found.values())


def read_space(path: Path, base: RunConfig) -> Space:
    """The space of a YAML file. SpaceError names file and line."""
    try:
        root = yaml.compose(path.read_text(), Loader=yaml.SafeLoader)
    except (OSError, UnicodeDecodeError) as error:
        raise SpaceError(f"{path}: cannot be read: {error}") from error
    except yaml.YAMLError as error:
        raise SpaceError(f"{path}: not YAML: {error}") from error
    if not isinstance(root, yaml.MappingNode) or not root.value:
        raise SpaceError(f"{path}:1: expected fields of a recipe, each with {_FORMS}")
    dimensions: dict[str, Dimension] = {}
    for key, node in root.value:
        where, field = f"{path}:{key.start_mark.line + 1}", str(key.value)
        if field in dimensions:
            raise SpaceError(f"{where}: {field} is listed twice")
        value = yaml.safe_load(yaml.serialize(node, Dumper=yaml.SafeDumper))
        dimensions[field] = _dimension(base, field, value, where)
        _check(base, field, dimensions[field], where)
    return Space(dimensions)


def parse_space(arguments: Sequence[str], base: RunConfig) -> Space:
    """The space of `field=a,b,c`, `field=low..high` and `field=log:low..high` words. SpaceError names the word."""
    dimensions: dict[str, Dimension] = {}
    for word in arguments:
        field, equals, text = word.partition("=")
        if not equals or not text:
            raise SpaceError(f"{word!r}: write field=choice,choice or field=low..high")
        if field in dimensions:
            raise SpaceError(f"{word!r}: {field} is given twice")
        dimensions[field] = _dimension(base, field, _word_value(text), repr(word))
        _check(base, field, dimensions[field], repr(word))
    return Space(dimensions)


def key(setting: Setting) -> str:
    """Names a setting: equal for equal settings."""
    return json.dumps(setting, sort_keys=True)


def _word_value(text: str) -> Any:
    log = text.startswith("log:")
    low, _, high = (parse_value(end) for end in text.removeprefix("log:").partition(".."))
    if log or (isinstance(low, (int, float)) and isinstance(high, (int, float))):
        return {"low": low, "high": high, "log": log}
    return [parse_value(choice) for choice in text.split(",")]


def _dimension(base: RunConfig, field: str, value: Any, where: str) -> Dimension:
    if isinstance(value, list):
        if not value:
            raise SpaceError(f"{where}: {field} has no choices; give at least one")
        return Choices(tuple(value))
    if isinstance(value, dict):
        return _range(base, field, value, where)
    raise SpaceError(f"{where}: {field} is {value!r}; expected {_FORMS}")


def _range(base: RunConfig, field: str, value: dict[str, Any], where: str) -> Range:
    unknown = set(value) - {"low", "high", "log"}
    if unknown or not {"low", "high"} <= set(value):
        raise SpaceError(f"{where}: {field}: {sorted(unknown) or value} is no range; expected {_FORMS}")
    low, high, log = value["low"], value["high"], bool(value.get("log"))
    for name, end in (("low", low), ("high", high)):
        if isinstance(end, bool) or not isinstance(end, (int, float)) or not math.isfinite(end):
            raise SpaceError(f"{where}: {field}: {name} is {end!r}; must be a number")
    if not low < high:
        raise SpaceError(f"{where}: {field}: low {low} must be below high {high}")
    if log and low <= 0:
        raise SpaceError(f"{where}: {field}: low {low} must be above 0 for a log range")
    whole = float(low).is_integer() and float(high).is_integer()
    return Range(float(low), float(high), log, whole and not _accepts(base, field, low + (high - low) / math.e))


def _accepts(base: RunConfig, field: str, value: Any) -> bool:
    try:
        override(base, {field: value})
    except OverrideError:
        return False
    return True


def _check(base: RunConfig, field: str, dimension: Dimension, where: str) -> None:
    """The recipe must have the field, leave it to a sweep, and accept every choice and both ends."""
    if field in _OURS:
        raise SpaceError(f"{where}: {field} is set by the sweep and cannot be varied")
    if field.startswith("data.corpora.") and field.split(".")[3:4] and field.split(".")[3] in _SHARED:
        raise SpaceError(f"{where}: {field} cannot be varied: all trials share the corpora; sweep each by itself")
    for value in dimension.probes():
        try:
            model = override(base, {field: value}).model
            if field.startswith("model.") and model.text.tower is not None:
                descriptions(model.text, model.vocabulary)
                prior_matrix(model.mapping, model.vocabulary)
        except ValueError as error:
            raise SpaceError(f"{where}: {error}") from error
