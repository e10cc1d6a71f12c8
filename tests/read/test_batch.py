"""Batch prediction: tables on disk equal the library's rows, resume skips what is done, one bad input fails alone."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray
from serving_fixtures import save_model

from ssm_platform.media.images import read_image
from ssm_platform.media.video import open_video
from ssm_platform.read.batch import Job, PredictSettings, find_jobs, predict_all, predict_one, writable
from ssm_platform.read.model_reader import ModelReader
from ssm_platform.read.rows import AnalysisOptions, analyse
from ssm_platform.read.tables import read_table, to_frame
from ssm_platform.read.windows import Row


@pytest.fixture(scope="module")
def reader(model_folder: Path) -> ModelReader:
    return ModelReader(model_folder, "cpu", threads=1)


def expected(video: Path, reader: ModelReader) -> pd.DataFrame:
    vocabulary = reader.description.vocabulary
    return to_frame((result for result in analyse([video], reader) if isinstance(result, Row)), vocabulary)


@pytest.mark.parametrize("table", ["csv", "parquet"])
def test_one_input_gives_its_table_pictures_overlay_and_sidecar(
    table: str, face_video: Path, reader: ModelReader, model_folder: Path, tmp_path: Path
) -> None:
    settings = PredictSettings(model=str(model_folder), table=table, plots=True, overlay=True)
    job = Job(str(face_video), "in/face.mp4")
    outcome = predict_one(job, tmp_path, reader, settings)
    assert outcome.status == "done"
    assert outcome.frames == outcome.rows == 60
    found = read_table(tmp_path / f"in/face.mp4.{table}")
    pd.testing.assert_frame_equal(found.astype(float), expected(face_video, reader).astype(float))
    sidecar = json.loads((tmp_path / "in/face.mp4.json").read_text())
    assert sidecar["model"]["version"] == reader.description.version
    assert sidecar["video"]["rate"] == pytest.approx(25)
    assert sidecar["files"] == [f"in/face.mp4.{table}", "in/face.mp4.face0.png", "in/face.mp4.overlay.mp4"]
    overlay = open_video(tmp_path / "in/face.mp4.overlay.mp4").facts
    assert (overlay.frames, overlay.width, overlay.height) == (60, 320, 180)
    assert not list(tmp_path.rglob(".*.part*"))
    assert predict_one(job, tmp_path, reader, settings).status == "skipped"


@pytest.mark.parametrize("table", ["csv", "parquet"])
def test_doubts_have_columns_where_they_are_asked_for(table: str, face_video: Path, tmp_path: Path) -> None:
    """Of a model that gives evidence; the rest of the table, and what a plot takes, stays."""
    folder = save_model(tmp_path / "model", 1, "evidential")
    reader, job = ModelReader(folder, "cpu", threads=1), Job(str(face_video), "face.mp4")
    plain = PredictSettings(model=str(folder), table=table)
    asked = plain.model_copy(update={"analysis": AnalysisOptions(uncertainty=True), "plots": True})
    assert predict_one(job, tmp_path / "plain", reader, plain).status == "done"
    assert predict_one(job, tmp_path / "asked", reader, asked).status == "done"
    without, found = (read_table(tmp_path / name / f"face.mp4.{table}") for name in ("plain", "asked"))
    codes = reader.description.vocabulary.au_codes
    assert list(found) == [*without, *(f"{code}_u" for code in codes)]
    pd.testing.assert_frame_equal(found[list(without)], without)
    doubts = found.loc[found["success"] == 1, [f"{code}_u" for code in codes]].to_numpy(float)
    assert ((doubts > 0) & (doubts <= 1)).all()
    assert (tmp_path / "asked" / "face.mp4.face0.png").is_file()


def test_doubts_of_a_model_that_has_none_are_refused(face_video: Path, reader: ModelReader, tmp_path: Path) -> None:
    settings = PredictSettings(model="x", analysis=AnalysisOptions(uncertainty=True))
    outcome = predict_one(Job(str(face_video), "face.mp4"), tmp_path, reader, settings)
    assert (outcome.status, outcome.reason) == (
        "failed", "this model gives no evidence, so it has no uncertainty to tell: train with +evidential"
    )  # fmt: skip


def test_a_change_of_input_settings_or_model_is_done_again(
    face_video: Path, reader: ModelReader, model_folder: Path, other_model_folder: Path, tmp_path: Path
) -> None:
    video = tmp_path / "v.mp4"
    video.write_bytes(face_video.read_bytes())
    settings, job, out = PredictSettings(model=str(model_folder)), Job(str(video), "v.mp4"), tmp_path / "out"
    assert predict_one(job, out, reader, settings).status == "done"
    assert predict_one(job, out, reader, settings).status == "skipped"
    main = settings.model_copy(update={"analysis": settings.analysis.model_copy(update={"faces": "main"})})
    assert predict_one(job, out, reader, main).status == "done"
    os.utime(video, ns=(1, 1))
    assert predict_one(job, out, reader, main).status == "done"
    assert predict_one(job, out, ModelReader(other_model_folder, "cpu", threads=1), main).status == "done"
    (out / "v.mp4.json").write_text("{ cut off")
    assert predict_one(job, out, reader, main).status == "done"


def test_what_an_earlier_model_wrote_vouches_for_no_table_of_a_later_one(
    face_video: Path, reader: ModelReader, other_model_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The later one's table is there, and its pictures fail: as where it is killed while it draws."""
    job, out = Job(str(face_video), "v.mp4"), tmp_path / "out"
    assert predict_one(job, out, reader, PredictSettings(model="x")).status == "done"
    first = (out / "v.mp4.csv").read_bytes()
    other = ModelReader(other_model_folder, "cpu", threads=1)

    def killed(*_: object) -> None:
        raise OSError("killed")

    with monkeypatch.context() as patch:
        patch.setattr("ssm_platform.read.batch._write_whole", killed)
        assert predict_one(job, out, other, PredictSettings(model="x")).status == "failed"
    assert (out / "v.mp4.csv").read_bytes() != first
    assert predict_one(job, out, reader, PredictSettings(model="x")).status == "done"
    assert (out / "v.mp4.csv").read_bytes() == first


