"""Answers to uploads as JSON, as lines of JSON while they come, or as CSV, with the column names of every table."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Any

from serve.errors import Refusal
from serve.video import Start
from ssm.labels import ACTION_UNITS
from ssm_platform.models import ModelDescription
from ssm_platform.read import Row, Window, columns, csv_lines, record

JSON, CSV, LINES = "application/json", "text/csv", "application/x-ndjson"
KINDS = (JSON, CSV, LINES)


def negotiate(accept: str | None) -> str:
    """The kind of answer a client takes, by the `Accept` header; JSON where it does not care. 406 where none fits."""
    offers = []
    for place, offer in enumerate((accept or JSON).split(",")):
        kind, *parameters = (part.strip().lower() for part in offer.split(";"))
        offers.append((-_quality(parameters), place, kind))
    for quality, _, kind in sorted(offers):
        if quality == 0:
            continue
        if kind in KINDS:
            return kind
        if kind in ("*/*", "application/*"):
            return JSON
        if kind == "text/*":
            return CSV
    raise Refusal(406, f"answers are given as one of {', '.join(KINDS)}")


def model_facts(name: str, model: ModelDescription) -> dict[str, Any]:
    """A model as clients see it."""
    units = [ACTION_UNITS[number] for number in model.vocabulary.aus]
    return {
        "name": name,
        "version": model.version,
        "frames": model.frames,
        "image_size": model.preprocessing.image_size,
        "aus": [{"code": unit.code, "number": unit.number, "name": unit.name} for unit in units],
        "expressions": list(model.vocabulary.expressions),
        "preprocessing": model.preprocessing.fingerprint(),
        "precision": model.precision,
        "rule": {ACTION_UNITS[au].code: rule.model_dump() for au, rule in model.rule.rules.items()},
        "rule_fitted": model.fitted,
    }


def start_facts(name: str, start: Start) -> dict[str, Any]:
    """The head of an answer: model, input, columns."""
    model = start.served.description
    return {
        "model": model_facts(name, model),
        "video": start.info.model_dump(mode="json"),
        "columns": columns(model.vocabulary),
    }


def window_facts(window: Window, model: ModelDescription) -> dict[str, Any]:
    """The expression over a few frames and what each AU adds to it."""
    names, codes = model.vocabulary.expressions, model.vocabulary.au_codes
    reasons = [] if window.why is None else [dict(zip(codes, _plain(row), strict=True)) for row in window.why]
    return {
        "face_id": window.face_id,
        "start": window.start,
        "frames": window.frames,
        "expression": dict(zip(names, _plain(window.expression), strict=True)),
        "why": dict(zip(names, reasons, strict=False)),
    }


def lines(results: Iterable[Row | Window], model: ModelDescription) -> str:
    """Results as lines of JSON."""
    return "".join(_line(result, model) for result in results)


def line(kind: str, facts: dict[str, Any]) -> str:
    """One line of JSON."""
    return json.dumps({"type": kind, **facts}, separators=(",", ":")) + "\n"


def csv(results: Iterable[Row | Window], model: ModelDescription) -> str:
    """Results as CSV lines; windows have no place in a table."""
    return csv_lines((result for result in results if isinstance(result, Row)), model.vocabulary)


def document(name: str, start: Start, results: Sequence[Row | Window]) -> bytes:
    """Everything as one JSON document."""
    model = start.served.description
    rows = [record(result, model.vocabulary) for result in results if isinstance(result, Row)]
    windows = [window_facts(result, model) for result in results if isinstance(result, Window)]
    return json.dumps({**start_facts(name, start), "rows": rows, "windows": windows}, separators=(",", ":")).encode()


def _line(result: Row | Window, model: ModelDescription) -> str:
    if isinstance(result, Row):
        return line("row", record(result, model.vocabulary))
    return line("window", window_facts(result, model))


def _plain(values: Iterable[Any]) -> list[float]:
    return [round(float(value), 5) for value in values]


def _quality(parameters: Sequence[str]) -> float:
    for parameter in parameters:
        if parameter.startswith("q="):
            try:
                return float(parameter[2:])
            except ValueError:
                return 0.0
    return 1.0
