"""What `/v1/predict` tells where it is asked: doubts, heat maps, pictures; and who cannot be asked."""

from __future__ import annotations

import base64
import csv
import io
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest
from fastapi import FastAPI
from numpy.typing import NDArray
from serving_fixtures import assert_same_numbers, parsed, post, save_model, small_settings
from starlette.testclient import TestClient

from serve.http.schemas import Answer
from serve.local import local_app
from ssm.interface import Abstention
from ssm_platform.media import open_input
from ssm_platform.read.batch import PredictSettings, find_jobs, predict_here
from ssm_platform.read.model_reader import ModelReader
from ssm_platform.read.reader import Reader
from ssm_platform.read.rows import AnalysisOptions, analyse, read_opened
from ssm_platform.read.tables import BOX_COLUMNS, read_table
from ssm_platform.read.windows import Clip, Row

Frames = list[NDArray[np.uint8]]
Write = Callable[..., Path]
Make = Callable[..., FastAPI]


def test_doubts_are_told_where_they_are_asked_for_and_what_is_withheld_is_empty(
    face_video: Path, tmp_path: Path
) -> None:
    """Of a model that gives evidence and has an abstention: HTTP, Python and a batch's files say the same."""
    doubts = ModelReader(save_model(tmp_path / "open", 1, "evidential"), "cpu", threads=1)
    seen = [row.au_uncertainty for row in analyse([face_video], doubts) if isinstance(row, Row) and row.success]
    level = Abstention(risk=0.1, doubt=float(np.median(np.stack(seen))), coverage=0.5)
    folder = save_model(tmp_path / "model", 1, "evidential", level)
    with TestClient(local_app(small_settings(folder, tmp_path / "scratch"), None)) as client:
        upload = face_video.read_bytes()
        document = post(client, upload, uncertainty="on").json()
        text = post(client, upload, accept="text/csv", uncertainty="on").text
        plain = post(client, upload).json()
        assert client.get("/v1/model").json()["uncertainty"]
        outputs = [tensor["name"] for tensor in client.get("/v2/models/ssm").json()["outputs"]]
    assert "au_uncertainty" in outputs
    codes = [unit["code"] for unit in document["model"]["aus"]]
    assert document["columns"] == [*plain["columns"], *(f"{code}_u" for code in codes)]
    assert [{name: row[name] for name in plain["columns"]} for row in document["rows"]] == plain["rows"]
    assert (document["model"]["uncertainty"], plain["model"]["uncertainty"]) == (True, False)
    assert plain["model"]["abstention"] == level.model_dump()
    cells = [(row[f"{code}_c"], row[f"{code}_u"]) for row in document["rows"] if row["success"] for code in codes]
    assert {present is None for present, _ in cells} == {True, False}
    told = [(present, doubt > level.doubt) for present, doubt in cells if abs(doubt - level.doubt) > 1e-4]
    assert all((present is None) == hidden for present, hidden in told)
    table = Reader(folder, device="cpu", threads=1, uncertainty=True).read(face_video)
    assert table.attrs["model"]["abstention"] == level.model_dump()
    assert_same_numbers(list(csv.reader(io.StringIO(text))), list(csv.reader(io.StringIO(table.to_csv(index=False)))))
    settings = PredictSettings(model=str(folder), table="parquet", analysis=AnalysisOptions(uncertainty=True))
    (outcome,) = predict_here(find_jobs([str(face_video)]), tmp_path / "out", settings)
    assert outcome.status == "done"
    pd.testing.assert_frame_equal(read_table(tmp_path / "out" / "face.mp4.parquet").astype(float), table.astype(float))


def test_doubts_of_a_model_that_has_none_are_refused_with_the_mend(client: TestClient) -> None:
    answer = post(client, b"not looked at", uncertainty="on")
    assert (answer.status_code, answer.json()["error"]) == (
        422,
        "uncertainty: this model gives no evidence, so it has no uncertainty to tell: train with +evidential",
    )


