"""Corpora of valence and arousal as their owners ship them: codes, ranges, odd lines, and three tasks in one record."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from ssm.labels.vocabulary import AFFECT
from ssm_platform.corpora import read_corpus
from ssm_platform.corpora.doctor.diagnosis import examine
from ssm_platform.records.manifest import Manifest

if TYPE_CHECKING:
    Tree = Any

UNKNOWN = [None, None]
MTL = "image,valence,arousal,expression,aus\n"


def affect(values: Any) -> list[list[float | None]]:
    """With None for nan, rounded to what a label file holds."""
    return [[None if np.isnan(value) else round(float(value), 4) for value in row] for row in values]


def found(manifest: Manifest) -> list[tuple[Any, ...]]:
    return [(record.clip, record.files, affect(record.va_labels)) for record in manifest]


def test_affwild2_line_i_labels_frame_i_and_minus_five_is_unlabelled(tree: Tree) -> None:
    lines = ["valence,arousal", "0.25,-0.5", "-5,-5", "-5,0.3", "0.1,-5", "-1,1"]
    tree.text("VA_Estimation_Challenge/Train_Set/12-30_left.txt", "\n".join(lines) + "\n")
    tree.text("VA_Estimation_Challenge/Validation_Set/v2.txt", "valence,arousal\n0.5,0.5\n")
    tree.images("cropped/12-30_left", range(1, 6), "{:05d}.jpg")
    tree.images("cropped/v2", [1], "{:05d}.jpg")
    reading = read_corpus("affwild2_va", tree.root)
    assert reading.manifest.task == "va"
    assert reading.manifest.labels.affect == AFFECT
    assert [(r.clip, r.part, r.group) for r in reading.manifest] == [
        ("12-30_left", "train", "12-30"),
        ("v2", "validation", "v2"),
    ]
    assert affect(reading.manifest.va_labels(0)) == [[0.25, -0.5], UNKNOWN, UNKNOWN, UNKNOWN, [-1, 1]]
    assert (reading.rows, reading.lost) == (6, 0)
    assert [(i.line, i.count, i.severity) for i in reading.issues] == [(3, 3, "note")]


@pytest.mark.parametrize(
    ("line", "value"),
    [("0.3,1.2", "frame 2: 0.3, 1.2"), ("x,0", "frame 2: x, 0"), ("0.3", "frame 2: 0.3"), ("-2,0", "frame 2: -2, 0")],
)
def test_what_is_neither_value_nor_code_costs_its_row_and_says_so(tree: Tree, line: str, value: str) -> None:
    tree.text("VA_Set/Train_Set/v.txt", f"valence,arousal\n0,0\n{line}\n0.5,0.5\n")
    tree.images("cropped/v", range(1, 4), "{:05d}.jpg")
    reading = read_corpus("affwild2_va", tree.root, max_issue_fraction=0.5)
    assert affect(reading.manifest.va_labels(0)) == [[0, 0], UNKNOWN, [0.5, 0.5]]
    (issue,) = reading.issues
    rule = "valence and arousal are -1..1 or a missing code (-5 or empty); masked"
    assert (issue.where, issue.value, issue.rule) == ("VA_Set/Train_Set/v.txt:3", value, rule)


def test_a_file_of_another_videos_length_and_missing_crops_split_the_sequence(tree: Tree) -> None:
    tree.text("VA_Set/Train_Set/v.txt", "valence,arousal\n" + "".join(f"0.{i},0\n" for i in range(1, 9)))
    tree.images("cropped/v", [1, 2, 4, 5, 9], "{:05d}.jpg")
    reading = read_corpus("affwild2_va", tree.root)
    assert [(r.clip, r.length) for r in reading.manifest] == [("v#0", 2), ("v#1", 2)]
    assert affect(reading.manifest.va_labels(1)) == [[0.4, 0], [0.5, 0]]
    told = [(i.value, i.count) for i in reading.issues]
    assert told == [("cropped/v: frames 3", 1), ("cropped/v: frames 6..8", 3), ("cropped/v: frames 9", 1)]


def test_afewva_divides_whole_numbers_by_ten_and_meets_frames_by_number(tree: Tree) -> None:
    frames = {f"{n:05d}": {"valence": v, "arousal": -10, "landmarks": []} for n, v in enumerate((-10, 0, 7, 10))}
    tree.text("001/001.json", json.dumps({"video_id": "001", "frames": frames}))
    tree.images("001", [0, 1, 3], "{:05d}.png")
    tree.text("002/002.json", json.dumps({"frames": {"00000": {"valence": 11, "arousal": 0}, "00001": {"valence": 1}}}))
    tree.images("002", [0, 1], "{:05d}.png")
    tree.text("003/003.json", "{")
    reading = read_corpus("afewva", tree.root, max_issue_fraction=0.9)
    assert found(reading.manifest) == [
        ("001#0", ("00000.png", "00001.png"), [[-1, -1], [0, -1]]),
        ("001#1", ("00003.png",), [[1, -1]]),
        ("002", ("00000.png", "00001.png"), [UNKNOWN, UNKNOWN]),
    ]
    problems = [(i.where, i.value) for i in reading.issues if i.severity == "problem"]
    assert [where for where, _ in problems] == ["002/002.json", "002/002.json", "003/003.json:1"]
    assert [value for _, value in problems[:2]] == ["frame 0: 11, 0", "frame 1: 1, none"]


def mtl(tree: Tree, rows: list[str]) -> None:
    tree.text("training_set_annotations.txt", MTL + "".join(f"{row}\n" for row in rows))


def test_the_multi_task_list_gives_one_record_with_three_tasks_each_masked_by_itself(tree: Tree) -> None:
    aus = ["1,0,0,0,0,0,1,0,0,0,0,0", ",".join(["-1"] * 12)]
    mtl(tree, [f"a/00001.jpg,0.5,-0.5,4,{aus[0]}", f"a/00002.jpg,-5,-5,4,{aus[1]}", f"a/00003.jpg,0.1,0.2,-1,{aus[0]}"])
    tree.images("cropped_aligned/a", range(1, 4), "{:05d}.jpg")
    manifest = read_corpus("affwild2_mtl", tree.root).manifest
    assert manifest.tasks == ("au", "fe", "va")
    happy, nobody = manifest
    assert (happy.clip, happy.expression, happy.length) == ("train/a#0", "happiness", 2)
    assert (nobody.clip, nobody.expression, nobody.group) == ("train/a#1", None, "a")
    assert affect(happy.va_labels) == [[0.5, -0.5], UNKNOWN]
    assert happy.au_labels is not None
    assert happy.au_labels[:, 0].tolist() == [1, -1]
    parts = {task: manifest.of_task(task) for task in manifest.tasks}
    assert {task: [r.clip for r in part] for task, part in parts.items()} == {
        "au": ["train/a#0", "train/a#1"],
        "fe": ["train/a#0"],
        "va": ["train/a#0", "train/a#1"],
    }
    assert [(p.corpus, p.tasks) for p in parts.values()] == [(f"affwild2_mtl@{t}", (t,)) for t in ("au", "fe", "va")]
    assert parts["va"][0].au_labels is None
    assert np.array_equal(parts["au"].au_labels(0), happy.au_labels)


def test_class_other_is_kept_where_it_is_asked_for_and_unknown_elsewhere(tree: Tree) -> None:
    mtl(tree, [f"a/00001.jpg,0,0,7,{','.join('0' * 12)}", f"a/00002.jpg,0,0,9,{','.join('0' * 12)}", "b,0"])
    tree.images("cropped/a", [1, 2], "{:05d}.jpg")
    kept = read_corpus("affwild2_mtl", tree.root, other=True, max_issue_fraction=1)
    assert [r.expression for r in kept.manifest] == ["other", None]
    assert kept.manifest.labels.expressions[-1] == "other"
    plain = read_corpus("affwild2_mtl", tree.root, max_issue_fraction=1)
    assert [(r.clip, r.expression) for r in plain.manifest] == [("train/a", None)]
    told = [(i.line, i.value) for i in plain.issues if i.severity == "problem"]
    assert told == [(3, "9"), (4, "b,0")]


def test_other_of_the_expression_challenge_is_a_class_by_option(tree: Tree) -> None:
    tree.text("EXPR_Set/Train_Set/v.txt", "head\n" + "7\n" * 16 + "0\n" * 16)
    tree.images("cropped/v", range(1, 33), "{:05d}.jpg")
    assert [r.expression for r in read_corpus("affwild2_expr", tree.root).manifest] == ["neutral"]
    assert [r.expression for r in read_corpus("affwild2_expr", tree.root, other=True).manifest] == ["other", "neutral"]


def test_affectnet_reads_affect_beside_the_class_where_asked(tree: Tree) -> None:
    rows = "subDirectory_filePath,expression,valence,arousal\n1/a.jpg,3,0.5,-0.25\n1/b.jpg,2,-2,-2\n1/c.jpg,1,3,0\n"
    tree.text("Manually_Annotated_file_lists/training.csv", rows)
    tree.images("Manually_Annotated_Images/1", "abc")
    tree.images("train_set/images", [0])
    for end, value in (("exp", "1"), ("val", 0.125), ("aro", "-0.5")):
        np.save(tree.text(f"train_set/annotations/0_{end}.npy", ""), np.array(value))
    manifest = read_corpus("affectnet", tree.root, affect=True, max_issue_fraction=1).manifest
    assert manifest.tasks == ("fe", "va")
    assert [(r.clip, r.expression, affect(r.va_labels)) for r in manifest] == [
        ("train/0", "happiness", [[0.125, -0.5]]),
        ("1/a.jpg", "surprise", [[0.5, -0.25]]),
        ("1/b.jpg", "sadness", [UNKNOWN]),
        ("1/c.jpg", "happiness", [UNKNOWN]),
    ]
    assert [r.clip for r in manifest.of_task("va")] == ["train/0", "1/a.jpg"]
    assert read_corpus("affectnet", tree.root, max_issue_fraction=1).manifest.tasks == ("fe",)


def test_the_doctor_counts_every_task_of_a_corpus(tree: Tree) -> None:
    aus = ",".join(["1", *"0" * 11])
    mtl(tree, [f"a/00001.jpg,0.5,-5,4,{aus}", f"a/00002.jpg,0.5,-0.5,4,{aus}", f"a/00003.jpg,-0.5,0.5,-1,{aus}"])
    tree.images("cropped/a", range(1, 4), "{:05d}.jpg")
    labels = {label.label: label for label in examine("affwild2_mtl", tree.root).labels}
    assert (labels["AU01"].active, labels["AU01"].scored) == (3, 3)
    assert (labels["happiness"].active, labels["happiness"].scored, labels["happiness"].masked) == (1, 1, 1)
    positive = labels["valence > 0"]
    assert (positive.active, positive.scored, positive.masked) == (1, 2, 1)


def test_a_manifest_with_affect_survives_its_file_and_one_without_is_hashed_as_before(tree: Tree) -> None:
    tree.text("VA_Set/Train_Set/v.txt", "valence,arousal\n0.25,-0.5\n-5,-5\n")
    tree.images("cropped/v", [1, 2], "{:05d}.jpg")
    manifest = read_corpus("affwild2_va", tree.root).manifest
    manifest.write(tree.root / "m.parquet")
    again = Manifest.read(tree.root / "m.parquet")
    assert again.fingerprint == manifest.fingerprint
    assert np.array_equal(again.va_labels(0), manifest.va_labels(0), equal_nan=True)
    tree.text("AU_Set/Train_Set/v.txt", "head\n" + ",".join("0" * 12) + "\n")
    aus = read_corpus("affwild2_au", tree.root).manifest
    assert b"va_labels" not in aus.to_bytes()
    assert "affect" not in aus.labels.model_dump(mode="json")


@pytest.mark.parametrize("text", [
    '{"frames": {"00000": {"valence": ' + "9" * 5000 + "}}}", "[" * 100_000,
], ids=["long", "deep"])  # fmt: skip
def test_afewva_json_that_python_does_not_read_is_reported(tree: Tree, text: str) -> None:
    tree.text("001/001.json", '{"frames": {"00000": {"valence": 3, "arousal": -2}}}')
    tree.text("002/002.json", text)
    tree.images("001", [0], "{:05d}.png")
    reading = read_corpus("afewva", tree.root, max_issue_fraction=1)
    assert [record.clip for record in reading.manifest] == ["001"]
    (issue,) = reading.issues
    assert (issue.path, issue.rule) == ("002/002.json", "a label file is JSON with an object of frames")
