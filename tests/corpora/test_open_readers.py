"""Corpora that anybody may fetch: FER-2013 in both forms, FER+, CREMA-D, RAVDESS; trees typed from their grammars."""

from __future__ import annotations

import shutil
import zipfile
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from ssm_platform.corpora import CorpusRefused, read_corpus
from ssm_platform.corpora.duplicates import same_content
from ssm_platform.media.frames import open_frames
from ssm_platform.records.manifest import Manifest

if TYPE_CHECKING:
    Tree = Any


def pixels(seed: int, side: int = 48) -> str:
    return " ".join(map(str, np.random.default_rng(seed).integers(0, 256, side * side)))


def test_fer2013_folders(tree: Tree) -> None:
    tree.pictures("train/happy/Training_7.jpg", "train/fear/Training_8.jpg", "test/happy/PublicTest_7.jpg")
    tree.pictures("test/angry/PrivateTest_9.jpg")
    reading = read_corpus("fer2013", tree.root)
    assert {(r.clip, r.source, r.files, r.expression, r.part, r.length) for r in reading.manifest} == {
        ("happy/Training_7", "train/happy", ("Training_7.jpg",), "happiness", "Training", 1),
        ("fear/Training_8", "train/fear", ("Training_8.jpg",), "fear", "Training", 1),
        ("happy/PublicTest_7", "test/happy", ("PublicTest_7.jpg",), "happiness", "PublicTest", 1),
        ("angry/PrivateTest_9", "test/angry", ("PrivateTest_9.jpg",), "anger", "PrivateTest", 1),
    }
    assert reading.issues == []


def test_fer2013_csv_gives_its_own_pixels(tree: Tree) -> None:
    rows = [f"3,{pixels(1)},Training", f"6,{pixels(2)},PublicTest", f"0,{pixels(3)},PrivateTest"]
    tree.text("fer2013.csv", "emotion,pixels,Usage\n" + "\n".join(rows) + "\n")
    manifest = read_corpus("fer2013", tree.root).manifest
    assert [(r.clip, r.kind, r.start, r.expression, r.part) for r in manifest] == [
        ("line 2", "pixels", 1, "happiness", "Training"),
        ("line 3", "pixels", 2, "neutral", "PublicTest"),
        ("line 4", "pixels", 3, "anger", "PrivateTest"),
    ]
    image = open_frames(manifest[1], manifest.root).read([0])
    assert image.shape == (1, 48, 48, 3)
    assert image[0, ..., 0].reshape(-1).tolist() == [int(value) for value in pixels(2).split()]
    assert (image[..., 0] == image[..., 2]).all()


def test_fer2013_csv_with_columns_of_another_order(tree: Tree) -> None:
    tree.text("icml_face_data.csv", f"emotion, Usage, pixels\n5, Training,{pixels(4)}\n1,PrivateTest,{pixels(5)}\n")
    manifest = read_corpus("fer2013", tree.root).manifest
    assert [(r.expression, r.part) for r in manifest] == [("surprise", "Training"), ("disgust", "PrivateTest")]


def test_fer2013_says_what_it_cannot_use_with_line_and_value(tree: Tree) -> None:
    broken = pixels(6).replace(" ", " 256 ", 1)
    rows = [
        f"7,{pixels(1)},Training",
        f"3,{broken},Training",
        "3,70,Training",
        f"3,{pixels(2)[:-4]},Training",
        f"3,{pixels(3)},Secret",
        f"3,{pixels(4)},Training",
        f"4,{pixels(5)},PrivateTest",
    ]
    tree.text("fer2013.csv", "emotion,pixels,Usage\n" + "\n".join(rows) + "\n")
    reading = read_corpus("fer2013", tree.root, max_issue_fraction=1)
    assert [(issue.line, issue.value) for issue in reading.issues] == [
        (2, "7"),
        (3, "a pixel is a whole number 0..255, found '256'"),
        (4, "an image is square and at least 8 pixels wide, found 1 pixels"),
        (5, f"an image is square and at least 8 pixels wide, found {len(pixels(2)[:-4].split())} pixels"),
        (6, "Secret"),
    ]
    assert [r.clip for r in reading.manifest] == ["line 7", "line 8"]
    assert reading.lost == 5


def test_fer2013_refuses_a_csv_without_its_columns(tree: Tree) -> None:
    tree.text("fer2013.csv", "label,pixels,Usage\n3,1 2 3,Training\n")
    with pytest.raises(CorpusRefused, match=r"fer2013.csv:1: 'label,pixels,Usage'.*emotion is not there"):
        read_corpus("fer2013", tree.root)


