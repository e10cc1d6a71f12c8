"""AU corpora as shipped: which label lands on which frame, through padding, shifts, gaps, cameras and thresholds."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from ssm.labels.vocabulary import BP4D_AUS, DISFA_AUS
from ssm_platform.corpora import read_corpus
from ssm_platform.corpora.readers.action_units.bp4d import PARTS as BP4D_PARTS
from ssm_platform.corpora.readers.action_units.disfa import PARTS as DISFA_PARTS
from ssm_platform.records.clip_names import sequence_of
from ssm_platform.records.manifest import Record

if TYPE_CHECKING:
    Tree = Any

DISFA_FILES = (1, 2, 4, 5, 6, 9, 12, 15, 17, 20, 25, 26)


def code(frame: int, au: int) -> int:
    """A label that tells frame and AU apart, so that a shift by one shows."""
    return (frame * 7 + au * 3 + frame // 3) % 2


def bp4d_rows(frames: range) -> dict[int, list[int]]:
    return {frame: [code(frame, au) for au in BP4D_AUS] for frame in frames}


def expected(frames: range, aus: tuple[int, ...] = BP4D_AUS) -> np.ndarray:
    return np.array([[code(frame, au) for au in aus] for frame in frames], np.int8)


def write_disfa(tree: Tree, subject: str = "SN001", frames: int = 12, camera: str = "Right") -> None:
    for au in DISFA_FILES:
        lines = "".join(f"{frame},{2 * code(frame, au) + code(frame, au + 1)}\n" for frame in range(1, frames + 1))
        tree.text(f"ActionUnit_Labels/{subject}/{subject}_au{au}.txt", lines)
    tree.video(f"Videos_{camera}Camera/{camera}Video{subject}_comp.avi", frames)


def labels_of(record: Record) -> np.ndarray:
    assert record.au_labels is not None
    return record.au_labels


def test_published_parts_are_a_partition_into_subjects() -> None:
    assert len(BP4D_PARTS) == 41
    assert len(DISFA_PARTS) == 27
    assert set(BP4D_PARTS.values()) == set(DISFA_PARTS.values()) == {"P1", "P2", "P3"}


@pytest.mark.parametrize("name", ["{}.jpg", "{:04d}.jpg", "{:06d}.png"])
def test_bp4d_images_meet_their_rows_by_integer(tree: Tree, name: str) -> None:
    tree.occurrences("AUCoding/AU_OCC/F001_T1.csv", bp4d_rows(range(98, 104)), BP4D_AUS)
    tree.images("Sequences(2D+3D)/F001/T1", range(95, 110), name)
    reading = read_corpus("bp4d", tree.root)
    (record,) = reading.manifest
    assert (record.clip, record.subject, record.part, record.rate) == ("F001_T1", "F001", "P1", 25.0)
    assert record.files == tuple(name.format(frame) for frame in range(98, 104))
    assert np.array_equal(labels_of(record), expected(range(98, 104)))
    assert (reading.issues, reading.rows) == ([], 6)


def test_bp4d_avi_frame_f_has_the_label_of_row_f_plus_1(tree: Tree) -> None:
    tree.occurrences("AUCoding/AU_OCC/M002_T8.csv", bp4d_rows(range(4, 9)), BP4D_AUS)
    tree.video("BP4D-Spontaneous/2M02_13.avi", 20, rate=25)
    (record,) = read_corpus("bp4d", tree.root).manifest
    assert (record.kind, record.source, record.start, record.length) == ("video", "BP4D-Spontaneous/2M02_13.avi", 3, 5)
    assert np.array_equal(labels_of(record), expected(range(4, 9)))


def test_bp4d_images_made_from_the_avi_shift_likewise(tree: Tree) -> None:
    tree.occurrences("AUCoding/AU_OCC/F003_T2.csv", bp4d_rows(range(4, 9)), BP4D_AUS)
    tree.images("2F03_03", range(0, 20))
    (record,) = read_corpus("bp4d", tree.root).manifest
    assert record.files == ("3.jpg", "4.jpg", "5.jpg", "6.jpg", "7.jpg")
    assert np.array_equal(labels_of(record), expected(range(4, 9)))


def test_bp4d_columns_follow_the_aus_asked_for(tree: Tree) -> None:
    tree.occurrences("AUCoding/AU_OCC/F001_T1.csv", bp4d_rows(range(1, 6)), BP4D_AUS)
    tree.images("Sequences(2D+3D)/F001/T1", range(1, 6))
    manifest = read_corpus("bp4d", tree.root, aus=(12, 1)).manifest
    assert manifest.labels.aus == (12, 1)
    assert np.array_equal(labels_of(manifest[0]), expected(range(1, 6), (12, 1)))


def test_bp4dplus_image_number_is_the_row_minus_1(tree: Tree) -> None:
    aus = (*BP4D_AUS, 39)
    rows = {frame: [code(frame, au) for au in BP4D_AUS] + [9] for frame in range(1, 8)}
    tree.occurrences("AUCoding/AU_OCC/F082_T6.csv", rows, aus)
    tree.images("2D+3D/F082/T6", range(0, 7), "{:04d}.jpg")
    (record,) = read_corpus("bp4dplus", tree.root).manifest
    assert record.files is not None
    assert record.files[0] == "0000.jpg"
    assert np.array_equal(labels_of(record), expected(range(1, 8)))
    assert (record.subject, record.part) == ("F082", None)


@pytest.mark.parametrize(("threshold", "active"), [(1, lambda score: score >= 1), (2, lambda score: score >= 2)])
def test_disfa_row_n_is_the_nth_frame_and_the_threshold_decides(tree: Tree, threshold: int, active: Any) -> None:
    write_disfa(tree)
    reading = read_corpus("disfa", tree.root, threshold=threshold)
    (record,) = reading.manifest
    score = np.array([[2 * code(f, au) + code(f, au + 1) for au in DISFA_AUS] for f in range(1, 13)])
    assert np.array_equal(labels_of(record), active(score))
    assert (record.start, record.length, record.rate, record.part) == (0, 12, 20.0, "P1")
    assert [issue.value for issue in reading.issues] == ["Right"]


def test_disfa_camera_is_a_choice(tree: Tree) -> None:
    write_disfa(tree, camera="Left")
    write_disfa(tree, camera="Right")
    assert "LeftVideoSN001" in read_corpus("disfa", tree.root, camera="left").manifest[0].source
    assert "RightVideoSN001" in read_corpus("disfa", tree.root, camera="right").manifest[0].source
    default = read_corpus("disfa", tree.root)
    assert "LeftVideoSN001" in default.manifest[0].source
    assert [(issue.value, issue.severity) for issue in default.issues] == [("Left", "note")]


def test_disfaplus_reads_headers_and_comments(tree: Tree) -> None:
    for au in DISFA_FILES:
        rows = "".join(f"{frame:03d}.jpg     {5 * code(frame, au)}\n" for frame in range(4))
        tree.text(f"Labels/SN001/A1_AU1_TrailNo_1/AU{au}.txt", f"Frame Intensity\n# coder 1\n{rows}")
    tree.images("Images/SN001/A1_AU1_TrailNo_1", range(4), "{:03d}.jpg")
    reading = read_corpus("disfaplus", tree.root)
    (record,) = reading.manifest
    assert (record.clip, record.subject) == ("SN001/A1_AU1_TrailNo_1", "SN001")
    assert np.array_equal(labels_of(record), expected(range(4), DISFA_FILES))
    assert reading.issues == []


def test_affwild2_au_splits_at_missing_crops_and_keeps_persons_apart(tree: Tree) -> None:
    header = ",".join(f"AU{au}" for au in (1, 2, 4, 6, 7, 10, 12, 15, 23, 24, 25, 26))
    aus = (1, 2, 4, 6, 7, 10, 12, 15, 23, 24, 25, 26)
    rows = [",".join(str(code(frame, au)) for au in aus) for frame in range(1, 11)]
    rows[9] = ",".join(["-1"] * 12)
    for person in ("video7_left", "video7_right"):
        tree.text(f"AU_Detection_Challenge/Train_Set/{person}.txt", "\n".join([header, *rows]))
    tree.images("cropped/video7_left", range(1, 11), "{:05d}.jpg")
    tree.images("cropped/video7_right", [1, 2, 3, 6, 7], "{:05d}.jpg")
    reading = read_corpus("affwild2_au", tree.root)
    left, first, second = reading.manifest
    assert [record.clip for record in (left, first, second)] == ["video7_left", "video7_right#0", "video7_right#1"]
    assert sequence_of(first.clip) == sequence_of(second.clip) == "video7_right"
    assert np.array_equal(labels_of(left)[:9], expected(range(1, 10), aus))
    assert (labels_of(left)[9] == -1).all()
    assert np.array_equal(labels_of(second), expected(range(6, 8), aus))
    assert second.files == ("00006.jpg", "00007.jpg")
    assert (left.part, left.subject, reading.lost) == ("train", None, 0)
    assert sum(issue.count for issue in reading.issues if "labelled frame is there" in issue.rule) == 5


def test_affwild2_expression_cuts_runs_of_one_class(tree: Tree) -> None:
    classes = [4] * 20 + [7] * 5 + [0] * 3 + [-1] * 2 + [6] * 40
    text = "\n".join(["Neutral,Anger,Disgust,Fear,Happiness,Sadness,Surprise,Other", *map(str, classes)])
    tree.text("EXPR_Recognition_Challenge/Validation_Set/film.txt", text)
    tree.images("cropped/film", [n for n in range(1, 71) if n != 50], "{:05d}.jpg")
    reading = read_corpus("affwild2_expr", tree.root, min_length=16, max_length=18)
    clips = [(record.clip, record.expression, record.length) for record in reading.manifest]
    assert clips == [("film/00001", "happiness", 18), ("film/00031", "surprise", 18), ("film/00051", "surprise", 18)]
    notes = {issue.rule.split(";")[0]: issue.count for issue in reading.issues}
    assert notes["class 'other' is outside the vocabulary"] == 5
    assert notes["a missing-label code is left out"] == 2
    assert notes["a run of one class has at least 16 frames"] == 2 + 3 + 1 + 2
    assert reading.lost == 0
