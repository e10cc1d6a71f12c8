"""The doctor: its numbers are those of the labels, every bad line is in its files, its exit code says usable or not."""

from __future__ import annotations

import csv
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from ssm.labels.vocabulary import BP4D_AUS
from ssm_platform.corpora import ReadOptions, corpora
from ssm_platform.corpora.doctor.diagnosis import Diagnosis, examine
from ssm_platform.corpora.doctor.report import describe, write

if TYPE_CHECKING:
    Tree = Any

REPOSITORY = Path(__file__).resolve().parents[2]


def write_bp4d(tree: Tree, missing: int = 0) -> None:
    """Two subjects; AU01 active in 1 of 4 frames, AU12 in all, AU24 unscored; ``missing`` images of F001 are absent."""
    for subject in ("F001", "M002"):
        rows = {n: [int(n % 4 == 0)] + [0] * 5 + [1] + [0] * 4 + [9] for n in range(1, 41)}
        tree.occurrences(f"AUCoding/AU_OCC/{subject}_T1.csv", rows, BP4D_AUS)
        first = 1 + missing if subject == "F001" else 1
        tree.images(f"Sequences(2D+3D)/{subject}/T1", range(first, 41))


def doctor(*words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(REPOSITORY / "jobs" / "doctor.py"), *words]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)


def test_the_numbers_are_those_of_the_labels(tree: Tree) -> None:
    write_bp4d(tree)
    diagnosis = examine("bp4d", tree.root)
    labels = {label.label: label for label in diagnosis.labels}
    assert (labels["AU01"].active, labels["AU01"].scored, labels["AU01"].percent) == (20, 80, 25.0)
    assert (labels["AU24"].active, labels["AU24"].masked) == (0, 80)
    assert labels["AU12"].published == 56.2
    assert [(part.part, part.records, part.frames, part.subjects) for part in diagnosis.parts] == [
        ("P1", 1, 40, 1),
        ("P2", 1, 40, 1),
    ]
    assert (diagnosis.records, diagnosis.frames, diagnosis.subjects, diagnosis.seconds) == (2, 80, 2, 3.2)
    assert np.array(diagnosis.together, float)[0, 6] == 100.0
    assert np.array(diagnosis.together, float)[6, 0] == 25.0
    assert "AU24 (lip pressor) is never active" in diagnosis.remarks
    assert "AU12 is 100.0 %, published 56.2 %" in diagnosis.remarks
    assert diagnosis.usable


