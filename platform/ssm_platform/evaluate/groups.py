"""The same figures on groups of people: sex, age band, skin tone, or whatever a table of the user's says of them.

The table is CSV: a column `subject`, where corpora share names also `corpus`, and a column per attribute. Nobody's
group is guessed: who is not in the table stands under "not said".
"""

from __future__ import annotations

import csv
import difflib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ssm.interface import DecisionRule
from ssm.metrics import (
    AffectTable,
    AUTable,
    confusion_by_subject,
    correlation_interval,
    hits_by_subject,
    macro_f1,
    mean_area,
    mean_ccc,
    scores_by_subject,
    share_interval,
    sums_by_subject,
    unweighted_recall,
)
from ssm_platform.evaluate.predictions import Table, Tables
from ssm_platform.evaluate.scores import GroupScore, Interval

NOT_SAID = "not said"
_KEYS = ("corpus", "subject")
_MOST = 20  # distinct values of a column: more are numbers that nobody put into bands


@dataclass(frozen=True)
class People:
    """What a table says of people: by column, the group of each (corpus or "", subject)."""

    columns: dict[str, dict[tuple[str, str], str]]

    def group(self, column: str, corpus: str, subject: str) -> str:
        """That person's group."""
        known = self.columns[column]
        return known.get((corpus, subject)) or known.get(("", subject)) or NOT_SAID


def read_people(path: Path, columns: Sequence[str] = ()) -> People:
    """The table at `path`, all columns or those named; ValueError names path, line, value and rule."""
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            rows = csv.DictReader(file, strict=True)
            header = rows.fieldnames or []
            if "subject" not in header:
                raise ValueError(f"{path}:1: columns are {', '.join(header) or '(none)'}; one must be subject")
            if twice := [name for name in header if name and header.count(name) > 1]:
                first = header.index(twice[0]) + 1
                second = header.index(twice[0], first) + 1
                raise ValueError(
                    f"{path}:1: columns {first} and {second} are both {twice[0]!r}; a column is there once"
                )
            chosen = _chosen(path, header, columns)
            return People(_read(path, rows, chosen))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"{path}: a table of people is a CSV file in UTF-8 ({error})") from error


def _chosen(path: Path, header: Sequence[str], columns: Sequence[str]) -> list[str]:
    there = [name for name in header if name not in _KEYS]
    for column in columns:
        if column not in there:
            close = difflib.get_close_matches(column, there, n=1, cutoff=0.4)
            hint = f"did you mean {close[0]!r}? " if close else ""
            raise ValueError(f"{path}:1: no column {column!r}; {hint}there is: {', '.join(there) or 'none'}")
    return list(columns) or there


def _read(path: Path, rows: csv.DictReader[str], chosen: Sequence[str]) -> dict[str, dict[tuple[str, str], str]]:
    found: dict[str, dict[tuple[str, str], str]] = {column: {} for column in chosen}
    seen: dict[tuple[str, str], int] = {}
    for row in rows:
        subject = (row["subject"] or "").strip()
        if not subject or None in row:
            raise ValueError(f"{path}:{rows.line_num}: a row needs a subject, and no more cells than the header has")
        if any("\n" in (cell or "") for cell in row.values()):
            raise ValueError(f"{path}:{rows.line_num}: a cell has a line break; is a quote open above?")
        key = ((row.get("corpus") or "").strip(), subject)
        if key in seen:
            raise ValueError(f"{path}:{rows.line_num}: subject {subject!r} stands in line {seen[key]} already")
        seen[key] = rows.line_num
        for column in chosen:
            if value := (row[column] or "").strip():
                found[column][key] = value
    for column, groups in found.items():
        if (distinct := len(set(groups.values()))) > _MOST:
            raise ValueError(f"{path}: column {column!r} has {distinct} values; groups are at most {_MOST}: use bands")
    return found


def group_scores(tables: Tables, rule: DecisionRule, people: People) -> list[GroupScore]:
    """Corpus by corpus, column by column, group by group. ValueError where the table knows nobody of any corpus."""
    scores = [score for corpus, table in tables.items() for score in _of_corpus(corpus, table, rule, people)]
    if not scores:
        someone = next(iter(tables.values())).subjects[0]
        raise ValueError(f"the table of people names none of the test subjects (the first is {someone!r})")
    return scores


def _of_corpus(corpus: str, table: Table, rule: DecisionRule, people: People) -> Iterator[GroupScore]:
    """Nothing of a column that says nothing of anybody here."""
    for column in people.columns:
        groups = np.array([people.group(column, corpus, subject) for subject in table.subjects])
        if (groups == NOT_SAID).all():
            continue
        for group in sorted(set(groups.tolist()), key=lambda name: (name == NOT_SAID, name)):
            for measure, score in _scores(table, rule, groups == group):
                yield GroupScore(
                    corpus=corpus, column=column, group=group, measure=measure, subjects=int((groups == group).sum()),
                    score=score,
                )  # fmt: skip


def _scores(table: Table, rule: DecisionRule, chosen: NDArray[np.bool_]) -> Iterator[tuple[str, Interval]]:
    """Figures on the subjects (S) that are chosen."""
    if isinstance(table, AUTable):
        hits = hits_by_subject(table, rule.select(table.aus).apply(table.probabilities, table.lengths))
        yield "macro F1", Interval.of(share_interval(hits[chosen], macro_f1))
        yield "mean AUC", Interval.of(share_interval(scores_by_subject(table)[chosen], mean_area))
    elif isinstance(table, AffectTable):
        yield "mean CCC", Interval.of(correlation_interval(sums_by_subject(table)[chosen], mean_ccc))
    else:
        yield "UAR", Interval.of(share_interval(confusion_by_subject(table)[chosen], unweighted_recall))
