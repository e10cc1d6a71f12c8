"""Whatever bytes a label file holds, a reader reports them and goes on; no row is unaccounted for."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from ssm.labels.vocabulary import BP4D_AUS
from ssm_platform.corpora import corpora, settings_of, survey
from ssm_platform.records.issues import Reading

CELL = st.sampled_from(
    ["0", "1", "9", "-1", "", "x", "1.0", "7", "1e300", "nan", "inf", '"', "99999999999999999999", "½", "²"]
)
PLACES = {
    "bp4d": "AUCoding/AU_OCC/F001_T1.csv",
    "disfa": "ActionUnit_Labels/SN001/SN001_au1.txt",
    "disfaplus": "Labels/SN001/A1/AU1.txt",
    "affwild2_au": "AU_Detection_Challenge/Train_Set/v.txt",
    "affwild2_expr": "EXPR_Recognition_Challenge/Train_Set/v.txt",
    "dfew": "EmoLabel_DataSplit/train(single-labeled)/set_1.csv",
    "ferv39k": "4_setups/All_scenes/train_All.csv",
    "mafw": "Train & Test Set/single/no_caption/set_1/train.txt",
    "rafdb": "EmoLabel/list_patition_label.txt",
    "affectnet": "Manually_Annotated_file_lists/training.csv",
    "ckplus": "Emotion/S005/001/S005_001_00000011_emotion.txt",
    "list_fe": "train.txt",
    "list_bp4d": "train.txt",
    "list_disfa": "train.json",
}
FUZZ = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])


def read(name: str, files: dict[str, bytes], folders: tuple[str, ...], **options: object) -> Reading:
    with TemporaryDirectory() as place:
        for path, data in files.items():
            target = Path(place, path)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(data)
        for folder in folders:
            Path(place, folder).mkdir(parents=True, exist_ok=True)
            for number in range(1, 9):
                Path(place, folder, f"{number}.jpg").write_bytes(b"image")
        corpus = corpora()[name]
        return survey(corpus, place, settings_of(corpus, options))


@FUZZ
@given(st.lists(st.lists(CELL, max_size=14), max_size=8))
def test_any_occurrence_table(rows: list[list[str]]) -> None:
    header = ",".join(map(str, (0, *BP4D_AUS)))
    text = "\n".join([header, *(",".join(row) for row in rows)])
    reading = read("bp4d", {"AUCoding/AU_OCC/F001_T1.csv": text.encode()}, ("Sequences(2D+3D)/F001/T1",))
    used = int(reading.manifest.lengths.sum())
    assert used + reading.lost >= reading.rows >= used


@settings(max_examples=150, deadline=None)
@example("list_bp4d", b",")
@given(st.sampled_from(sorted(PLACES)), st.binary(max_size=300))
def test_any_bytes_where_text_should_be(name: str, data: bytes) -> None:
    reading = read(name, {PLACES[name]: data}, ("cropped/v",))
    assert len(reading.manifest) == 0 or name.startswith("affwild2")


@FUZZ
@given(st.lists(st.lists(CELL, min_size=6, max_size=6), max_size=8))
def test_any_own_table(rows: list[list[str]]) -> None:
    frames = "source,frame,AU01,AU12,subject,rate\n" + "\n".join(",".join(["clip", *row[1:]]) for row in rows)
    clips = "source,expression,start,length,rate,part\n" + "\n".join(
        ",".join(["clip", "joy", *row[2:]]) for row in rows
    )
    for text in (frames, clips):
        reading = read("manifest", {"mine.csv": text.encode()}, ("clip",))
        assert reading.rows >= len(reading.manifest)


@pytest.mark.parametrize("clip", ["a/b/" + "x" * 5000, "a/b/c\0d", "../../..", "a/b/..", "/", "//x/y", "a\\b\\c", "."])
def test_names_no_folder_can_have(clip: str) -> None:
    lists = {"ferv39k": f"{clip} Sad\n", "list_fe": f"{clip} 8 0\n", "list_bp4d": f"{clip}/1.jpg" + " 0" * 12}
    lists["rafdb"] = f"train_{clip}.jpg 5\n"
    lists["affectnet"] = f"subDirectory_filePath,expression\n{clip},3\n"
    for name, text in lists.items():
        reading = read(name, {PLACES[name]: text.encode()}, ())
        assert len(reading.manifest) == 0
        assert reading.issues
    table = f"source,expression\n{clip.replace(chr(0), '')},joy\n".encode()
    assert len(read("manifest", {"mine.csv": table}, ()).manifest) == 0


def test_a_spreadsheets_unicode_text_is_read() -> None:
    text = "a/Sad/0001 Sad\n".encode("utf-16")
    assert len(read("ferv39k", {PLACES["ferv39k"]: text}, ("2_ClipsforFaceCrop/a/Sad/0001",)).manifest) == 1