def test_content_of_typed_pixels_is_the_pixels(tree: Tree) -> None:
    rows = [
        f"3,{pixels(1)},Training",
        f"6,{pixels(2)},Training",
        f"3,{pixels(1)},Training",
        f"0,{pixels(3)},PublicTest",
    ]
    tree.text("fer2013.csv", "emotion,pixels,Usage\n" + "\n".join(rows) + "\n")
    (again,) = same_content(read_corpus("fer2013", tree.root).manifest)
    assert (again.value, again.severity) == ("line 4", "note")


def test_small_images_and_strange_names_are_said(tree: Tree) -> None:
    tree.pictures("train/happy/Training_1.jpg", "train/happy/PrivateTest_2.jpg", "test/sad/PrivateTest_3.jpg")
    tree.pictures("train/happy/Training_4.jpg", side=1)
    tree.text("train/sad/Training_5.jpg", "no image")
    reading = read_corpus("fer2013", tree.root, max_issue_fraction=1)
    assert {(issue.path, issue.value) for issue in reading.issues} == {
        ("train/happy/PrivateTest_2.jpg", "PrivateTest_2.jpg"),
        ("train/happy/Training_4.jpg", "Training_4.jpg: 1 x 1"),
        ("train/sad/Training_5.jpg", "Training_5.jpg: it is plain text"),
    }


def copied(tree: Tree) -> None:
    """Three faces in training, one of them again in each test side and one twice in training."""
    tree.pictures("train/happy/Training_1.png", "train/happy/Training_2.png", "train/sad/Training_3.png")
    tree.pictures("test/happy/PrivateTest_4.png", "test/happy/PublicTest_5.png")
    for place in ("train/sad/Training_6", "test/happy/PublicTest_7", "test/happy/PrivateTest_8"):
        shutil.copy(tree.root / "train/happy/Training_1.png", tree.root / f"{place}.png")
    shutil.copy(tree.root / "train/sad/Training_3.png", tree.root / "train/sad/Training_9.png")


def test_copies_leave_training_where_a_test_side_has_them(tree: Tree) -> None:
    copied(tree)
    reading = read_corpus("fer2013", tree.root)
    assert {r.clip for r in reading.manifest} == {
        "happy/Training_2", "sad/Training_3", "sad/Training_9", "happy/PublicTest_5",
        "happy/PrivateTest_4", "happy/PrivateTest_8",
    }  # fmt: skip
    subjects = {r.clip: r.subject for r in reading.manifest}
    assert subjects["sad/Training_3"] == subjects["sad/Training_9"] is not None  # no split can part them
    assert subjects["happy/Training_2"] is None
    told = {(issue.rule, issue.count) for issue in reading.issues}
    assert told == {("an image is there once", 1), ("copies of an image have one class; each keeps its own", 1)}
    assert not reading.leaks


def test_copies_that_are_kept_are_leaks(tree: Tree) -> None:
    copied(tree)
    with pytest.raises(CorpusRefused, match="1 leaks between parts"):
        read_corpus("fer2013", tree.root, duplicates="keep")
    assert len(read_corpus("fer2013", tree.root, duplicates="keep", allow_leaks=True).manifest) == 9


HEADER = "Usage,Image name,neutral,happiness,surprise,sadness,anger,disgust,fear,contempt,unknown,NF"


