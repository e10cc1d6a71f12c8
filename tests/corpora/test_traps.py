"""Every trap of the corpora page: reported with path, line, value, rule, count; the rest is used; a ceiling refuses."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from ssm.labels.vocabulary import BP4D_AUS
from ssm_platform.corpora import CorpusRefused, read_corpus
from ssm_platform.records.issues import Issue, Reading

if TYPE_CHECKING:
    Tree = Any

CSV = "AUCoding/AU_OCC/F001_T1.csv"
FRAMES = "Sequences(2D+3D)/F001/T1"
TRAIN, TEST = "4_setups/All_scenes/train_All.csv", "4_setups/All_scenes/test_All.csv"


def zeros(frames: range) -> dict[int, list[Any]]:
    return {frame: [0] * len(BP4D_AUS) for frame in frames}


def lenient(name: str, tree: Tree, **options: Any) -> Reading:
    return read_corpus(name, tree.root, max_issue_fraction=1.0, **options)


def found(reading: Reading, rule: str, severity: str = "problem") -> Issue:
    """The one issue whose rule contains ``rule``."""
    issues = [issue for issue in reading.issues if rule in issue.rule]
    assert len(issues) == 1, reading.issues
    assert issues[0].severity == severity
    return issues[0]


def ferv39k(tree: Tree, train: str, test: str = "", clips: tuple[str, ...] = ("A/Sad/0001", "A/Sad/0002")) -> None:
    tree.text(TRAIN, train)
    tree.text(TEST, test)
    for clip in clips:
        tree.images(f"2_ClipsforFaceCrop/{clip}", range(4))


def test_missing_codes_are_masked_and_counted(tree: Tree) -> None:
    rows = zeros(range(1, 6))
    rows[2][0] = rows[4][0] = 9
    rows[3][1] = ""
    tree.occurrences(CSV, rows, BP4D_AUS)
    tree.images(FRAMES, range(1, 6))
    reading = read_corpus("bp4d", tree.root)
    labels = reading.manifest[0].au_labels
    assert labels is not None
    assert np.argwhere(labels == -1).tolist() == [[1, 0], [2, 1], [3, 0]]
    assert reading.issues == [
        Issue(CSV, 3, "AU01=9", "a missing-label code is masked", 2, "note"),
        Issue(CSV, 4, "AU02=empty", "a missing-label code is masked", 1, "note"),
    ]
    assert reading.lost == 0


def test_a_cell_that_is_no_label_is_masked_and_named(tree: Tree) -> None:
    rows = zeros(range(1, 6))
    rows[3][2] = "x"
    tree.occurrences(CSV, rows, BP4D_AUS)
    tree.images(FRAMES, range(1, 6))
    reading = lenient("bp4d", tree)
    issue = found(reading, "an AU cell is 0..1")
    assert (issue.path, issue.line, issue.value) == (CSV, 4, "AU04=x")
    assert reading.manifest.au_labels(0)[2, 2] == -1


def test_broken_and_repeated_rows_are_named_and_the_rest_is_used(tree: Tree) -> None:
    text = tree.occurrences(CSV, zeros(range(1, 5)), BP4D_AUS).read_text()
    tree.text(CSV, text + "4" + ",1" * 12 + "\n5,0,1\nsix" + ",0" * 12 + "\n7" + ",1" * 12 + "\n")
    tree.images(FRAMES, range(1, 8))
    reading = lenient("bp4d", tree)
    assert [record.length for record in reading.manifest] == [4, 1]
    assert found(reading, "a frame has one label row").line == 6
    assert [issue.line for issue in reading.issues if "AU cells" in issue.rule] == [7, 8]
    assert (reading.lost, reading.rows) == (3, 8)


def test_a_jump_in_frame_numbers_splits_the_sequence(tree: Tree) -> None:
    tree.occurrences(CSV, zeros(range(1, 4)) | zeros(range(10, 15)), BP4D_AUS)
    tree.images(FRAMES, range(1, 20))
    reading = read_corpus("bp4d", tree.root)
    assert [(record.clip, record.length) for record in reading.manifest] == [("F001_T1#0", 3), ("F001_T1#1", 5)]
    issue = found(reading, "frame numbers are consecutive", "note")
    assert (issue.path, issue.line, issue.value) == (CSV, 5, "3 -> 10")
    assert found(reading, "frames without one are not used", "note").count == 6


def test_an_absent_image_splits_the_sequence_and_is_counted(tree: Tree) -> None:
    tree.occurrences(CSV, zeros(range(1, 11)), BP4D_AUS)
    tree.images(FRAMES, [1, 2, 3, 4, 7, 8, 9, 10])
    reading = lenient("bp4d", tree)
    assert [record.length for record in reading.manifest] == [4, 4]
    issue = found(reading, "a labelled frame is there")
    assert (issue.line, issue.value, issue.count) == (6, f"{FRAMES}: frames 5..6", 2)


def test_a_wrong_index_origin_loses_everything_and_is_refused(tree: Tree) -> None:
    tree.occurrences(CSV, zeros(range(1, 6)), BP4D_AUS)
    tree.images(FRAMES, range(2001, 2006))
    with pytest.raises(CorpusRefused, match=r"frames 1\.\.5.*a labelled frame is there"):
        read_corpus("bp4d", tree.root)


def test_two_paddings_of_one_number_are_named(tree: Tree) -> None:
    tree.occurrences(CSV, zeros(range(1, 4)), BP4D_AUS)
    tree.images(FRAMES, range(1, 4), "{:04d}.jpg")
    tree.images(FRAMES, [2])
    reading = lenient("bp4d", tree)
    assert reading.manifest[0].files == ("0001.jpg", "0002.jpg", "0003.jpg")
    assert found(reading, "different numbers").path == f"{FRAMES}/2.jpg"


def test_an_empty_image_is_named_and_left_out(tree: Tree) -> None:
    ferv39k(tree, "A/Sad/0001 Sad\n")
    tree.text("2_ClipsforFaceCrop/A/Sad/0001/4.jpg", "")
    reading = lenient("ferv39k", tree)
    assert reading.manifest[0].length == 4
    assert found(reading, "an image is not empty").path.endswith("0001/4.jpg")


@pytest.mark.parametrize(("frames", "length", "rule", "severity"), [
    (8, 8, "a labelled frame is there", "problem"),
    (14, 12, "a frame has a label row", "note"),
])  # fmt: skip
def test_label_file_longer_or_shorter_than_its_video(
    tree: Tree, frames: int, length: int, rule: str, severity: str
) -> None:
    for au in (1, 12):
        tree.text(f"ActionUnit_Labels/SN002/SN002_au{au}.txt", "".join(f"{n},0\n" for n in range(1, 13)))
    tree.video("Videos_RightCamera/RightVideoSN002_comp.avi", frames)
    reading = lenient("disfa", tree, aus=(1, 12))
    assert reading.manifest[0].length == length
    assert found(reading, rule, severity).count == abs(frames - 12)


def test_one_short_au_file_masks_its_tail_only(tree: Tree) -> None:
    tree.text("ActionUnit_Labels/SN002/SN002_au1.txt", "".join(f"{n},3\n" for n in range(1, 13)))
    tree.text("ActionUnit_Labels/SN002/SN002_au12.txt", "".join(f"{n},3\n" for n in range(1, 9)) + "9,7\n")
    tree.video("Videos_RightCamera/RightVideoSN002_comp.avi", 12)
    reading = lenient("disfa", tree, aus=(1, 12, 25))
    assert reading.manifest.au_labels(0).T.tolist() == [[1] * 12, [1] * 8 + [-1] * 4, [-1] * 12]
    assert found(reading, "score the same frames", "note").count == 3
    issue = found(reading, "an AU cell is 0..5")
    assert (issue.path, issue.line, issue.value) == ("ActionUnit_Labels/SN002/SN002_au12.txt", 9, "AU12=7")
    assert found(reading, "each AU has a label file").value == "AU25"


def test_an_unreadable_video_costs_its_rows_and_no_others(tree: Tree) -> None:
    for subject in ("SN001", "SN002"):
        tree.text(f"ActionUnit_Labels/{subject}/{subject}_au1.txt", "".join(f"{n},0\n" for n in range(1, 13)))
    tree.video("Videos_RightCamera/RightVideoSN001_comp.avi", 12)
    tree.text("Videos_RightCamera/RightVideoSN002_comp.avi", "not a video")
    reading = lenient("disfa", tree, aus=(1,))
    assert [record.clip for record in reading.manifest] == ["SN001"]
    issue = found(reading, "a listed video is there and can be read")
    assert issue.value.startswith("Videos_RightCamera/RightVideoSN002_comp.avi: ")
    assert (issue.path, issue.count) == ("ActionUnit_Labels/SN002/SN002_au1.txt", 12)


def test_absent_listed_clips_are_named_by_list_and_line(tree: Tree) -> None:
    ferv39k(tree, "A/Sad/0001 Sad\nA/Sad/0077 Sad\nA/Sad/0002 Sad\n")
    reading = lenient("ferv39k", tree)
    assert len(reading.manifest) == 2
    assert found(reading, "a listed folder is there") == Issue(
        TRAIN, 2, "2_ClipsforFaceCrop/A/Sad/0077: no image", "a listed folder is there and holds numbered images"
    )


@pytest.mark.parametrize(("spelling", "expression"), [
        ("SAD", "sadness"), ("Sadness", "sadness"), ("Suprise", "surprise"), ("happiness", "happiness"),
        ("Disgusted", "disgust"),
])  # fmt: skip
def test_other_spellings_are_understood_and_noted(tree: Tree, spelling: str, expression: str) -> None:
    ferv39k(tree, f"A/Sad/0001 {spelling}\n")
    reading = read_corpus("ferv39k", tree.root)
    assert reading.manifest[0].expression == expression
    issue = found(reading, "spelt as the owner does", "note")
    assert (issue.path, issue.line, issue.value) == (TRAIN, 1, spelling)


@pytest.mark.parametrize("spelling", ["Bored", "contempt", "7"])
def test_a_class_nobody_knows_is_a_problem(tree: Tree, spelling: str) -> None:
    ferv39k(tree, f"A/Sad/0001 Sad\nA/Sad/0002 {spelling}\n")
    reading = lenient("ferv39k", tree)
    assert [record.clip for record in reading.manifest] == ["A/Sad/0001"]
    assert [(issue.line, issue.severity) for issue in reading.issues] == [(2, "problem")]


def test_a_clip_listed_twice_is_used_once(tree: Tree) -> None:
    ferv39k(tree, "A/Sad/0001 Sad\nA/Sad/0002 Sad\nA/Sad/0001 Sad\n")
    reading = lenient("ferv39k", tree)
    assert len(reading.manifest) == 2
    assert found(reading, "a clip is listed once").line == 3


def test_a_clip_in_train_and_test_is_a_leak_and_refused(tree: Tree) -> None:
    ferv39k(tree, "A/Sad/0001 Sad\nA/Sad/0002 Sad\n", "A/Sad/0002 Sad\n")
    with pytest.raises(CorpusRefused, match=r"1 leaks.*\n.*train_All\.csv:2: 'A/Sad/0002'"):
        read_corpus("ferv39k", tree.root)
    reading = read_corpus("ferv39k", tree.root, allow_leaks=True)
    assert {record.clip: record.part for record in reading.manifest} == {"A/Sad/0001": "train", "A/Sad/0002": "test"}


def test_a_subject_in_two_parts_is_a_leak_and_refused(tree: Tree) -> None:
    tree.text("mine.csv", "source,expression,subject,part\na,anger,S1,train\nb,fear,S2,train\nc,fear,S1,test\n")
    for clip in "abc":
        tree.images(clip, range(3))
    with pytest.raises(CorpusRefused, match="S1: 1 in train, 1 in test"):
        read_corpus("manifest", tree.root)
    assert len(read_corpus("manifest", tree.root, allow_leaks=True).manifest) == 3


def dfew(tree: Tree, **lists: str) -> None:
    """One or more of set_1..set_5 by side: train1="1,1", test1="2,2" (rows joined by blanks)."""
    for name, rows in lists.items():
        path = f"EmoLabel_DataSplit/{name[:-1]}(single-labeled)/set_{name[-1]}.csv"
        tree.text(path, "video_name,label\n" + "\n".join(rows.split()) + "\n")
    for clip in range(1, 4):
        tree.images(f"Clip/clip_224x224_16f/{clip:05d}", range(1, 17))


def test_dfew_lists_are_checked_against_each_other(tree: Tree) -> None:
    dfew(tree, train1="1,1 2,2 3,3", test1="3,3", train2="1,4 3,3", test2="2,2")
    reading = lenient("dfew", tree, allow_leaks=True)
    assert {record.clip: record.part for record in reading.manifest} == {"00003": "1", "00002": "2"}
    assert found(reading, "in its train list or in its test list", "leak").line == 4
    issue = found(reading, "a clip has one class in all lists")
    assert issue.value == "00001: anger here, happiness in set_1.csv:2"


def test_dfew_clips_that_a_fold_lists_on_neither_side_are_noted(tree: Tree) -> None:
    dfew(tree, train1="2,2", test1="1,1", train2="1,1", test2="2,2 3,3")
    reading = read_corpus("dfew", tree.root)
    assert len(reading.manifest) == 3
    issue = found(reading, "in the train or the test list of every fold", "note")
    assert (issue.path, issue.value) == ("EmoLabel_DataSplit/train(single-labeled)/set_1.csv", "00003")


def test_dfew_test_in_two_folds_is_named(tree: Tree) -> None:
    dfew(tree, train1="2,2", test1="1,1", train2="2,2", test2="1,1 3,3")
    reading = lenient("dfew", tree)
    assert {record.clip: record.part for record in reading.manifest} == {"00001": "1", "00002": None, "00003": "2"}
    assert found(reading, "a clip is test in one fold").line == 2


def test_gbk_and_undecodable_text(tree: Tree) -> None:
    ferv39k(tree, "A/Sad/0001 Sad\n", clips=("A/Sad/0001", "A/悲/0001"))
    (tree.root / TEST).write_bytes("A/悲/0001 Sad\n".encode("gbk"))
    reading = read_corpus("ferv39k", tree.root)
    assert len(reading.manifest) == 2
    assert found(reading, "read as GBK", "note").path == TEST
    (tree.root / TEST).write_bytes(b"\xff\xff\xff")
    assert found(lenient("ferv39k", tree), "text is UTF-8 or GBK").path == TEST


def test_windows_text_reads_like_any_other(tree: Tree) -> None:
    ferv39k(tree, "\ufeffA/Sad/0001 Sad\r\n\r\nA/Sad/0002 Sad\r\n")
    reading = read_corpus("ferv39k", tree.root)
    assert (len(reading.manifest), reading.issues) == (2, [])


def test_the_ceiling_is_a_setting(tree: Tree) -> None:
    ferv39k(tree, "A/Sad/0001 Sad\n" + "".join(f"A/Sad/0{n} Sad\n" for n in range(900, 903)))
    with pytest.raises(
        CorpusRefused, match=r"3 of 4 label rows have problems \(75\.0%\), over max_issue_fraction 0\.05"
    ):
        read_corpus("ferv39k", tree.root)
    assert len(read_corpus("ferv39k", tree.root, max_issue_fraction=0.75).manifest) == 1
    with pytest.raises(CorpusRefused, match="over max_issues 2"):
        read_corpus("ferv39k", tree.root, max_issue_fraction=1, max_issues=2)


@pytest.mark.parametrize(("option", "value", "rule"), [
    ("camera", "top", "camera"), ("threshold", 9, "threshold"), ("aus", (3,), "AU 3 is not scored here"),
    ("aus", (), "name at least one AU"), ("colour", 1, "colour"), ("max_issue_fraction", 2, "max_issue_fraction"),
])  # fmt: skip
def test_unknown_options_and_values_are_refused(tree: Tree, option: str, value: object, rule: str) -> None:
    tree.root.mkdir()
    with pytest.raises(ValueError, match=rule):
        read_corpus("disfa", tree.root, **{option: value})


def test_the_summary_has_a_line_per_rule_worst_first(tree: Tree) -> None:
    ferv39k(tree, "A/Sad/0001 SAD\nA/Sad/0002 Sad\n" + "A/Sad/0009 Sad\n" + "A/Sad/0001 Sad\n" * 2, "A/Sad/0002 Sad\n")
    lines = lenient("ferv39k", tree, allow_leaks=True).summary()
    assert [line.split(":")[0] for line in lines] == ["leak x1", "problem x2", "problem x1", "note x1"]
    assert f"(first: {TRAIN}:4: 'A/Sad/0001')" in lines[1]


@pytest.mark.parametrize(("cell", "lost"), [("?", 1), ("1,", 12)], ids=["one row", "a trailing comma in every row"])
def test_a_row_is_lost_once_however_many_files_score_it(tree: Tree, cell: str, lost: int) -> None:
    for au in (1, 2, 4, 6, 9, 12, 25, 26):
        rows = [f"{frame},{cell if lost == 12 or frame == 5 else 1}" for frame in range(1, 13)]
        tree.text(f"ActionUnit_Labels/SN001/SN001_au{au}.txt", "\n".join(rows))
    tree.video("Videos_RightCamera/RightVideoSN001_comp.avi", 12)
    reading = lenient("disfa", tree)
    assert (reading.lost, reading.rows) == (lost, 12)
    assert len([issue for issue in reading.issues if issue.severity == "problem"]) == 8 * lost
    assert sum("problem x" in line for line in reading.summary()) == 1
    assert f"problem x{lost}: " in reading.summary()[0]
