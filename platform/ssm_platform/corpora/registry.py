"""The table of corpora, and reading one: every module of `readers` that defines ``CORPUS`` is a row, so adding one
is one file.

`read_corpus` refuses (`CorpusRefused`, a ValueError) what lost too much, leaks between parts, or holds nothing;
`survey` never does.
"""

from __future__ import annotations

import difflib
import importlib
import os
import pkgutil
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from ssm_platform.base import as_items, explain
from ssm_platform.corpora import readers
from ssm_platform.corpora.base import Corpus, ReadOptions, Report
from ssm_platform.corpora.tree import saw
from ssm_platform.records import Manifest, Reading, Record, Task, tasks_of, with_shared_videos

_SHOWN = 5


class CorpusRefused(ValueError):
    """A corpus that must not be trained on as it is; the message says why and shows the first issues."""


@lru_cache(maxsize=1)
def corpora() -> dict[str, Corpus]:
    """Every corpus by name."""
    names = (info.name for info in pkgutil.walk_packages(readers.__path__, f"{readers.__name__}."))
    found = [module.CORPUS for module in map(importlib.import_module, names) if hasattr(module, "CORPUS")]
    return {corpus.name: corpus for corpus in found}


def corpus_named(name: str) -> Corpus:
    """The corpus called ``name``; ValueError suggests the nearest and lists all."""
    table = corpora()
    if name not in table:
        close = difflib.get_close_matches(name.lower(), table, n=1, cutoff=0.5)
        hint = f"did you mean {close[0]!r}? " if close else ""
        raise ValueError(f"unknown corpus {name!r}; {hint}known: {', '.join(table)}")
    return table[name]


def read_corpus(name: str, root: str | Path, **options: Any) -> Reading:
    """Read corpus ``name`` below ``root`` (absolute or not). ``options`` are the fields of the corpus's options model.

    Raises ValueError for an unknown name, option or root, and `CorpusRefused` where the reading must not be used.
    """
    corpus = corpus_named(name)
    settings = settings_of(corpus, options)
    reading = survey(corpus, root, settings)
    reasons = refusal(corpus, reading, settings)
    if reasons:
        raise CorpusRefused(_refused(corpus, Path(root), reading, reasons))
    return reading


def settings_of(corpus: Corpus, options: Mapping[str, Any]) -> ReadOptions:
    """``options`` checked against the corpus's own fields; ValueError has a line per field: name, value, rule."""
    try:
        return corpus.options(**as_items(corpus.options, options))
    except ValidationError as error:
        raise ValueError(f"options of corpus {corpus.name!r}:\n{explain(error)}") from None


def survey(
    corpus: Corpus, root: str | Path, options: ReadOptions, on_record: Callable[[], None] | None = None
) -> Reading:
    """What is there, good and bad, without judging it. ``on_record`` is called after each record, to show progress."""
    root = Path(root).expanduser().absolute()
    if not root.is_dir():
        raise ValueError(f"{root}: no such folder; a corpus root is the folder that holds\n{corpus.layout}")
    if not os.access(root, os.R_OK | os.X_OK):
        raise ValueError(f"{root}: permission denied; the folder cannot be listed by this user")
    report = Report(root)
    labels, sieve = options.vocabulary(root), _Sieve(report, on_record)
    records = sieve.distinct(corpus.read(root, options, report))
    task: Task = next(iter(tasks_of(labels)), "fe")
    manifest = with_shared_videos(Manifest.build(root, corpus.name, task, labels, records))
    sieve.report_subject_leaks()
    return Reading(manifest, report.issues, report.rows)


def refusal(corpus: Corpus, reading: Reading, options: ReadOptions) -> list[str]:
    """Why ``reading`` must not be used; empty where it may."""
    reasons = []
    if not len(reading.manifest):
        root = reading.manifest.root
        reasons.append(f"no usable record; expected\n{corpus.layout}\nsaw in {root}\n{saw(Path(root))}\n")
    if reading.leaks and not options.allow_leaks:
        reasons.append(f"{len(reading.leaks)} leaks between parts (allow_leaks accepts them)")
    fraction = reading.lost / max(reading.rows, reading.lost, 1)
    if fraction > options.max_issue_fraction:
        limit = f"max_issue_fraction {options.max_issue_fraction:g}"
        reasons.append(f"{reading.lost} of {reading.rows} label rows have problems ({fraction:.1%}), over {limit}")
    if options.max_issues is not None and reading.lost > options.max_issues:
        reasons.append(f"{reading.lost} label rows have problems, over max_issues {options.max_issues}")
    return reasons


def _refused(corpus: Corpus, root: Path, reading: Reading, reasons: list[str]) -> str:
    serious = [issue for issue in reading.issues if issue.severity != "note"]
    lines = [
        f"{root}: {corpus.title} cannot be used: {'; '.join(reasons)}",
        *(f"  {issue}" for issue in serious[:_SHOWN]),
    ]
    if len(serious) > _SHOWN:
        lines.append(f"  ... and {len(serious) - _SHOWN} more: python jobs/doctor.py {root} --corpus {corpus.name}")
    return "\n".join(lines)


class _Sieve:
    """Lets each clip through once, and remembers in which parts each subject was seen."""

    def __init__(self, report: Report, on_record: Callable[[], None] | None) -> None:
        self._report = report
        self._on_record = on_record or (lambda: None)
        self._clips: set[str] = set()
        self._parts: dict[str, Counter[str]] = {}

    def distinct(self, records: Iterable[Record]) -> Iterator[Record]:
        """Records with a new name; a second one of the same name (two label files of one sequence) is reported."""
        for record in records:
            if record.clip in self._clips:
                by_frame = record.au_labels is not None or record.va_labels is not None
                count = record.length if by_frame else 1
                rule = "a clip is there once; the first is used"
                self._report.problem(self._report.root / record.source, None, record.clip, rule, count)
                continue
            self._clips.add(record.clip)
            if record.subject is not None and record.part is not None:
                self._parts.setdefault(record.subject, Counter())[record.part] += 1
            yield record
            self._on_record()

    def report_subject_leaks(self) -> None:
        """One leak for each subject that was seen in more than one part."""
        for subject, counts in self._parts.items():
            if len(counts) > 1:
                value = f"{subject}: " + ", ".join(f"{count} in {part}" for part, count in counts.items())
                self._report.leak(self._report.root, None, value, "a subject is in one part", counts.total())
