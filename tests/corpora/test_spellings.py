"""Corpora as they come out of their archives: owners' spellings, wrappers, authors' lists, companions, own tables.

Every tree here is typed from what owners and authors publish, not written by our own writer.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from ssm.labels.vocabulary import BP4D_AUS
from ssm_platform.corpora import CorpusRefused, read_corpus
from ssm_platform.corpora.text import cells, portable
from ssm_platform.records.issues import Reading

if TYPE_CHECKING:
    Tree = Any

DISFA_FILES = (1, 2, 4, 5, 6, 9, 12, 15, 17, 20, 25, 26)
ZEROS = {frame: [0] * 12 for frame in range(1, 6)}
TWELVE = "AU1,AU2,AU4,AU6,AU7,AU10,AU12,AU15,AU23,AU24,AU25,AU26"


def clips(reading: Reading) -> list[str]:
    return [record.clip for record in reading.manifest]


def disfa_labels(tree: Tree, folder: str, subject: str = "SN001") -> None:
    for au in DISFA_FILES:
        tree.text(f"{folder}/{subject}/{subject}_au{au}.txt", "".join(f"{n},{n % 3}\n" for n in range(1, 9)))


@pytest.mark.parametrize("video", [
    "Videos_LeftCamera/LeftVideoSN001_comp.avi",
    "Video_LeftCamera/LeftVideoSN001_Comp.avi",
    "Videos_LeftCamera/Videos_LeftCamera/LeftVideoSN001_comp.avi",
    "DISFA/videos_leftcamera/leftvideosn001_comp.AVI",
    "Video_RightCamera/RightVideoSN001_Comp.avi",
    "Videos_RightCamera/RightVideoSN001_comp.avi",
])  # fmt: skip
@pytest.mark.parametrize(
    "labels", ["ActionUnit_Labels", "ActionUnit_Labels/ActionUnit_Labels", "DISFA/ActionUnit_Labels"]
)
def test_disfa(tree: Tree, video: str, labels: str) -> None:
    disfa_labels(tree, labels)
    tree.video(video.replace(".AVI", ".avi"), 8).rename(tree.root / video)
    tree.text(f"{Path(video).parent}/._{Path(video).name}", "Mac OS X")
    reading = read_corpus("disfa", tree.root)
    (record,) = reading.manifest
    assert (record.source, record.length, record.part) == (video, 8, "P1")
    assert [i.value for i in reading.issues if "camera" in i.rule] == ["Left" if "left" in video.lower() else "Right"]


def test_disfa_of_the_other_camera_says_what_is_there(tree: Tree) -> None:
    disfa_labels(tree, "ActionUnit_Labels")
    tree.video("Video_RightCamera/RightVideoSN001_Comp.avi", 8)
    with pytest.raises(CorpusRefused, match=r"(?s)expected.*saw in .*Video_RightCamera/\n\s+RightVideoSN001_Comp\.avi"):
        read_corpus("disfa", tree.root, camera="left")


AFFWILD = [
    "",
    "6th ABAW Annotations/",
    "Third ABAW Annotations/",
    "9th_ABAW_Annotations/9th_ABAW_Annotations/",
    "annotations/",
]
CROPS = [
    "cropped_aligned/batch1/cropped_aligned/{}",
    "cropped_aligned/batch2/cropped_aligned/{}",
    "cropped/batch1/{}",
    "batch2/cropped_aligned/{}",
    "cropped/{}",
    "cropped_aligned/{}",
]


@pytest.mark.parametrize("crops", CROPS)
@pytest.mark.parametrize("above", AFFWILD)
def test_affwild2(tree: Tree, above: str, crops: str) -> None:
    rows = "\n".join([TWELVE, *(["0," * 11 + "1"] * 6)])
    tree.text(f"{above}AU_Detection_Challenge/Train_Set/video1_left.txt", rows)
    tree.text(f"{above}AU_Detection_Challenge/Validation_Set/10-60-1280x720.txt", rows)
    expressions = "Neutral,Anger,Disgust,Fear,Happiness,Sadness,Surprise,Other\n" + "4\n" * 6
    tree.text(f"{above}EXPR_Classification_Challenge/Train_Set/video1_left.txt", expressions)
    for video in ("video1_left", "10-60-1280x720"):
        tree.images(crops.format(video), range(1, 7), "{:05d}.jpg")
    reading = read_corpus("affwild2_au", tree.root)
    assert [(r.clip, r.part, r.length) for r in reading.manifest] == [
        ("video1_left", "train", 6),
        ("10-60-1280x720", "validation", 6),
    ]
    assert clips(read_corpus("affwild2_expr", tree.root, min_length=2)) == ["video1_left/00001"]


def test_affwild2_in_two_batches(tree: Tree) -> None:
    for batch, video in (("batch1", "a"), ("batch2", "b")):
        tree.text(f"AU_Detection_Challenge/Train_Set/{video}.txt", "\n".join([TWELVE, "0," * 11 + "1"]))
        tree.images(f"cropped_aligned/{batch}/cropped_aligned/{video}", [1], "{:05d}.jpg")
    assert clips(read_corpus("affwild2_au", tree.root)) == ["a", "b"]


def test_a_blank_line_is_a_frame_without_a_label(tree: Tree) -> None:
    rows = [
        TWELVE,
        *(",".join([str(n % 2)] * 12) for n in range(1, 4)),
        "",
        *(",".join([str(n % 2)] * 12) for n in (5, 6)),
    ]
    tree.text("AU_Detection_Challenge/Train_Set/v.txt", "\r\n".join(rows) + "\r\n")
    tree.text("EXPR_Set/Train_Set/v.txt", "Neutral\n4\n4\n\n4\n4\n4\n")
    tree.images("cropped/v", range(1, 7), "{:05d}.jpg")
    reading = read_corpus("affwild2_au", tree.root)
    assert [(r.files[0], r.length) for r in reading.manifest if r.files] == [("00001.jpg", 3), ("00005.jpg", 2)]
    assert [reading.manifest.au_labels(k)[:, 0].tolist() for k in range(2)] == [[1, 0, 1], [1, 0]]
    assert clips(read_corpus("affwild2_expr", tree.root, min_length=1)) == ["v/00001", "v/00004"]


@pytest.mark.parametrize("above", ["", "BP4D/", "AUCoding/", "BP4D-Spontaneous/BP4D-Spontaneous/"])
@pytest.mark.parametrize("images", ["Sequences(2D+3D)/F001/T1", "sequences(2d+3d)/Sequences(2D+3D)/f001/t1", "2F01_01"])
def test_bp4d(tree: Tree, above: str, images: str) -> None:
    tree.occurrences(f"{above}AUCoding/AU_OCC/f001_T1.CSV", ZEROS, BP4D_AUS)
    tree.images(images, range(6), "{:04d}.jpg")
    tree.text(f"{images}/._0001.jpg", "Mac OS X")
    tree.text(f"{above}AUCoding/AU_OCC/._f001_T1.CSV", "Mac OS X")
    reading = read_corpus("bp4d", tree.root)
    assert (clips(reading), reading.lost) == (["F001_T1"], 0)


def test_a_table_that_excel_quoted_with_semicolons(tree: Tree) -> None:
    header = ";".join(f'"{au}"' for au in (0, *BP4D_AUS))
    rows = [";".join(f'"{cell}"' for cell in (n, *[n % 2] * 12)) for n in range(1, 6)]
    tree.text("AUCoding/AU_OCC/F001_T1.csv", "\r\n".join([header, *rows]), "utf-8-sig")
    tree.images("Sequences/F001/T1", range(1, 6))
    assert read_corpus("bp4d", tree.root).manifest.au_labels(0)[:, 0].tolist() == [1, 0, 1, 0, 1]


WRAPPED: dict[str, tuple[Callable[[Tree, str], None], str]] = {
    "dfew": (
        lambda tree, top: (
            tree.text(f"{top}EmoLabel_DataSplit/train(single-labeled)/set_1.csv", 'video_name,label\n"1","2"\n'),
            tree.text(f"{top}EmoLabel_DataSplit/test(single-labeled)/set_1.csv", "video_name;label\n2;3\n"),
            [tree.images(f"{top}Clip/clip_224x224_16f/clip_224x224_16f/{n:05d}", range(1, 4)) for n in (1, 2)],
        ),
        "00002",
    ),
    "ferv39k": (
        lambda tree, top: (
            tree.text(f"{top}4_setups/All_scenes/train_All.csv", "clip label\nAction/Sad/0001 Sad\n"),
            tree.text(f"{top}4_setups/All_scenes/test_All.csv", "path,label\nAction/Sad/0002,Sad\n"),
            [tree.images(f"{top}2_ClipsForFaceCrop/Action/Sad/{n:04d}", range(1, 4)) for n in (1, 2)],
        ),
        "Action/Sad/0002",
    ),
    "mafw": (
        lambda tree, top: (
            tree.text(f"{top}Train_Test_Set/single/no_caption/set_1/train.txt", "00001.mp4\tanger\n"),
            tree.text(f"{top}Train_Test_Set/single/no_caption/set_1/test.txt", "00002.mp4, anger\n"),
            [tree.images(f"{top}data/frames/{n:05d}", range(1, 4)) for n in (1, 2)],
        ),
        "00002",
    ),
    "ckplus": (
        lambda tree, top: (
            tree.text(f"{top}Emotion_labels/Emotion/S005/001/S005_001_00000011_emotion.txt", "   3.0000000e+00\n"),
            tree.text(f"{top}Emotion_labels/Emotion/S005/001/._S005_001_00000011_emotion.txt", "Mac OS X\0\2"),
            tree.images(f"{top}extended-cohn-kanade-images/cohn-kanade-images/S005/001", [1, 2], "S005_001_{:08d}.png"),
        ),
        "S005/001",
    ),
    "rafdb": (
        lambda tree, top: (
            tree.text(f"{top}EmoLabel/list_partition_label.txt", "name label\ntrain_00001.jpg 5\n"),
            tree.images(f"{top}Image/aligned/aligned", [1], "train_{:05d}_aligned.jpg"),
        ),
        "train_00001",
    ),
    "affectnet": (
        lambda tree, top: (
            tree.text(
                f"{top}Manually_Annotated_file_lists/training.csv",
                "subDirectory_filePath,face_x,expression\n689\\1.jpg,0,3\n",
            ),
            tree.images(f"{top}Manually_Annotated/Manually_Annotated_Images/689", [1]),
        ),
        "689/1.jpg",
    ),
    "disfaplus": (
        lambda tree, top: (
            [tree.text(f"{top}Labels/SN001/A1/AU{au}.TXT", "000.jpg 0\n001.jpg 3\n") for au in DISFA_FILES],
            tree.images(f"{top}images/SN001/A1", [0, 1], "{:03d}.jpg"),
        ),
        "SN001/A1",
    ),
}  # fmt: skip


@pytest.mark.parametrize("top", ["", "Download/", "Corpus v1.0/Corpus v1.0/"])
@pytest.mark.parametrize("name", WRAPPED)
def test_other_corpora(tree: Tree, name: str, top: str) -> None:
    write, clip = WRAPPED[name]
    write(tree, top if top.count("/") < 2 else "Corpus v1.0/")
    for twin in ("._readme.txt", ".DS_Store", "Thumbs.db", "desktop.ini", "__MACOSX/x.txt", "@eaDir/y.txt"):
        tree.text(twin, "no data")
    reading = read_corpus(name, tree.root)
    assert clip in clips(reading)
    assert (reading.lost, reading.leaks) == (0, [])


def test_what_was_seen_is_said_where_nothing_fits(tree: Tree) -> None:
    tree.images("Bilder/Anna", range(30))
    tree.text("lies.mich", "hier")
    for name in ("bp4d", "dfew", "affwild2_au", "ckplus"):
        with pytest.raises(CorpusRefused, match=r"(?s)expected.*saw in .*Bilder/\n  Anna/\n.*and 27 more.*lies\.mich"):
            read_corpus(name, tree.root)


def bp4d_lines(folder: str, numbers: range, value: int, separator: str = "/") -> str:
    return "".join(f"{folder}{separator}{number}.jpg" + f" {value}" * 12 + "\n" for number in numbers)


@pytest.mark.parametrize("images", ["", "images/", "BP4D_crops/"])
def test_bp4d_lists_of_three_folds_in_one_folder(tree: Tree, images: str) -> None:
    for fold in (1, 2, 3):
        tree.text(f"list/train_{fold}f_data.list", bp4d_lines("2F01_01", range(fold, fold + 3), 1))
        tree.text(f"list/test_{fold}f_data.list", bp4d_lines("2F02_01", range(fold, fold + 3), 0))
    for folder in ("2F01_01", "2F02_01"):
        tree.images(f"{images}{folder}", range(1, 9))
    with pytest.raises(ValueError, match=r"folds, 1, 2, 3 .*train_1f_data\.list.*'fold'"):
        read_corpus("list_bp4d", tree.root)
    reading = read_corpus("list_bp4d", tree.root, fold=2)
    assert [(r.clip, r.subject, r.part, r.files) for r in reading.manifest] == [
        ("test/2F02_01", "F002", "test", ("2.jpg", "3.jpg", "4.jpg")),
        ("train/2F01_01", "F001", "train", ("2.jpg", "3.jpg", "4.jpg")),
    ]
    with pytest.raises(ValueError, match="no list of fold 4; found: 1, 2, 3"):
        read_corpus("list_bp4d", tree.root, fold=4)


WRITTEN = [
    "2F01_01\\{}.jpg",
    "D:\\data\\BP4D\\2F01_01\\{}.jpg",
    "./2F01_01/{}.jpg",
    "2F01_01//{}.jpg",
    "/home/author/bp4d/images/2F01_01/{}.jpg",
    '"2F01_01/{}.jpg"',
    "C:/BP4D/./2F01_01/{}.jpg",
]


@pytest.mark.parametrize("way", WRITTEN)
def test_paths_of_another_system_keep_women_apart(tree: Tree, way: str) -> None:
    one = "".join(way.format(n) + " 1" * 12 + "\n" for n in range(1, 6))
    other = "".join(way.replace("2F01", "2F02").format(n) + " 0" * 12 + "\n" for n in range(1, 6))
    tree.text("train.txt", one + other)
    tree.images("images/2F01_01", range(1, 6))
    tree.images("images/2F02_01", range(1, 6))
    reading = read_corpus("list_bp4d", tree.root)
    rows = [(r.source, r.subject, reading.manifest.au_labels(k)[0, 0]) for k, r in enumerate(reading.manifest)]
    assert rows == [("images/2F01_01", "F001", 1), ("images/2F02_01", "F002", 0)]


def test_an_absent_folder_is_not_replaced_by_one_of_other_people(tree: Tree) -> None:
    tree.text("train.txt", bp4d_lines("2F01_01", range(1, 4), 1))
    tree.images(".", range(1, 4))
    with pytest.raises(CorpusRefused, match="2F01_01: no image"):
        read_corpus("list_bp4d", tree.root)


@pytest.mark.parametrize(("names", "options"), [
    (("DFEW_set_1_train.txt", "DFEW_set_1_test.txt", "DFEW_set_2_train.txt", "DFEW_set_2_test.txt"), {"fold": 1}),
    (("FERV39K_train.txt", "FERV39K_test.txt"), {}),
    (("MAFW_set_1_train.txt", "MAFW_set_1_test.txt"), {}),
])  # fmt: skip
def test_fe_lists_under_their_authors_names(tree: Tree, names: tuple[str, ...], options: dict[str, int]) -> None:
    for number, name in enumerate(names):
        tree.text(f"annotation/{name}", f"Clip\\clip_224x224\\{number:05d} 4 0\n")
        tree.images(f"images/clip_224x224/{number:05d}", range(1, 5))
    rows = [(r.clip, r.part) for r in read_corpus("list_fe", tree.root, **options).manifest]
    assert rows == [("images/clip_224x224/00001", "test"), ("images/clip_224x224/00000", "train")]


def test_disfa_lists_under_their_authors_names(tree: Tree) -> None:
    for fold in (1, 2, 3):
        for part, subject in (("train", "SN001"), ("test", "SN003")):
            line = '{{"img_path": "RightVideo{}\\\\frame_1.jpg", "AUs": [999, 25, 999]}}\n'
            tree.text(f"DISFA_{part}{fold}.json", line.format(subject))
    tree.text("DISFA_all.json", "")
    for subject in ("SN001", "SN003"):
        tree.images(f"images/RightVideo{subject}", [1], "frame_{}.jpg")
    reading = read_corpus("list_disfa", tree.root, fold="3")
    assert [(r.subject, r.part) for r in reading.manifest] == [("SN003", "test"), ("SN001", "train")]


def test_names_of_classes_and_aus_between_commas(tree: Tree) -> None:
    tree.text("train.txt", "a 3 1\n")
    tree.images("a", range(3))
    (record,) = read_corpus("list_fe", tree.root, expressions="happiness, sadness,contempt").manifest
    assert record.expression == "sadness"
    disfa_labels(tree, "ActionUnit_Labels")
    tree.video("Videos_LeftCamera/LeftVideoSN001_comp.avi", 8)
    assert read_corpus("disfa", tree.root, aus=12).manifest.labels.aus == (12,)
    assert read_corpus("disfa", tree.root, aus="6,12").manifest.labels.aus == (6, 12)


def write_excel(path: Path, rows: list[list[object]]) -> None:
    import openpyxl

    book = openpyxl.Workbook()
    for row in rows:
        book.active.append(row)
    book.save(path)


OWN = [["Source", "Expression", "SUBJECT"], ["crops\\anna", "Happy", "anna"], ["crops/ben", "fear", "ben"]]


@pytest.mark.parametrize(("name", "separator", "encoding"), [
    ("mine.csv", ";", "utf-8-sig"),
    ("mine.csv", "\t", "utf-16"),
    ("mine.tsv", "\t", "utf-8"),
    ("mine.CSV", ",", "utf-16-le"),
    ("mine.xlsx", "", ""),
])  # fmt: skip
def test_own_tables_as_excel_and_pandas_write_them(tree: Tree, name: str, separator: str, encoding: str) -> None:
    tree.images("crops/anna", range(3))
    tree.images("crops/ben", range(3))
    for other in ("._mine.csv", "~$mine.xlsx", ".DS_Store"):
        tree.text(other, "no table")
    if name.endswith(".xlsx"):
        write_excel(tree.root / name, [*OWN, [None, None, None], ["crops/._anna", "fear", "x"]])
    else:
        tree.text(name, "\r\n".join(separator.join(row) for row in OWN) + "\r\n", encoding)
    rows = [(r.clip, r.source, r.expression, r.subject) for r in read_corpus("manifest", tree.root).manifest]
    assert rows == [
        ("crops/anna", "crops/anna", "happiness", "anna"),
        ("crops/ben", "crops/ben", "fear", "ben"),
    ]


def test_own_au_table_with_blanks_and_capitals(tree: Tree) -> None:
    import pandas as pd

    table = pd.DataFrame(
        {"SOURCE": ["s"] * 3, " Frame ": [0, 1, 2], "AU 1": [1, 0, 1], "au_12": [0, 1, None], "AU06_r": 2.5}
    )
    tree.images("s", range(3))
    table.to_csv(tree.root / "t.csv", sep=";", index=False)
    reading = read_corpus("manifest", tree.root)
    assert reading.manifest.labels.aus == (1, 12)
    assert reading.manifest.au_labels(0).tolist() == [[1, 0], [0, 1], [1, -1]]
    assert any(issue.value == "au06_r" and "intensity" in issue.rule for issue in reading.issues)


def test_the_nearest_thing_is_named(tree: Tree) -> None:
    tree.text("t.csv", "path,emotion\na,joy\n")
    with pytest.raises(ValueError, match=r"no column 'source' .*is it 'path'\? call it 'source'"):
        read_corpus("manifest", tree.root)
    tree.text("t.csv", "source,expression,subjct,fps\na,joy,x,3\n")
    tree.images("a", range(3))
    rules = {issue.value: issue.rule for issue in read_corpus("manifest", tree.root).issues}
    assert "did you mean 'subject'?" in rules["subjct"]
    assert "did you mean 'rate'?" in rules["fps"]


@pytest.mark.parametrize(("text", "path"), [
    ("a\\b\\1.jpg", "a/b/1.jpg"), ("C:\\x\\y", "/x/y"), ("./a//b/./c/", "a/b/c"), ("file:///home/a b", "/home/a b"),
    ('"a/b"', "a/b"), ("../a", "../a"), ("", ""),
])  # fmt: skip
def test_paths_are_written_as_here(text: str, path: str) -> None:
    assert portable(text) == path


@pytest.mark.parametrize(("text", "row"), [
    ("a b  c", ["a", "b", "c"]), ('"a, b",c', ["a, b", "c"]), ("a;b", ["a", "b"]), ("a\tb, c\td", ["a", "b, c", "d"]),
    ("", [""]), (",", ["", ""]), ('"1" "2"', ["1", "2"]),
])  # fmt: skip
def test_cells_of_a_line(text: str, row: list[str]) -> None:
    assert cells(text) == row