def test_every_issue_is_in_the_files_and_the_page_stands_alone(tree: Tree, tmp_path: Path) -> None:
    write_bp4d(tree, missing=12)
    diagnosis = examine("bp4d", tree.root)
    page = write(diagnosis, tmp_path / "report")
    assert Diagnosis.model_validate_json((page.parent / "report.json").read_text()) == diagnosis
    with (page.parent / "issues.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["rule"] for row in rows] == [issue.rule for issue in diagnosis.issues]
    bad = next(row for row in rows if row["severity"] == "problem")
    assert (bad["path"], bad["line"], bad["count"]) == ("AUCoding/AU_OCC/F001_T1.csv", "2", "12")
    text = page.read_text()
    assert not re.search(r"(?:src|href)=\"(?!data:)", text)
    assert text.count("<img") == 4
    assert "Not usable." in text
    assert "frames 1..12" in text


def test_a_class_corpus_is_counted_in_clips(tree: Tree, tmp_path: Path) -> None:
    tree.text("4_setups/All_scenes/train_All.csv", "A/Sad/0001 Sad\nA/Sad/0002 Sad\nB/Fear/0003 Fear\n")
    tree.text("4_setups/All_scenes/test_All.csv", "A/Sad/0004 Sad\n")
    for clip in ("A/Sad/0001", "A/Sad/0002", "B/Fear/0003", "A/Sad/0004"):
        tree.images(f"2_ClipsforFaceCrop/{clip}", range(5))
    diagnosis = examine("ferv39k", tree.root)
    assert {label.label: label.active for label in diagnosis.labels if label.active} == {"sadness": 3, "fear": 1}
    assert {part.part: part.records for part in diagnosis.parts} == {"train": 3, "test": 1}
    assert diagnosis.together == []
    assert write(diagnosis, tmp_path).read_text().count("<img") == 3


def test_names_from_the_data_cannot_script_the_page(tree: Tree, tmp_path: Path) -> None:
    tree.text("mine.csv", "source,expression\n<script>alert(1)</script>,joy\n")
    page = write(examine("manifest", tree.root), tmp_path).read_text()
    assert "<script>" not in page
    assert "&lt;script&gt;" in page


def test_an_empty_tree_gives_a_report_too(tree: Tree, tmp_path: Path) -> None:
    tree.root.mkdir()
    for name in corpora():
        if name != "manifest":
            diagnosis = examine(name, tree.root)
            assert not diagnosis.usable
            assert "no usable record" in write(diagnosis, tmp_path / name).read_text()


def test_identical_content_under_two_names_is_found_on_request(tree: Tree) -> None:
    tree.text("mine.csv", "source,expression,part\na.mp4,joy,train\nb.mp4,joy,test\nc.mp4,joy,train\nd.mp4,joy,train\n")
    tree.video("a.mp4", 9)
    tree.video("b.mp4", 9)
    tree.video("c.mp4", 9)
    tree.video("d.mp4", 8)
    assert examine("manifest", tree.root).usable
    diagnosis = examine("manifest", tree.root, content=True)
    assert [(issue.value, issue.severity) for issue in diagnosis.issues if "content" in issue.rule] == [
        ("b.mp4", "leak"),
        ("c.mp4", "note"),
    ]
    assert not diagnosis.usable


def test_printing_is_bounded(tree: Tree) -> None:
    lines = "".join(f"A/Sad/{n:04d} Sad\n" for n in range(1, 31))
    tree.text("4_setups/All_scenes/train_All.csv", lines)
    tree.text("4_setups/All_scenes/test_All.csv", "")
    text = "\n".join(describe(examine("ferv39k", tree.root), shown=3))
    assert "... and 27 more" in text
    assert text.count("train_All.csv:") == 3 + 1


def test_exit_codes_say_usable_unusable_or_misused(tree: Tree, tmp_path: Path) -> None:
    write_bp4d(tree)
    good = doctor(str(tree.root), "--corpus", "bp4d", "--out", str(tmp_path / "out"), "--aus=1,12")
    assert (good.returncode, good.stderr) == (0, "")
    assert good.stdout.splitlines()[-2:] == ["usable", f"report: {tmp_path / 'out' / 'report.html'}"]
    assert [label["label"] for label in json.loads((tmp_path / "out/report.json").read_text())["labels"]] == [
        "AU01",
        "AU12",
    ]
    write_bp4d(tree, missing=0)
    (tree.root / "Sequences(2D+3D)/F001/T1/7.jpg").unlink()
    refused = doctor(str(tree.root), "--corpus", "bp4d", "--max_issues=0")
    assert refused.returncode == 1
    assert "AUCoding/AU_OCC/F001_T1.csv:8: 'Sequences(2D+3D)/F001/T1: frames 7'" in refused.stdout
    misused = doctor(str(tree.root), "--corpus", "bp4d", "--camera=left")
    assert misused.returncode == 2
    assert "camera" in misused.stderr
    assert "Traceback" not in misused.stderr


@pytest.mark.parametrize("name", ["bp4d", "manifest"])
def test_help_shows_layout_and_options(name: str) -> None:
    text = doctor("--corpus", name, "--help").stdout
    assert corpora()[name].layout in text
    assert all(f"--{field}=" in text for field in corpora()[name].options.model_fields)


def test_the_guide_names_every_corpus_and_option() -> None:
    guide = (REPOSITORY / "docs" / "corpora.md").read_text()
    table = {row.split("`")[1]: row for row in guide.splitlines() if row.startswith("| `")}
    for name, corpus in corpora().items():
        for option in corpus.options.model_fields:
            assert f"`{option}`" in (table[name] if option not in ReadOptions.model_fields else guide), (name, option)