def test_an_input_that_cannot_be_read_fails_alone_and_leaves_no_table(
    reader: ModelReader, model_folder: Path, tmp_path: Path
) -> None:
    bad = tmp_path / "bad.mp4"
    bad.write_bytes(b"not a video")
    outcome = predict_one(Job(str(bad), "bad.mp4"), tmp_path / "out", reader, PredictSettings(model=str(model_folder)))
    assert outcome.status == "failed"
    assert "bad.mp4" in outcome.reason
    assert not (tmp_path / "out").exists() or not list((tmp_path / "out").iterdir())


@pytest.mark.parametrize("shape", [(1, 2000), (2000, 1), (1, 1)])
def test_thin_pictures_are_read(reader: ModelReader, tmp_path: Path, shape: tuple[int, int]) -> None:
    picture = tmp_path / "thin.png"
    cv2.imwrite(str(picture), np.zeros((*shape, 3), np.uint8))
    outcome = predict_one(Job(str(picture), "thin.png"), tmp_path / "out", reader, PredictSettings(model="x"))
    assert (outcome.status, outcome.rows) == ("done", 1), outcome.reason


@pytest.mark.parametrize("error", [cv2.error("out of ideas"), OSError("no disk"), ValueError("no sense")])
def test_whatever_an_input_raises_it_fails_alone(
    reader: ModelReader, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise error

    (tmp_path / "x.mp4").write_bytes(b"x")
    monkeypatch.setattr("ssm_platform.read.batch.open_input", fail)
    outcome = predict_one(Job(str(tmp_path / "x.mp4"), "x.mp4"), tmp_path / "out", reader, PredictSettings(model="x"))
    told = f"{tmp_path / 'out' / 'x.mp4.json'}: {error}" if isinstance(error, OSError) else str(error)
    assert (outcome.status, outcome.reason) == ("failed", told)


def test_inputs_are_found_and_twins_are_refused(tmp_path: Path) -> None:
    for name in ("a/x.mp4", "a/deep/y.MOV", "a/z.txt", "b/x.mp4"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    assert [job.name for job in find_jobs([str(tmp_path / "a")])] == ["deep/y.MOV", "x.mp4"]
    assert [job.name for job in find_jobs([str(tmp_path)])] == ["a/deep/y.MOV", "a/x.mp4", "b/x.mp4"]
    with pytest.raises(ValueError, match=r"a/x\.mp4 and .*b/x\.mp4"):
        find_jobs([str(tmp_path / "a"), str(tmp_path / "b")])
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="no video"):
        find_jobs([str(tmp_path / "empty")])
    with pytest.raises(ValueError, match="no such file"):
        find_jobs([str(tmp_path / "nothing")])


def test_objects_of_a_bucket_are_read(
    face_video: Path, reader: ModelReader, model_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    moto = pytest.importorskip("moto.server")
    boto3 = pytest.importorskip("boto3")
    server = moto.ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    server.start()
    try:
        host, port = server.get_host_and_port()
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            monkeypatch.setenv(name, "test")
        monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        client = boto3.client("s3")
        client.create_bucket(Bucket="videos")
        client.put_object(Bucket="videos", Key="in/face.mp4", Body=face_video.read_bytes())
        (job,) = find_jobs(["s3://videos/in"])
        outcome = predict_one(job, tmp_path, reader, PredictSettings(model=str(model_folder)))
    finally:
        server.stop()
    assert (outcome.status, outcome.rows) == ("done", 60)
    pd.testing.assert_frame_equal(
        read_table(tmp_path / "face.mp4.csv").astype(float), expected(face_video, reader).astype(float)
    )


def test_companions_are_no_inputs_and_tilde_is_a_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("a.mp4", "._a.mp4", ".hidden/b.mp4", "__MACOSX/a.mp4", "@eaDir/a.mp4/x.jpg", "c.HEIC", "Thumbs.db"):
        (tmp_path / "in" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "in" / name).write_bytes(b"x")
    assert [job.name for job in find_jobs(["~/in"])] == ["a.mp4", "c.HEIC"]
    assert writable(Path("~/out")) == tmp_path / "out"


def test_a_name_as_long_as_names_can_be(
    face_video: Path, reader: ModelReader, model_folder: Path, tmp_path: Path
) -> None:
    for letter in "ab":
        (tmp_path / f"{'顔' * 82}{letter}.mp4").write_bytes(face_video.read_bytes())  # 251 bytes
    jobs = find_jobs([str(tmp_path)])
    settings = PredictSettings(model=str(model_folder), plots=True, overlay=True)
    assert len({job.name for job in jobs}) == 2
    assert predict_one(jobs[0], tmp_path / "out", reader, settings).status == "done"
    assert len(list((tmp_path / "out").iterdir())) == 4
    assert predict_one(jobs[0], tmp_path / "out", reader, settings).status == "skipped"


def test_an_output_folder_that_cannot_be_written_is_said_first(
    face_video: Path, reader: ModelReader, model_folder: Path, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(ValueError, match="file/out: the output folder cannot be written"):
        writable(tmp_path / "file" / "out")
    job, settings = Job(str(face_video), "v.mp4"), PredictSettings(model=str(model_folder))
    outcome = predict_one(job, tmp_path / "file", reader, settings)
    assert (outcome.status, "file" in outcome.reason) == ("failed", True)


def test_an_overlay_of_a_picture_is_a_picture(
    shared_data: Path, reader: ModelReader, model_folder: Path, tmp_path: Path
) -> None:
    photo = shared_data / "faces" / "multi_face.jpg"
    settings = PredictSettings(model=str(model_folder), overlay=True)
    assert predict_one(Job(str(photo), "p.jpg"), tmp_path, reader, settings).status == "done"
    drawn, before = read_image(tmp_path / "p.jpg.overlay.jpg"), read_image(photo)
    assert drawn.shape == before.shape
    assert np.abs(drawn.astype(int) - before).max() > 100
    assert json.loads((tmp_path / "p.jpg.json").read_text())["files"] == ["p.jpg.csv", "p.jpg.overlay.jpg"]


@pytest.mark.ray
def test_ray_data_writes_the_same_tables_and_resumes(
    ray_cluster: None,
    face_video: Path,
    face_frames: list[NDArray[np.uint8]],
    reader: ModelReader,
    model_folder: Path,
    tmp_path: Path,
    write_video: Callable[..., Path],
) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    (folder / "one.mp4").write_bytes(face_video.read_bytes())
    write_video(folder / "two.mp4", face_frames[:20])
    (folder / "bad.mp4").write_bytes(b"not a video")
    settings = PredictSettings(model=str(model_folder), workers=2, cpus=0.5)
    jobs, out = find_jobs([str(folder)]), tmp_path / "out"
    first = {outcome.source: outcome.status for outcome in predict_all(jobs, out, settings)}
    assert sorted(first.values()) == ["done", "done", "failed"]
    (out / "two.mp4.json").unlink()
    second = {Path(outcome.source).name: outcome.status for outcome in predict_all(jobs, out, settings)}
    assert second == {"one.mp4": "skipped", "two.mp4": "done", "bad.mp4": "failed"}
    pd.testing.assert_frame_equal(
        read_table(out / "one.mp4.csv").astype(float), expected(face_video, reader).astype(float)
    )