def test_heat_maps_of_the_frames_that_show_most_are_told_where_they_are_asked_for(
    face_video: Path, tmp_path: Path
) -> None:
    """Which frames those are the rows say; there the maps are the model's own."""
    folder, upload = save_model(tmp_path / "model", 1, "hiva", size=96), face_video.read_bytes()
    with TestClient(local_app(small_settings(folder, tmp_path / "scratch"), None)) as client:
        document, plain = post(client, upload, where="on").json(), post(client, upload).json()
        lines = parsed(post(client, upload, accept="application/x-ndjson", where="on").text)
        assert client.get("/v1/model").json()["where"]
        table = post(client, b"not looked at", accept="text/csv", where="on")
    Answer.model_validate(document)
    assert [line["type"] for line in lines[-3:]] == ["row", "where", "end"]
    assert [{"type": "where", **face} for face in document["where"]] == lines[-2:-1]
    assert (document["model"]["where"], plain["model"]["where"], plain.get("where")) == (True, False, None)
    assert document["rows"] == plain["rows"]
    said = "where=on is answered as application/json or application/x-ndjson: a table holds no maps"
    assert (table.status_code, table.json()["error"]) == (406, said)
    reader, options, clips = ModelReader(folder, "cpu", threads=1), AnalysisOptions(), dict[int, Clip]()
    source = open_input([face_video], options.decoder, options.limits)
    list(read_opened(source, reader, options, seen=lambda clip, _: clips.update({clip.start: clip})))
    (face,) = document["where"]
    rows = {row["frame"]: row for row in document["rows"] if row["success"]}
    highest = {
        start: {code: max(rows[start + k][code] for k in range(clip.count)) for code in face["aus"]}
        for start, clip in clips.items()
    }
    best = max(highest, key=lambda start: sum(highest[start].values()))
    where = reader.where(clips[best].crops[None])[0]
    assert where.shape[2:] == (3, 3)
    for au, (code, place) in enumerate(face["aus"].items()):
        row = rows[place["frame"]]
        assert 0 <= place["frame"] - best < clips[best].count
        assert place["probability"] == pytest.approx(highest[best][code], abs=2e-5)
        assert place["probability"] == pytest.approx(row[code], abs=2e-5)
        assert place["timestamp"] == row["timestamp"]
        assert place["box"] == pytest.approx([row[name] for name in BOX_COLUMNS[:4]], abs=0.01)
        np.testing.assert_allclose(place["map"], where[place["frame"] - best, au], atol=2e-5)
        assert np.sum(place["map"]) == pytest.approx(1, abs=1e-3)


def test_heat_maps_of_a_model_that_looks_at_no_places_are_refused_with_the_mend(client: TestClient) -> None:
    answer = post(client, b"not looked at", where="on")
    said = "where: this model looks at no places: train with +hiva for heat maps"
    assert (answer.status_code, answer.json()["error"]) == (422, said)
    assert not client.get("/v1/model").json()["where"]


def test_pictures_of_frames_come_before_their_rows_where_they_are_asked_for(
    client: TestClient, face_video: Path, face_frames: Frames
) -> None:
    upload = face_video.read_bytes()
    with_pictures = parsed(post(client, upload, accept="application/x-ndjson", pictures="on").text)
    plain = parsed(post(client, upload, accept="application/x-ndjson").text)
    for kind in ("start", "row", "window", "end"):
        assert [line for line in with_pictures if line["type"] == kind] == [
            line for line in plain if line["type"] == kind
        ]
    pictures = [line for line in with_pictures if line["type"] == "picture"]
    assert [picture["frame"] for picture in pictures] == list(range(60))
    for number in (0, 30):
        jpeg = np.frombuffer(base64.b64decode(str(pictures[number]["jpeg"])), np.uint8)
        shown = cv2.imdecode(jpeg, cv2.IMREAD_COLOR_RGB)
        assert shown.shape == face_frames[number].shape
        assert np.abs(shown.astype(float) - face_frames[number]).mean() < 6
    order = [(line["type"], line["frame"]) for line in with_pictures if line["type"] in ("row", "picture")]
    assert all(order.index(("picture", frame)) < order.index(("row", frame)) for frame in range(60))
    assert post(client, upload, accept="text/csv", pictures="on").status_code == 406
