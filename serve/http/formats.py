"""Answers to uploads as JSON, as lines of JSON while they come, or as CSV, with the column names of every table."""

from __future__ import annotations

import json
from base64 import b64encode
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from serve.errors import Refusal
from serve.replicas import Answered, Result, Start
from ssm.labels import ACTION_UNITS
from ssm_platform.models import ModelDescription
from ssm_platform.read import FacePlaces, Place, Row, Window, columns, csv_lines, record

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
        "affect": list(model.vocabulary.affect),
        "preprocessing": model.preprocessing.fingerprint(),
        "precision": model.precision,
        "rule": {ACTION_UNITS[au].code: rule.model_dump() for au, rule in model.rule.rules.items()},
        "rule_fitted": model.fitted,
        "uncertainty": model.evidence,
        "where": model.places,
        "abstention": None if model.abstention is None else model.abstention.model_dump(),
        "notice": model.notice,
    }


def live_facts(name: str, model: ModelDescription, state: Mapping[str, Any]) -> dict[str, Any]:
    """The head of a camera's answers: model, columns, the session's id."""
    return {
        "model": model_facts(name, model),
        "columns": columns(model.vocabulary, model.evidence),
        "request_id": state["request_id"],
    }


def frame_facts(answer: Answered, dropped: int, model: ModelDescription) -> dict[str, Any]:
    """A camera's frame: rows as everywhere, the window that ends with it, and how many frames were dropped so far."""
    facts = {"frame": answer.frame.number, "timestamp": answer.frame.timestamp, "dropped": dropped}
    if answer.refusal is not None:
        return {**facts, "status": answer.refusal.status, "error": answer.refusal.message}
    rows = [record(result, model.vocabulary, model.evidence) for result in answer.results if isinstance(result, Row)]
    windows = [window_facts(result, model) for result in answer.results if isinstance(result, Window)]
    return {**facts, "width": answer.width, "height": answer.height, "rows": rows, "windows": windows}


def start_facts(name: str, start: Start, model: ModelDescription) -> dict[str, Any]:
    """The head of an answer: model, input, columns."""
    return {
        "model": model_facts(name, model),
        "video": start.info.model_dump(mode="json"),
        "columns": columns(model.vocabulary, model.evidence),
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
        **_affect_why(window, model),
    }


def _affect_why(window: Window, model: ModelDescription) -> dict[str, Any]:
    """What each AU adds to valence and arousal before they are brought into [-1, 1]; nothing without a label head."""
    if window.affect_why is None:
        return {}
    codes = model.vocabulary.au_codes
    terms = (dict(zip(codes, _plain(row), strict=True)) for row in window.affect_why)
    return {"affect_why": dict(zip(model.vocabulary.affect, terms, strict=True))}


def where_facts(found: FacePlaces, model: ModelDescription) -> dict[str, Any]:
    """Where each AU of a face was looked for."""
    return {"face_id": found.face_id, "aus": dict(zip(model.vocabulary.au_codes, map(_place, found.aus), strict=True))}


def _place(place: Place) -> dict[str, Any]:
    seen = place.seen
    return {
        "frame": place.frame,
        "timestamp": None if seen.timestamp is None else round(seen.timestamp, 5),
        "probability": round(place.probability, 5),
        "box": _plain(seen.box),
        "square": dict(zip(seen.square._fields, _plain(seen.square), strict=True)),
        "map": [_plain(row) for row in place.shares],
    }


def line(kind: str, facts: dict[str, Any]) -> str:
    """One line of JSON."""
    return json.dumps({"type": kind, **facts}, separators=(",", ":")) + "\n"


def lines(results: Iterable[Result], model: ModelDescription) -> str:
    """Results as lines of JSON."""
    return "".join(_line_of(result, model) for result in results)


def _line_of(result: Result, model: ModelDescription) -> str:
    if isinstance(result, Row):
        return line("row", record(result, model.vocabulary, model.evidence))
    if isinstance(result, Window):
        return line("window", window_facts(result, model))
    if isinstance(result, FacePlaces):
        return line("where", where_facts(result, model))
    return line("picture", {"frame": result.frame, "jpeg": b64encode(result.jpeg).decode()})


def csv(results: Iterable[Result], model: ModelDescription) -> str:
    """Results as CSV lines; windows and maps have no place in a table."""
    rows = (result for result in results if isinstance(result, Row))
    return csv_lines(rows, model.vocabulary, model.evidence)


@dataclass
class Document:
    """Everything as one JSON document, written piece by piece as results come."""

    name: str
    start: Start
    model: ModelDescription
    rows: int = 0
    _rows: list[str] = field(default_factory=list)
    _windows: list[str] = field(default_factory=list)
    _where: list[str] = field(default_factory=list)

    def add(self, results: Sequence[Result]) -> None:
        """The next results."""
        for result in results:
            if isinstance(result, Row):
                self._rows.append(_dumped(record(result, self.model.vocabulary, self.model.evidence)))
                self.rows += 1
            elif isinstance(result, Window):
                self._windows.append(_dumped(window_facts(result, self.model)))
            elif isinstance(result, FacePlaces):
                self._where.append(_dumped(where_facts(result, self.model)))

    def content(self) -> bytes:
        """The whole document."""
        head = _dumped(start_facts(self.name, self.start, self.model))[:-1]
        where = f',"where":[{",".join(self._where)}]' if self.model.places else ""
        return f'{head},"rows":[{",".join(self._rows)}],"windows":[{",".join(self._windows)}]{where}}}'.encode()


def _dumped(facts: dict[str, Any]) -> str:
    return json.dumps(facts, separators=(",", ":"))


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
