"""Prepared lists of the release, and a user's own CSV or Parquet table."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import openpyxl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ssm.labels.vocabulary import BP4D_AUS, DISFA_AUS, EXPRESSIONS
from ssm_platform.corpora import CorpusRefused, corpora, read_corpus, settings_of, survey

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


OWN = [f"c{number:03d}.png,happiness" for number in range(100)]


def own_table(tree: Tree, lines: list[str]) -> None:
    tree.images(".", range(100), "c{:03d}.png")
    tree.text("labels.csv", "\n".join(["source,expression", *lines]) + "\n")


@pytest.mark.parametrize(
    "broken", ['c040.png,"happiness', '"c040.png,happiness', "c040.png," + "x" * 140_000], ids=["last", "first", "long"]
)
@pytest.mark.parametrize("closed", [False, True])
def test_a_broken_row_costs_its_own_line_and_no_other(tree: Tree, broken: str, closed: bool) -> None:
    own_table(tree, [*OWN[:40], broken, *OWN[41:98], OWN[98] + '"' * closed, OWN[99]])
    reading = read_corpus("manifest", tree.root)
    assert [issue.line for issue in reading.issues] == [42, 100][: 1 + closed]
    issue = reading.issues[0]
    assert (issue.path, issue.value, issue.count) == ("labels.csv", broken[:200], 1)
    assert "a row of a csv is one line" in issue.rule
    assert (reading.rows, reading.lost) == (100, 1)
    assert {record.clip for record in reading.manifest} >= {f"c{number:03d}.png" for number in (39, 41, 97, 99)}


def test_rows_of_two_lines_are_lost_and_refuse_a_table(tree: Tree) -> None:
    own_table(tree, [line.replace(",", '\n",') if number % 9 == 0 else line for number, line in enumerate(OWN)])
    with pytest.raises(CorpusRefused, match=r"label rows have problems.*over max_issue_fraction"):
        read_corpus("manifest", tree.root)


def test_a_broken_header_loses_every_row(tree: Tree) -> None:
    tree.occurrences("AUCoding/AU_OCC/F001_T1.csv", {frame: [1] * 12 for frame in range(1, 6)}, BP4D_AUS)
    path = tree.root / "AUCoding/AU_OCC/F001_T1.csv"
    path.write_text('"' + path.read_text())
    tree.images("Sequences(2D+3D)/F001/T1", range(1, 6))
    reading = survey(corpora()["bp4d"], tree.root, settings_of(corpora()["bp4d"], {}))
    assert len(reading.manifest) == 0
    assert (reading.issues[0].line, reading.issues[0].count) == (1, 6)
    own_table(tree, OWN)
    (tree.root / "labels.csv").write_text('source,"expression\na,joy\n')
    with pytest.raises(ValueError, match=r"labels\.csv: no column 'source'.*labels\.csv:1: 'source,\"expression'"):
        read_corpus("manifest", tree.root)


@pytest.mark.parametrize("blank", ["", "   ", ",", '"",""'])
def test_a_row_without_content_is_none(tree: Tree, blank: str) -> None:
    own_table(tree, [blank, *OWN[:50], blank, *OWN[50:], blank])
    reading = read_corpus("manifest", tree.root)
    assert (len(reading.manifest), reading.rows, reading.issues) == (100, 100, [])


@pytest.mark.parametrize(("header", "named"), [
    ("source,expression,Expression", "'expression' and 'Expression' are both expression"),
    ("source,frame,AU1,AU01", "'AU1' and 'AU01' are both AU01"),
    ("Source,expression,source", "'Source' and 'source' are both source"),
])  # fmt: skip
@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_a_column_that_is_there_twice_is_refused(tree: Tree, header: str, named: str, kind: str) -> None:
    tree.text("mine.csv", f"{header}\n" + ",".join("1" * (header.count(",") + 1)))
    if kind == "parquet":
        (tree.root / "mine.csv").unlink()
        names = header.split(",")
        pq.write_table(pa.table([["1"]] * len(names), names=names), tree.root / "mine.parquet")
    with pytest.raises(ValueError, match=rf"mine\.{kind}: columns {named}"):
        read_corpus("manifest", tree.root)


def test_columns_that_are_not_read_may_be_there_twice(tree: Tree) -> None:
    tree.images(".", [1])
    pq.write_table(
        pa.table([["1.jpg"], ["joy"], ["x"], ["y"]], names=["source", "expression", "mood", "mood"]),
        tree.root / "mine.parquet",
    )
    assert [record.expression for record in read_corpus("manifest", tree.root).manifest] == ["happiness"]


def workbook(path: Path, torn: str | None = None) -> None:
    """A table of the rows `OWN`; the part ``torn`` of the archive is cut in half."""
    book = openpyxl.Workbook()
    for line in ["source,expression", *OWN]:
        book.active.append(line.split(","))
    book.save(path)
    with zipfile.ZipFile(path) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in parts.items():
            archive.writestr(name, data[: len(data) // 2] if name == torn else data)


def flipped(path: Path) -> None:
    """A workbook with damaged bytes in its packed sheet."""
    workbook(path)
    data = bytearray(path.read_bytes())
    start = data.find(b"xl/worksheets/sheet1.xml") + 40
    data[start : start + 60] = bytes(byte ^ 0xFF for byte in data[start : start + 60])
    path.write_bytes(data)


def chart_only(path: Path) -> None:
    book = openpyxl.Workbook()
    book.create_chartsheet()
    book.remove(book.worksheets[0])
    book.save(path)


@pytest.mark.parametrize(("name", "write", "rule"), [
    ("labels.xlsx", lambda path: workbook(path, "xl/worksheets/sheet1.xml"), "labels.xlsx: not an Excel workbook"),
    ("labels.xlsx", lambda path: workbook(path, "xl/workbook.xml"), "labels.xlsx: not an Excel workbook"),
    ("labels.xlsx", flipped, "labels.xlsx: not an Excel workbook"),
    ("labels.xlsx", chart_only, "labels.xlsx: not an Excel workbook"),
    ("labels.xlsx", Path.mkdir, "one table .* is expected, found none"),
    ("labels.parquet", Path.mkdir, "one table .* is expected, found none"),
])  # fmt: skip
def test_a_damaged_table_is_refused_by_name(tree: Tree, name: str, write: Callable[[Path], object], rule: str) -> None:
    tree.images(".", range(100), "c{:03d}.png")
    write(tree.root / name)
    with pytest.raises(ValueError, match=rf"{tree.root}.*{rule}"):
        read_corpus("manifest", tree.root)


def test_rows_behind_a_damaged_page_of_parquet_are_counted_as_lost(tree: Tree) -> None:
    tree.images(".", range(100), "c{:03d}.png")
    path = tree.root / "labels.parquet"
    names, labels = zip(*(line.split(",") for line in OWN), strict=True)
    pq.write_table(pa.table({"source": names, "expression": labels}), path)
    data = bytearray(path.read_bytes())
    data[4:60] = bytes(byte ^ 0x5A for byte in data[4:60])
    path.write_bytes(data)
    reading = survey(corpora()["manifest"], tree.root, settings_of(corpora()["manifest"], {}))
    (issue,) = reading.issues
    assert (issue.path, issue.line, issue.count, reading.rows) == ("labels.parquet", 1, 100, 100)
    with pytest.raises(CorpusRefused, match="100 of 100 label rows"):
        read_corpus("manifest", tree.root)


@pytest.mark.parametrize("bad", [
    '{"img_path": "RightVideoSN010/frame_1.jpg", "AUs": [' + "9" * 5000 + "]}", "[" * 100_000
], ids=["long", "deep"])  # fmt: skip
def test_disfa_list_of_json_that_python_does_not_read(tree: Tree, bad: str) -> None:
    tree.text("train.json", '{"img_path": "RightVideoSN010/frame_0.jpg", "AUs": [25]}\n' + bad)
    tree.images("RightVideoSN010", range(2), "frame_{}.jpg")
    reading = read_corpus("list_disfa", tree.root, max_issue_fraction=0.5)
    assert [(issue.line, issue.severity) for issue in reading.issues] == [(2, "problem")]
