"""Expression corpora as shipped: deliveries, folds, class spellings, and the two readings of numeric names."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from ssm.labels.vocabulary import BASIC_EXPRESSIONS, EXPRESSIONS
from ssm_platform.corpora import CorpusRefused, read_corpus

if TYPE_CHECKING:
    Tree = Any

DFEW = "EmoLabel_DataSplit"


def write_dfew(tree: Tree, delivery: str = "frames16", clips: int = 10) -> None:
    """Clip k has label k % 7 + 1 and is test in fold k % 5 + 1."""
    for fold in range(1, 6):
        for side in ("train", "test"):
            listed = [k for k in range(1, clips + 1) if (k % 5 + 1 == fold) == (side == "test")]
            rows = "".join(f"{k},{k % 7 + 1}\n" for k in listed)
            tree.text(f"{DFEW}/{side}(single-labeled)/set_{fold}.csv", f"video_name,label\n{rows}")
    for k in range(1, clips + 1):
        if delivery == "original":
            tree.video(f"Clip/original/{k}.mp4", 5 + k % 3)
        elif delivery == "frames16":
            tree.images(f"Clip/clip_224x224_16f/{k:05d}", range(1, 17))
        else:
            tree.images(f"Clip/clip_224x224/{k:05d}", range(1, 5 + k), "{:05d}.jpg")


@pytest.mark.parametrize("delivery", ["frames", "frames16", "original"])
def test_dfew_part_is_the_fold_a_clip_is_test_in(tree: Tree, delivery: str) -> None:
    write_dfew(tree, delivery)
    reading = read_corpus("dfew", tree.root)
    assert reading.issues == []
    assert {record.clip: record.part for record in reading.manifest} == {
        f"{k:05d}": str(k % 5 + 1) for k in range(1, 11)
    }
    labels = (*BASIC_EXPRESSIONS[:5], "disgust", "fear")
    assert all(record.expression == labels[int(record.clip) % 7] for record in reading.manifest)
    assert {record.kind for record in reading.manifest} == {"video" if delivery == "original" else "frames"}


def test_dfew_frames_without_padding_are_in_order_of_number(tree: Tree) -> None:
    write_dfew(tree)
    (record, *_) = read_corpus("dfew", tree.root).manifest
    assert record.files == tuple(f"{number}.jpg" for number in range(1, 17))


def test_dfew_prefers_all_frames_and_delivery_chooses(tree: Tree) -> None:
    for delivery in ("frames", "frames16", "original"):
        write_dfew(tree, delivery, clips=5)
    sources = [read_corpus("dfew", tree.root, delivery=d).manifest[0].source for d in ("auto", "frames16", "original")]
    assert [source.split("/")[1] for source in sources] == ["clip_224x224", "clip_224x224_16f", "original"]


def test_dfew_one_fold_alone_is_used_and_the_rest_said_to_be_absent(tree: Tree) -> None:
    write_dfew(tree)
    for fold in range(2, 6):
        for side in ("train", "test"):
            (tree.root / f"{DFEW}/{side}(single-labeled)/set_{fold}.csv").unlink()
    reading = read_corpus("dfew", tree.root)
    assert {record.part for record in reading.manifest} == {"1", None}
    assert len(reading.manifest) == 10
    assert sum(issue.value == "absent" for issue in reading.issues) == 8


def write_ferv39k(tree: Tree) -> None:
    tree.text("4_setups/All_scenes/train_All.csv", "Action/Sad/0010 Sad\nCrime/Happy/0002 Happy\n")
    tree.text("4_setups/All_scenes/test_All.csv", "Action/Angry/0001 Angry\n")
    for clip in ("Action/Sad/0010", "Crime/Happy/0002", "Action/Angry/0001"):
        tree.images(f"2_ClipsforFaceCrop/{clip}", range(3), "{:04d}.jpg")


def test_ferv39k_lists_give_parts_and_classes(tree: Tree) -> None:
    write_ferv39k(tree)
    reading = read_corpus("ferv39k", tree.root)
    assert {record.clip: (record.expression, record.part) for record in reading.manifest} == {
        "Action/Angry/0001": ("anger", "test"),
        "Action/Sad/0010": ("sadness", "train"),
        "Crime/Happy/0002": ("happiness", "train"),
    }
    assert (reading.issues, reading.rows) == ([], 3)


def test_mafw_reads_sets_of_eleven_classes_and_notes_compounds(tree: Tree) -> None:
    for fold in range(1, 6):
        rows = {side: [] for side in ("train", "test")}
        for k, name in enumerate(EXPRESSIONS, 1):
            rows["test" if k % 5 + 1 == fold else "train"].append(f"{k:05d}.mp4 {name}")
        rows["train"].append("00099.mp4 anger_disgust")
        for side, lines in rows.items():
            tree.text(f"Train & Test Set/single/no_caption/set_{fold}/{side}.txt", "\n".join(lines))
    for k in range(1, 12):
        tree.video(f"data/clips/{k:05d}.mp4", 4, rate=25)
    reading = read_corpus("mafw", tree.root)
    assert [record.expression for record in sorted(reading.manifest, key=lambda r: r.clip)] == list(EXPRESSIONS)
    assert {(issue.severity, issue.rule) for issue in reading.issues} == {
        ("note", "a compound class has no single label; left out")
    }


def test_mafw_captions_in_gbk_are_read(tree: Tree) -> None:
    row = "{:05d}.mp4\tsadness\t一个女人在哭泣\tA woman is crying, mouth open\n"
    for fold in range(1, 6):
        for side in ("train", "test"):
            text = "".join(row.format(k) for k in range(1, 6) if (k == fold) == (side == "test"))
            tree.text(f"Train & Test Set/single/with_caption/set_{fold}/{side}.txt", text, "gbk")
    for k in range(1, 6):
        tree.images(f"data/frames/{k:05d}", range(1, 4))
    reading = read_corpus("mafw", tree.root)
    assert [(record.expression, record.part) for record in reading.manifest] == [
        ("sadness", str(k)) for k in range(1, 6)
    ]
    assert all("GBK" in issue.rule for issue in reading.issues)
    assert len(reading.issues) == 10


def test_a_root_without_the_corpus_says_what_it_should_hold(tree: Tree) -> None:
    tree.text("readme.txt", "nothing here")
    for name in ("bp4d", "disfa", "dfew", "ferv39k", "mafw", "affwild2_au", "affwild2_expr", "disfaplus", "bp4dplus"):
        with pytest.raises(CorpusRefused, match="no usable record; expected"):
            read_corpus(name, tree.root)
    with pytest.raises(ValueError, match=r"(?s)no such folder.*EmoLabel_DataSplit"):
        read_corpus("dfew", tree.root / "absent")
    with pytest.raises(ValueError, match="did you mean 'ferv39k'"):
        read_corpus("FERV39", tree.root)