def test_ferplus_votes_become_distributions(tree: Tree) -> None:
    rows = ["Training,fer0.png,4,0,0,1,3,0,0,0,2,0", "Training,fer1.png,0,0,0,0,0,0,0,0,3,7"]
    rows += ["PublicTest,fer2.png,0,9,0,0,0,0,0,1,0,0", "PrivateTest,fer3.png,0,0,0,0,0,0,0,0,0,0"]
    rows += ["PrivateTest,fer4.png,0,x,0,0,0,0,0,0,0,0", "Secret,fer5.png,0,10,0,0,0,0,0,0,0,0"]
    rows += ["PrivateTest,fer6.png,0,10,0,0,0,0,0,0,0,0"]
    tree.text("fer2013new.csv", "\n".join([HEADER, *rows]))
    tree.pictures("FER2013Train/fer0.png", "FER2013Train/fer1.png", "data/FER2013Valid/fer2.png")
    reading = read_corpus("ferplus", tree.root, max_issue_fraction=1)
    first, second = reading.manifest
    classes = reading.manifest.labels.expressions
    assert (first.clip, first.expression, first.part) == ("fer0", "neutral", "Training")
    assert first.distribution is not None
    assert dict(zip(classes, first.distribution.tolist(), strict=True)) == pytest.approx(
        dict.fromkeys(classes, 0) | {"neutral": 0.5, "anger": 0.375, "sadness": 0.125}
    )
    assert (second.clip, second.expression) == ("fer2", "happiness")
    told = [(issue.line, issue.severity, issue.value) for issue in reading.issues]
    assert told == [
        (3, "note", "unknown 3, NF 7"),
        (5, "problem", "no vote"),
        (6, "problem", "happiness=x"),
        (7, "problem", "Secret"),
        (8, "problem", "fer6.png"),
    ]
    strict = read_corpus("ferplus", tree.root, max_issue_fraction=1, least_votes=2).manifest[0].distribution
    assert strict is not None
    assert strict[classes.index("sadness")] == 0


def test_ferplus_reads_the_pixels_of_fer2013_line_by_line(tree: Tree) -> None:
    tree.text("fer2013.csv", f"emotion,pixels,Usage\n3,{pixels(1)},Training\n6,{pixels(2)},PrivateTest\n")
    tree.text("fer2013new.csv", f"{HEADER}\nTraining,,0,0,9,0,0,0,0,0,1,0\nPrivateTest,,0,0,0,0,10,0,0,0,0,0\n")
    manifest = read_corpus("ferplus", tree.root).manifest
    assert [(r.clip, r.expression, r.part) for r in manifest] == [
        ("line 2", "surprise", "Training"), ("line 3", "anger", "PrivateTest"),
    ]  # fmt: skip
    assert open_frames(manifest[1], manifest.root).read([0])[0, 0, 0, 0] == int(pixels(2).split()[0])


def test_ferplus_refuses_votes_without_a_class(tree: Tree) -> None:
    tree.text("fer2013new.csv", HEADER.replace("contempt,", "") + "\nTraining,fer0.png,4,0,0,1,3,0,0,2,0\n")
    with pytest.raises(CorpusRefused, match="contempt is not there"):
        read_corpus("ferplus", tree.root)


@pytest.mark.parametrize(
    ("line", "told"), [("", []), ("  ", []), (",,", []), ("\x1a", [(3, "\x1a")]), (",f", [(3, "")])]
)
def test_ferplus_takes_blank_and_short_rows(tree: Tree, line: str, told: list[tuple[int, str]]) -> None:
    tree.text("fer2013new.csv", f"{HEADER}\nTraining,fer0.png,4,0,0,1,3,0,0,0,2,0\n{line}\n")
    tree.pictures("FER2013Train/fer0.png")
    reading = read_corpus("ferplus", tree.root, max_issue_fraction=1)
    assert len(reading.manifest) == 1
    assert [(issue.line, issue.value) for issue in reading.issues] == told
    assert (reading.rows, reading.lost) == (1 + len(told), len(told))


@pytest.mark.parametrize(("line", "told"), [
    ("", []), (",,", []), ('"200002",5,0,0,0,1,0', [(3, "200002,5,0,0,0,1,0")]), ('"200002"', [(3, "200002")])
])  # fmt: skip
def test_cremad_takes_blank_and_short_rows(tree: Tree, line: str, told: list[tuple[int, str]]) -> None:
    shutil.move(tree.video("VideoFlash/1001_DFA_ANG_XX.mp4", 3), tree.root / "VideoFlash/1001_DFA_ANG_XX.flv")
    tree.text("VideoDemographics.csv", "ActorID,Age\n1001,51\n")
    head = '"","A","D","F","H","N","S","fileName"'
    votes = f'{head}\n"200001",6,2,0,0,0,0,"1001_DFA_ANG_XX"\n{line}\n'
    tree.text("processedResults/tabulatedVotes.csv", votes)
    reading = read_corpus("cremad", tree.root, max_issue_fraction=1)
    assert reading.manifest[0].distribution is not None
    assert [(issue.line, issue.value) for issue in reading.issues] == told


