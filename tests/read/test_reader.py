"""`Reader`: three lines from a face to a table, of files, arrays and pictures, with what it takes to judge them."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray
from PIL import Image

import ssm_platform
from ssm.inference.predictor import Predictor
from ssm.interface.crops import FaceCrop
from ssm.interface.preprocessing import Preprocessing
from ssm.interface.words import MOVEMENT
from ssm.saved.folder import swap
from ssm_platform import Reader
from ssm_platform.faces.settings import FaceSettings
from ssm_platform.media.handed_in import InputLimits, open_input
from ssm_platform.media.video import open_video
from ssm_platform.read.model_reader import ModelReader
from ssm_platform.read.rows import AnalysisOptions, analyse, face_stream
from ssm_platform.read.tables import to_frame
from ssm_platform.read.windows import Row, Window

HAAR = FaceSettings(detector="haar")


@pytest.fixture(scope="module")
def reader(model_folder: Path) -> Reader:
    return Reader(model_folder, device="cpu", threads=1, detection={"detector": "haar"})


@pytest.fixture(scope="module")
def table(reader: Reader, face_video: Path) -> pd.DataFrame:
    return reader.read(face_video)


@pytest.fixture(scope="module")
def frames(face_video: Path) -> NDArray[np.uint8]:
    return np.stack([frame.image for frame in open_video(face_video).frames()])


def numbers(table: pd.DataFrame) -> pd.DataFrame:
    return table.drop(columns=["input"], errors="ignore").astype(float).reset_index(drop=True)


def test_a_video_becomes_the_table_that_every_door_gives(
    reader: Reader, table: pd.DataFrame, face_video: Path, model_folder: Path
) -> None:
    told = list(analyse([face_video], ModelReader(model_folder, "cpu", threads=1), reader.options))
    rows = to_frame((one for one in told if isinstance(one, Row)), reader.model.vocabulary)
    pd.testing.assert_frame_equal(table, rows, check_exact=True)
    streamed = pd.DataFrame(reader.stream(face_video))
    pd.testing.assert_frame_equal(numbers(streamed), numbers(table))
    assert len(table.attrs["windows"]) == sum(isinstance(one, Window) for one in told)
    assert table.attrs["model"]["version"] == reader.model.version
    assert set(table.attrs["model"]["rule"]) == {str(au) for au in reader.model.vocabulary.aus}
    assert table.attrs["video"]["frames"] == 60
    assert MOVEMENT in table.attrs["notice"]


def test_arrays_and_pictures_are_read_like_files(
    reader: Reader, table: pd.DataFrame, frames: NDArray[np.uint8], tmp_path: Path
) -> None:
    pd.testing.assert_frame_equal(numbers(reader.read(frames, rate=25)), numbers(table))
    assert reader.read(frames[:30])["timestamp"].isna().all()
    Image.fromarray(frames[20]).save(tmp_path / "one.png")
    turned = Image.fromarray(frames[20]).transpose(Image.Transpose.ROTATE_90)
    together = reader.read([tmp_path / "one.png", frames[20], Image.fromarray(frames[20])])
    one, *others = (numbers(part) for _, part in together.groupby("input", sort=False))
    assert list(together["input"].unique()) == [str(tmp_path / "one.png"), "[1]", "[2]"]
    assert len(one) == 1
    for other in others:
        pd.testing.assert_frame_equal(one, other)
    exif = Image.Exif()
    exif[0x0112] = 6
    turned.save(tmp_path / "turned.png", exif=exif)
    pd.testing.assert_frame_equal(one, numbers(reader.read(Image.open(tmp_path / "turned.png"))))


def test_what_is_no_input_is_named(reader: Reader, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"float64 \[4, 4, 3\]: must be uint8 RGB"):
        reader.read(np.zeros((4, 4, 3)))
    with pytest.raises(ValueError, match="not int"):
        reader.read(3)
    with pytest.raises(ValueError, match="no inputs"):
        reader.read([])
    with pytest.raises(ValueError, match="rate is 0"):
        reader.read(np.zeros((2, 9, 9, 3), np.uint8), rate=0)
    with pytest.raises(ValueError, match="absent"):
        reader.read(tmp_path / "absent.mp4")
    with pytest.raises(ValueError, match="expresions"):
        reader.read(np.zeros((2, 9, 9, 3), np.uint8), expresions="off")
    with pytest.raises(ValueError, match="hub"):
        Reader("nobody/nothing")


def test_rows_below_a_quality_are_marked_and_none_is_dropped(
    reader: Reader, table: pd.DataFrame, frames: NDArray[np.uint8]
) -> None:
    clip = frames[:12]
    for least, usable in ((0.0, 1), (1.0, 0)):
        found = reader.read(clip, rate=25, least_quality=least)
        assert len(found) == len(clip)
        seen = found[found["success"] == 1]
        assert len(seen)
        assert (seen["FaceUsable"] == usable).all()
    assert table["FaceQuality"].dropna().between(0, 1).all()
    assert table["Yaw"].isna().all(), "the cascade tells no points, so no pose"


def test_yunet_gives_every_face_of_a_photograph_its_pose(model_folder: Path, shared_data: Path) -> None:
    yunet = {"model": str(shared_data / "face_detection_yunet_2026may.onnx"), "smallest": 0.05}
    table = Reader(model_folder, device="cpu", threads=1, detection=yunet).read(
        shared_data / "faces" / "multi_face.jpg"
    )
    assert len(table) == 5
    assert table[["Pitch", "Roll", "Yaw"]].abs().max().max() < 60
    assert (table["FaceUsable"] == 1).all()
    assert table.attrs["analysis"]["detection"]["detector"] == "yunet"


def test_a_model_of_crops_with_level_eyes_is_given_those_or_says_what_it_needs(shared_data: Path) -> None:
    photo, yunet = shared_data / "faces" / "multi_face.jpg", shared_data / "face_detection_yunet_2026may.onnx"
    level = Preprocessing(image_size=64, crop=FaceCrop(source="detected", margin=0.5, alignment="eyes"))
    options = AnalysisOptions(detection=FaceSettings(model=yunet, smallest=0.05))
    (frame,) = face_stream(open_input([photo], "av", InputLimits()), level, options)
    plain = level.model_copy(update={"crop": None})
    (other,) = face_stream(open_input([photo], "av", InputLimits()), plain, options)
    assert len(frame.faces) == len(other.faces) == 5
    for one, another in zip(frame.faces, other.faces, strict=True):
        assert one.box == another.box
        assert one.crop.shape == another.crop.shape == (64, 64, 3)
        assert np.abs(one.crop.astype(int) - another.crop).mean() > 5, "turned, and with a wider margin"
    with pytest.raises(ValueError, match="need the points of YuNet"):
        next(face_stream(open_input([photo], "av", InputLimits()), level, AnalysisOptions(detection=HAAR)))


def test_aus_alone_by_request(reader: Reader, table: pd.DataFrame, face_video: Path) -> None:
    quiet = reader.read(face_video, expressions="off")
    names = list(reader.model.vocabulary.expressions)
    pd.testing.assert_frame_equal(quiet, table.drop(columns=names), check_exact=True)
    assert quiet.attrs["windows"] == []
    assert quiet.attrs["model"]["expressions"] == []


def test_a_table_plots_a_face_and_says_why(reader: Reader, table: pd.DataFrame) -> None:
    figure = table.ssm.plot()
    assert [axes.get_title() for axes in figure.axes if axes.get_title()] == ["face 0"]
    assert reader.plot(table, 0).axes
    with pytest.raises(ValueError, match="face 9"):
        table.ssm.plot(9)
    with pytest.raises(ValueError, match=r"no \.attrs"):
        pd.DataFrame(table.to_numpy(), columns=table.columns).ssm.plot()
    why = table.ssm.why()
    vocabulary = reader.model.vocabulary
    assert len(why) == len(table.attrs["windows"]) * len(vocabulary.expressions)
    assert set(vocabulary.au_codes) <= set(why.columns)
    totals = why.groupby(["face_id", "start"])["probability"].sum()
    np.testing.assert_allclose(totals, 1, atol=1e-4)


def test_importing_the_package_loads_nothing_heavy() -> None:
    code = "import sys, ssm_platform; print(sorted({'ray','torch','pandas','cv2','numpy'} & set(sys.modules)))"
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert said.stdout.strip() == "[]"
    assert "Reader" in dir(ssm_platform)


def test_reading_here_loads_no_compiler_cluster_or_plots(model_folder: Path) -> None:
    """Seconds of every start."""
    heavy = {"ray", "matplotlib", "scipy", "sklearn", "transformers", "optuna"}
    code = (
        "import sys, numpy; from ssm_platform import Reader;"
        "Reader(sys.argv[1]).read(numpy.zeros((64, 64, 3), 'uint8')); print(*sys.modules)"
    )
    command = [sys.executable, "-c", code, str(model_folder)]
    said = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    assert {"torch", "timm"} <= set(said.stdout.split())
    assert heavy & set(said.stdout.split()) == set()


@pytest.mark.parametrize("times", [1, 99])
def test_a_model_that_is_replaced_while_it_is_loaded_is_one_or_the_other(
    times: int, model_folder: Path, other_model_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, real, loads = tmp_path / "model", Predictor.from_pretrained, []
    shutil.copytree(model_folder, folder)

    def load(*arguments: Any, **named: Any) -> Predictor:
        loaded = real(*arguments, **named)
        if len(loads) < times:
            loads.append(shutil.copytree(other_model_folder, tmp_path / f"fresh {len(loads)}"))
            swap(loads[-1], folder)
        return loaded

    monkeypatch.setattr(Predictor, "from_pretrained", load)
    if times > 1:
        with pytest.raises(ValueError, match="model: is replaced again and again while it is read"):
            ModelReader(folder, "cpu", 1)
        return
    reader = ModelReader(folder, "cpu", 1)
    monkeypatch.undo()
    other = ModelReader(other_model_folder, "cpu", 1)
    assert reader.description == other.description
    np.testing.assert_array_equal(reader.read(other.blank()).au_probability, other.read(other.blank()).au_probability)
