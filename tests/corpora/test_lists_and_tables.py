"""Prepared lists of the release, and a user's own CSV or Parquet table."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ssm.labels.vocabulary import BP4D_AUS, DISFA_AUS, EXPRESSIONS
from ssm_platform.corpora import CorpusRefused, read_corpus

if TYPE_CHECKING:
    Tree = Any


def test_fe_list_counts_labels_from_0_and_finds_moved_folders(tree: Tree) -> None:
    tree.text("annotation/set_1_train.txt", "/home/a/data/DFEW/clips/0001 16 0\n/home/a/data/DFEW/clips/0002 16 6\n")
    tree.text("annotation/set_1_test.txt", "/home/a/data/DFEW/clips/0003 16 4\n/home/a/data/DFEW/clips/0009 16 1\n")
    for clip in ("0001", "0002", "0003"):
        tree.images(f"clips/{clip}", range(1, 17))
    reading = read_corpus("list_fe", tree.root, max_issue_fraction=0.25)
    assert {record.source: (record.expression, record.part) for record in reading.manifest} == {
        "clips/0001": ("happiness", "train"),
        "clips/0002": ("fear", "train"),
        "clips/0003": ("surprise", "test"),
    }
    assert [(issue.severity, issue.count) for issue in reading.issues] == [("note", 1), ("problem", 1)]


def test_fe_list_of_eleven_classes_and_odd_lines(tree: Tree) -> None:
    tree.text("train.txt", "a b/1 3 10\nx 3 11\ny 3\na b/2 9 7\n")
    tree.images("a b/1", range(3))
    tree.images("a b/2", range(3))
    reading = read_corpus("list_fe", tree.root, expressions=EXPRESSIONS, max_issue_fraction=0.5)
    assert [(record.clip, record.expression) for record in reading.manifest] == [
        ("a b/1", "disappointment"),
        ("a b/2", "contempt"),
    ]
    assert [(issue.line, issue.severity) for issue in reading.issues] == [(2, "problem"), (3, "problem"), (4, "note")]


def test_lists_are_named_where_the_choice_is_not_clear(tree: Tree) -> None:
    tree.text("set_1_train.txt", "")
    tree.text("set_2_train.txt", "")
    with pytest.raises(ValueError, match=r"folds, 1, 2 \(set_1_train\.txt, set_2_train\.txt\).*option 'fold'"):
        read_corpus("list_fe", tree.root)
    with pytest.raises(ValueError, match=r"set_3_train\.txt: no such file; option 'train'"):
        read_corpus("list_fe", tree.root, train="set_3_train.txt")


def bp4d_line(folder: str, number: int) -> str:
    return f"{folder}/{number}.jpg " + " ".join(str((number + column) % 2) for column in range(12))


def test_bp4d_list_labels_stand_beside_their_images(tree: Tree) -> None:
    lines = [bp4d_line("2F23_10", number) for number in (1001, 1002, 1003, 1007)] + [bp4d_line("2M15_01", 5)]
    tree.text("all_train.txt", "\n".join(lines))
    tree.images("images/2F23_10", range(1000, 1010))
    tree.images("images/2M15_01", [5])
    manifest = read_corpus("list_bp4d", tree.root, images="images").manifest
    assert [(record.clip, record.subject, record.part) for record in manifest] == [
        ("2F23_10#0", "F023", "P1"),
        ("2F23_10#1", "F023", "P1"),
        ("2M15_01", "M015", "P3"),
    ]
    assert manifest[0].files == ("1001.jpg", "1002.jpg", "1003.jpg")
    assert manifest.labels.aus == BP4D_AUS
    assert manifest.au_labels(1)[0].tolist() == [(1007 + column) % 2 for column in range(12)]


def test_bp4d_train_and_test_lists_with_a_shared_subject_leak(tree: Tree) -> None:
    tree.text("train.txt", bp4d_line("2F23_10", 1))
    tree.text("test.txt", bp4d_line("2F23_11", 1))
    tree.images("2F23_10", [1])
    tree.images("2F23_11", [1])
    with pytest.raises(CorpusRefused, match="F023: 1 in test, 1 in train"):
        read_corpus("list_bp4d", tree.root)


def test_disfa_list_names_the_active_aus(tree: Tree) -> None:
    active = [json.dumps([999, 999, 25 + n % 2, 5]) for n in range(4)]
    rows = [f'{{"img_path": "RightVideoSN010/frame_{n}.jpg", "AUs": {active[n]}}}' for n in range(4)]
    tree.text("train.json", "\n".join([*rows, '{"img_path": "RightVideoSN010/frame_4.jpg"}', "not json", "[1]"]))
    tree.images("RightVideoSN010", range(5), "frame_{}.jpg")
    reading = read_corpus("list_disfa", tree.root, max_issue_fraction=0.5)
    (record,) = reading.manifest
    assert (record.subject, record.part, record.length) == ("SN010", "P1", 4)
    assert reading.manifest.au_labels(0).tolist() == [[int(au == 25 + n % 2) for au in DISFA_AUS] for n in range(4)]
    assert [issue.line for issue in reading.issues] == [5, 6, 7]


def test_own_clip_table(tree: Tree) -> None:
    tree.text("mine.csv", """\
