"""What a person shown is owed: no expression where they are off, a notice beside the numbers, a face that is hidden."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from ssm.interface.words import LAW, MOVEMENT
from ssm_platform.faces.blur import blurred
from ssm_platform.media.video import open_video
from ssm_platform.read.batch import Job, PredictSettings, predict_one
from ssm_platform.read.model_reader import ModelReader
from ssm_platform.read.rows import AnalysisOptions, analyse
from ssm_platform.read.tables import read_table
from ssm_platform.read.windows import Row, Window


@pytest.fixture(scope="module")
def reader(model_folder: Path) -> ModelReader:
    return ModelReader(model_folder, "cpu", threads=1)


def test_with_expressions_off_the_same_aus_are_told_and_nothing_else(face_video: Path, reader: ModelReader) -> None:
    told = list(analyse([face_video], reader))
    quiet = list(analyse([face_video], reader, AnalysisOptions(expressions="off")))
    rows = [row for row in told if isinstance(row, Row)]
    assert any(isinstance(one, Window) for one in told)
    assert not any(isinstance(one, Window) for one in quiet)
    for row, hushed in zip(rows, quiet, strict=True):
        assert isinstance(hushed, Row)
        assert (row.frame, row.face_id, row.box) == (hushed.frame, hushed.face_id, hushed.box)
        if row.success:
            np.testing.assert_array_equal(row.au_probability, hushed.au_probability)
            np.testing.assert_array_equal(row.au_present, hushed.au_present)
            assert hushed.expression is not None
            assert hushed.expression.size == 0


def test_files_name_no_expression_where_they_are_off_and_say_what_they_are(
    face_video: Path, reader: ModelReader, model_folder: Path, tmp_path: Path
) -> None:
    job, names = Job(str(face_video), "clip"), reader.description.vocabulary.expressions
    for mode in ("on", "off"):
        settings = PredictSettings(
            model=str(model_folder), plots=True, overlay=True, blur=True, analysis=AnalysisOptions(expressions=mode)
        )
        assert predict_one(job, tmp_path / mode, reader, settings).status == "done"
        sidecar = json.loads((tmp_path / mode / "clip.json").read_text())
        assert MOVEMENT in sidecar["notice"]
        assert (LAW in sidecar["notice"]) == (mode == "on")
        assert set(names) & set(read_table(tmp_path / mode / "clip.csv").columns) == (
            set(names) if mode == "on" else set()
        )
        assert (tmp_path / mode / "clip.face0.png").stat().st_size


def test_a_hidden_face_keeps_no_detail_and_the_rest_of_the_picture_stays(face_video: Path) -> None:
    image = next(iter(open_video(face_video).frames(0, 1))).image
    height, width = image.shape[:2]
    box = (width * 0.4, height * 0.3, width * 0.2, height * 0.4)
    hidden = blurred(image, [box, (width - 2.0, height - 2.0, 50.0, 50.0), (-90.0, -90.0, 20.0, 20.0)])
    x, y, w, h = (round(value) for value in box)
    inside = np.s_[y : y + h, x : x + w]
    noise = np.random.default_rng(0).integers(0, 255, image.shape).astype(np.uint8)
    assert np.abs(np.diff(blurred(noise, [box])[inside].astype(int), axis=1)).max() < 12  # noise differed by 254
    outside = np.s_[: y - h // 2, : x - w // 2]
    np.testing.assert_array_equal(hidden[outside], image[outside])
