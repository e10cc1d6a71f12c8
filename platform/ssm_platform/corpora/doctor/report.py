"""A diagnosis told: lines for a terminal; report.json, issues.csv (every bad line) and report.html for a folder."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from pathlib import Path

from ssm_platform.base import open_storage
from ssm_platform.corpora.doctor.diagnosis import Diagnosis, IssueLine
from ssm_platform.corpora.doctor.page import render


def write(diagnosis: Diagnosis, folder: Path) -> Path:
    """Write report.json, issues.csv and report.html to ``folder``; gives the path of the page."""
    issues = io.StringIO(newline="")
    table = csv.DictWriter(issues, list(IssueLine.model_fields))
    table.writeheader()
    table.writerows(issue.model_dump() for issue in diagnosis.issues)
    storage = open_storage(folder)
    storage.write("report.json", diagnosis.model_dump_json(indent=1).encode())
    storage.write("issues.csv", issues.getvalue().encode())
    storage.write("report.html", render(diagnosis).encode())
    return folder / "report.html"


def describe(diagnosis: Diagnosis, shown: int = 20) -> Iterator[str]:
    """The report as lines of text, at most ``shown`` bad lines."""
    yield f"{diagnosis.title} in {diagnosis.root}"
    yield (
        f"{diagnosis.records} records of {diagnosis.sequences} clips, {diagnosis.frames} frames, "
        f"{diagnosis.subjects or 'unknown'} subjects, {diagnosis.groups} groups that no split divides; "
        f"{diagnosis.lost} of {diagnosis.rows} label rows lost"
    )
    yield ""
    unit = "clips" if diagnosis.task == "fe" else "frames"  # a label of affect says so itself: "valence > 0"
    yield f"{'label':<16}{unit:>9}{'masked':>9}{'%':>8}{'published':>11}"
    for label in diagnosis.labels:
        published = "" if label.published is None else f"{label.published:.1f}"
        yield f"{label.label:<16}{label.active:>9}{label.masked:>9}{label.percent:>8.1f}{published:>11}"
    if diagnosis.parts:
        yield ""
        yield f"{'part':<16}{'records':>9}{'frames':>9}{'subjects':>10}"
        yield from (f"{part.part:<16}{part.records:>9}{part.frames:>9}{part.subjects:>10}" for part in diagnosis.parts)
    yield from _described_issues(diagnosis, shown)
    yield ""
    yield "usable" if diagnosis.usable else "NOT USABLE: " + "; ".join(diagnosis.reasons)


def _described_issues(diagnosis: Diagnosis, shown: int) -> Iterator[str]:
    bad = [issue for issue in diagnosis.issues if issue.severity != "note"]
    for title, lines in (("worth a look", diagnosis.remarks), ("rules", diagnosis.summary)):
        if lines:
            yield from ("", f"{title}:", *(f"  {line}" for line in lines))
    if bad:
        yield from ("", "bad lines:")
        for issue in bad[:shown]:
            where = issue.path if issue.line is None else f"{issue.path}:{issue.line}"
            yield f"  {where}: {issue.value!r}: {issue.rule}"
        if len(bad) > shown:
            yield f"  ... and {len(bad) - shown} more (all of them in issues.csv with --out)"