source,expression,clip,subject,part,rate,start,length,mood
a.mp4,joy,one,S1,train,,2,5,x
a.mp4,anger,two,S1,train,,7,,x
frames,sad,three,S2,test,12.5,,,x
a.mp4,anger,four,S1,train,,7,99,x
,anger,five,S1,train,,,,x
""")  # fmt: skip
    tree.video("a.mp4", 10, rate=25)
    tree.images("frames", range(1, 4))
    reading = read_corpus("manifest", tree.root, max_issue_fraction=0.5)
    rows = [(r.clip, r.expression, r.start, r.length, r.subject, r.part, r.rate) for r in reading.manifest]
    assert rows == [
        ("one", "happiness", 2, 5, "S1", "train", 25.0),
        ("two", "anger", 7, 3, "S1", "train", 25.0),
        ("three", "sadness", 0, 3, "S2", "test", 12.5),
    ]
    assert [(issue.line, issue.severity) for issue in reading.issues] == [
        (1, "note"), (2, "note"), (4, "note"), (5, "problem"), (6, "problem"),
    ]  # fmt: skip


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_own_frame_table(tree: Tree, kind: str) -> None:
    frames = [0, 1, 2, 3, 6, 7]
    labels = {"AU12": [1, 0, 1, None, 0, 1], "AU01": [0.0, 0.0, 1.0, 1.0, float("nan"), 9.0], "AU99": [0] * 6}
    table = pa.table({"source": ["v.mp4"] * 6, "frame": frames, "subject": ["S1"] * 6, **labels})
    if kind == "parquet":
        tree.root.mkdir()
        pq.write_table(table, tree.root / "mine.parquet")
    else:
        table.to_pandas().to_csv(tree.text("mine.csv", ""), index=False)
    tree.video("v.mp4", 9)
    reading = read_corpus("manifest", tree.root)
    assert reading.manifest.labels.aus == (1, 12)
    assert [(r.clip, r.start, r.length, r.subject) for r in reading.manifest] == [
        ("v.mp4#0", 0, 4, "S1"),
        ("v.mp4#1", 6, 2, "S1"),
    ]
    assert np.concatenate([reading.manifest.au_labels(0), reading.manifest.au_labels(1)]).T.tolist() == [
        [0, 0, 1, 1, -1, -1],
        [1, 0, 1, -1, 0, 1],
    ]
    assert reading.lost == 0


@pytest.mark.parametrize(("header", "rule"), [
    ("clip,expression", "no column 'source' among clip, expression"),
    ("source,label", "no column 'expression'"),
    ("source,AU01", "no column 'frame'"),
    ("", "no column 'source' among none"),
])  # fmt: skip
def test_a_table_that_is_none_is_refused_by_name(tree: Tree, header: str, rule: str) -> None:
    tree.text("mine.csv", header)
    with pytest.raises(ValueError, match=rf"mine\.csv: {rule}"):
        read_corpus("manifest", tree.root)