def test_cremad_face_votes_and_actors(tree: Tree) -> None:
    for name in ("1001_DFA_ANG_XX", "1001_IEO_HAP_LO", "1002_TIE_NEU_XX"):
        shutil.move(tree.video(f"VideoFlash/{name}.mp4", 3), tree.root / f"VideoFlash/{name}.flv")
    tree.text("VideoDemographics.csv", "ActorID,Age,Sex,Race,Ethnicity\n1001,51,Male,Caucasian,Not Hispanic\n")
    head = '"","A","D","F","H","N","S","fileName","numResponses"'
    votes = ['"100001",0,0,0,9,0,0,"1001_DFA_ANG_XX",9', '"200001",6,2,0,0,0,0,"1001_DFA_ANG_XX",8']
    votes += ['"200002",0,0,0,0,0,0,"1001_IEO_HAP_LO",0', '"300001",0,9,0,0,0,0,"1001_DFA_ANG_XX",9']
    tree.text("processedResults/tabulatedVotes.csv", "\n".join([head, *votes]))
    reading = read_corpus("cremad", tree.root, max_issue_fraction=1)
    angry, happy = reading.manifest
    assert (angry.clip, angry.subject, angry.expression, angry.length) == ("1001_DFA_ANG_XX", "1001", "anger", 3)
    assert angry.distribution is not None
    assert angry.distribution.tolist() == [0, 0, 0, 0.75, 0.25, 0]
    assert (happy.expression, happy.distribution) == ("happiness", None)  # no vote on it: what was acted
    assert {(issue.path, issue.line, issue.value) for issue in reading.issues} == {
        ("processedResults/tabulatedVotes.csv", 4, "no vote"),
        ("VideoFlash/1002_TIE_NEU_XX.flv", None, "1002"),
    }
    assert read_corpus("cremad", tree.root, labels="acted", max_issue_fraction=1).manifest[0].distribution is None


def test_ravdess_one_record_a_performance(tree: Tree) -> None:
    for name in ("01-01-03-01-02-01-01", "02-01-03-01-02-01-01", "02-01-02-01-02-01-02", "02-01-08-02-01-01-02"):
        tree.video(f"Actor_{name[-2:]}/{name}.mp4", 3)
    tree.video("Actor_25/01-01-03-01-02-01-25.mp4", 3)
    tree.video("Actor_01/01-01-09-01-02-01-01.mp4", 3)
    tree.text("Actor_01/03-01-03-01-02-01-01.wav", "sound")
    reading = read_corpus("ravdess", tree.root, max_issue_fraction=1)
    assert [(r.clip, r.subject, r.expression, r.source) for r in reading.manifest] == [
        ("01-03-01-02-01-01", "01", "happiness", "Actor_01/01-01-03-01-02-01-01.mp4"),
        ("01-08-02-01-01-02", "02", "surprise", "Actor_02/02-01-08-02-01-01-02.mp4"),
    ]
    assert {(issue.severity, issue.value) for issue in reading.issues} == {
        ("note", "calm"), ("problem", "actor 25"), ("problem", "emotion 09"),
    }  # fmt: skip
    assert len(read_corpus("ravdess", tree.root, calm="neutral", max_issue_fraction=1).manifest) == 3


def test_the_real_fer2013(shared_data: Path, tmp_path: Path) -> None:
    archive = shared_data / "fer2013.zip"
    if not archive.is_file():
        pytest.skip("fer2013.zip is absent")
    with zipfile.ZipFile(archive) as file:
        file.extractall(tmp_path)
    whole = read_corpus("fer2013", tmp_path, duplicates="keep", allow_leaks=True)
    parts = Counter(whole.manifest.column("part").to_pylist())
    assert parts == {"Training": 28709, "PublicTest": 3589, "PrivateTest": 3589}
    assert whole.lost == 0
    assert whole.leaks
    images = {r.clip: r.subject for r in whole.manifest if r.subject}
    between = Counter(issue.value for issue in whole.issues if issue.rule == "an image is there once")
    assert between
    assert len(images) > len(set(images.values())) > 0


def test_a_manifest_of_hard_labels_is_the_file_it_was(tree: Tree, tmp_path: Path) -> None:
    tree.pictures("train/happy/Training_1.jpg", "test/sad/PrivateTest_2.jpg")
    manifest = read_corpus("fer2013", tree.root).manifest
    manifest.write(tmp_path / "hard.parquet")
    back = Manifest.read(tmp_path / "hard.parquet")
    assert "distribution" not in back._described().schema.names
    assert not back.soft
    assert back.fingerprint == manifest.fingerprint
    assert back[0].distribution is None
