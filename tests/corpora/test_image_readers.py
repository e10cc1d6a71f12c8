"""Still images and posed sequences: RAF-DB, AffectNet in both releases, CK+."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from ssm_platform.corpora import read_corpus

if TYPE_CHECKING:
    Tree = Any


def test_rafdb_prefers_aligned_faces(tree: Tree) -> None:
    tree.text(
        "EmoLabel/list_patition_label.txt", "train_00001.jpg 5\ntrain_00002.jpg 1\ntest_0001.jpg 7\ntest_0002.jpg 8\n"
    )
    tree.images("Image/aligned", ["00001"], "train_{}_aligned.jpg")
    tree.images("Image/original", ["train_00001", "train_00002", "test_0001"])
    reading = read_corpus("rafdb", tree.root, max_issues=1, max_issue_fraction=1)
    assert [(r.clip, r.source, r.files, r.expression, r.part) for r in reading.manifest] == [
        ("train_00001", "Image/aligned", ("train_00001_aligned.jpg",), "sadness", "train"),
        ("train_00002", "Image/original", ("train_00002.jpg",), "surprise", "train"),
        ("test_0001", "Image/original", ("test_0001.jpg",), "neutral", "test"),
    ]
    assert [issue.line for issue in reading.issues] == [4]


def test_affectnet_label_files(tree: Tree) -> None:
    tree.images("train_set/images", range(3))
    tree.images("val_set/images", [0])
    for place, label in (
        ("train_set/annotations/0", "1"),
        ("train_set/annotations/1", "7"),
        ("val_set/annotations/0", "6"),
    ):
        np.save(tree.text(f"{place}_exp.npy", ""), np.array(label))
    tree.text("train_set/annotations/2_exp.npy", "broken")
    reading = read_corpus("affectnet", tree.root, max_issue_fraction=0.25)
    assert [(r.clip, r.expression, r.length) for r in reading.manifest] == [
        ("train/0", "happiness", 1),
        ("train/1", "contempt", 1),
        ("validation/0", "anger", 1),
    ]
    assert reading.lost == 1


def test_affectnet_csv_lists(tree: Tree) -> None:
    rows = "subDirectory_filePath,face_x,expression\n1/a.jpg,0,3\n1/b.jpg,0,9\n1/c.jpg,0,2\n"
    tree.text("Manually_Annotated_file_lists/training.csv", rows)
    tree.images("Manually_Annotated_Images/1", ["a"])
    reading = read_corpus("affectnet", tree.root, max_issue_fraction=0.5)
    assert [(r.clip, r.expression, r.part) for r in reading.manifest] == [("1/a.jpg", "surprise", "train")]
    assert [(issue.line, issue.severity) for issue in reading.issues] == [(3, "note"), (4, "problem")]


def test_ckplus_sequences_run_from_neutral_to_the_peak(tree: Tree) -> None:
    tree.text("Emotion/S005/001/S005_001_00000011_emotion.txt", "   3.0000000e+00\n")
    (tree.root / "Emotion/S005/002").mkdir()
    tree.images("cohn-kanade-images/S005/001", range(1, 12), "S005_001_{:08d}.png")
    reading = read_corpus("ckplus", tree.root)
    (record,) = reading.manifest
    assert (record.clip, record.subject, record.expression, record.length) == ("S005/001", "S005", "disgust", 11)
    assert record.files is not None
    assert record.files[-1] == "S005_001_00000011.png"
    assert [issue.severity for issue in reading.issues] == ["note"]


def npy(header: str) -> bytes:
    text = header.ljust(117) + "\n"
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text.encode() + b"12345678"


def npz() -> bytes:
    file = io.BytesIO()
    np.savez(file, a=1)
    return file.getvalue()


@pytest.mark.parametrize("data", [
    npy("{'descr': '<i8', 'fortran_order': False, 'shape': (100000000000000,), }"),
    npy("{'descr': '<i8', 'fortran_order': False, 'shape': (), "),
    npy("{[]: 1}"),
    npy("{'descr': '<U99999999', 'fortran_order': False, 'shape': (), }"),
    npy("-" * 900 + "1"),
    npy("-" * 9000 + "1"),
    b"\x93NUMPY\x03\x00",
    b"PK\x03\x04aaaa",
    npz(),
], ids=["huge", "torn", "unhashable", "wide", "deep", "long", "version", "PK", "npz"])  # fmt: skip
def test_affectnet_label_files_that_are_none(tree: Tree, data: bytes) -> None:
    tree.images("train_set/images", [0, 1])
    for number in (0, 1):
        path = tree.text(f"train_set/annotations/{number}_exp.npy", "")
        np.save(path, np.array("1"))
    path.write_bytes(data)
    reading = read_corpus("affectnet", tree.root, max_issue_fraction=0.5)
    assert [record.clip for record in reading.manifest] == ["train/0"]
    (issue,) = reading.issues
    assert (issue.path, issue.rule, reading.lost) == ("train_set/annotations/1_exp.npy", "a label is 0-10", 1)
