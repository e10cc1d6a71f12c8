"""The HTTP surface on the replicas' own classes, in this process: answers, refusals, limits, nothing left behind."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
from fastapi import FastAPI
from numpy.typing import NDArray
from PIL import Image
from serving_fixtures import assert_same_numbers, parsed, post
from starlette.testclient import TestClient

from serve.http.schemas import Answer
from ssm_platform.read.batch import PredictSettings, find_jobs, predict_here, write_csv
from ssm_platform.read.model_reader import ModelReader
from ssm_platform.read.reader import Reader
from ssm_platform.read.rows import AnalysisOptions, analyse
from ssm_platform.read.tables import csv_header, csv_lines
from ssm_platform.read.windows import Row, Window

Frames = list[NDArray[np.uint8]]
Write = Callable[..., Path]
Make = Callable[..., FastAPI]


def png(picture: NDArray[np.uint8]) -> bytes:
    return cv2.imencode(".png", picture)[1].tobytes()


def test_every_door_gives_the_same_numbers(
    client: TestClient, face_video: Path, model_folder: Path, tmp_path: Path
) -> None:
    """The three forms of HTTP, the library, Python's `Reader`, the command line, and files of a batch."""
    upload = face_video.read_bytes()
    document = post(client, upload).json()
    Answer.model_validate(document)
    table = list(csv.reader(io.StringIO(post(client, upload, accept="text/csv").text)))
    lines = parsed(post(client, upload, accept="application/x-ndjson").text)
    assert table[0] == document["columns"]
    rows = [line for line in lines if line["type"] == "row"]
    assert [[("" if row[name] is None else str(row[name])) for name in table[0]] for row in rows] == table[1:]
    assert [{name: row[name] for name in table[0]} for row in rows] == document["rows"]
    assert lines[0]["type"] == "start"
    assert lines[-1] == {"type": "end", "rows": len(rows)}
    reader = ModelReader(model_folder, "cpu", threads=1)
    local = list(analyse([face_video], reader, AnalysisOptions(most_faces=4)))
    vocabulary = reader.description.vocabulary
    own = csv_header(vocabulary) + csv_lines((result for result in local if isinstance(result, Row)), vocabulary)
    assert_same_numbers(table, list(csv.reader(io.StringIO(own))))
    options = AnalysisOptions(most_faces=4)
    in_python = Reader(model_folder, device="cpu", threads=1, most_faces=4).read(face_video)
    assert_same_numbers(table, list(csv.reader(io.StringIO(in_python.to_csv(index=False)))))
    said, settings = io.StringIO(), PredictSettings(model=str(model_folder), device="cpu", analysis=options)
    jobs = find_jobs([str(face_video)])
    write_csv(jobs, said, settings)
    assert_same_numbers(table, list(csv.reader(io.StringIO(said.getvalue()))))
    assert [one.status for one in predict_here(jobs, tmp_path, settings)] == ["done"]
    assert_same_numbers(table, list(csv.reader((tmp_path / f"{jobs[0].name}.csv").open())))
    assert len(document["windows"]) == sum(isinstance(result, Window) for result in local) > 0


def test_a_real_face_is_found_and_named_columns_are_in_order(client: TestClient, face_video: Path) -> None:
    document = post(client, face_video.read_bytes()).json()
    assert [row["frame"] for row in document["rows"]] == list(range(60))
    assert sum(row["success"] for row in document["rows"]) > 40
    first = next(row for row in document["rows"] if row["success"])
    assert list(first) == document["columns"]
    assert sum(first[name] for name in document["model"]["expressions"]) == pytest.approx(1, abs=1e-3)
    assert first["AU12_c"] in (0, 1)
    assert not any(name.endswith("_r") for name in first)
    why = document["windows"][0]["why"]
    assert list(why) == document["model"]["expressions"]
    assert list(why["happiness"]) == [unit["code"] for unit in document["model"]["aus"]]


# -- bad input: each kind has one defined answer ------------------------------------------------------------------


def grey_frames(count: int = 12) -> Frames:
    return [np.full((96, 128, 3), 90, np.uint8)] * count


def test_no_face_gives_empty_rows(client: TestClient, tmp_path: Path, write_video: Write) -> None:
    rows = post(client, write_video(tmp_path / "x.mp4", grey_frames()).read_bytes()).json()["rows"]
    assert [row["success"] for row in rows] == [0] * 12
    assert rows[0]["AU12"] is None
    assert rows[0]["face_id"] is None
    assert rows[0]["timestamp"] == 0


def test_a_face_that_leaves_and_returns_has_rows_only_while_it_is_there(
    client: TestClient, face_frames: Frames, tmp_path: Path, write_video: Write
) -> None:
    blank = [np.zeros_like(face_frames[0])] * 25
    video = write_video(tmp_path / "x.mp4", face_frames[:30] + blank + face_frames[:30])
    rows = post(client, video.read_bytes()).json()["rows"]
    seen = [row["success"] for row in rows]
    assert len(rows) == 85
    assert sum(seen[30:55]) == 0
    assert sum(seen[:30]) > 20
    assert sum(seen[55:]) > 20


def test_several_faces_have_rows_each_and_main_keeps_one(client: TestClient, shared_data: Path) -> None:
    picture = (shared_data / "faces" / "multi_face.jpg").read_bytes()
    every = post(client, picture).json()
    main = post(client, picture, faces="main").json()
    assert every["video"]["kind"] == "pictures"
    assert len({row["face_id"] for row in every["rows"]}) == len(every["rows"]) >= 3
    assert len(main["rows"]) == 1
    assert main["rows"][0]["FaceRectWidth"] in [row["FaceRectWidth"] for row in every["rows"]]


def test_a_sideways_video_is_turned_upright(
    client: TestClient, face_frames: Frames, tmp_path: Path, write_video: Write
) -> None:
    import av

    lying = [np.ascontiguousarray(np.rot90(frame, -1)) for frame in face_frames[:20]]
    plain = write_video(tmp_path / "plain.mp4", lying)
    turned = tmp_path / "turned.mp4"
    with av.open(str(plain)) as source, av.open(str(turned), "w") as target:
        stream = target.add_stream_from_template(source.streams.video[0])
        stream.set_display_rotation(90) if hasattr(stream, "set_display_rotation") else None
        for packet in source.demux(video=0):
            if packet.dts is not None:
                packet.stream = stream
                target.mux(packet)
    if not hasattr(stream, "set_display_rotation"):
        data = turned.read_bytes()
        matrix = np.array([0x10000, 0, 0, 0, 0x10000, 0, 0, 0, 0x40000000], ">i4").tobytes()
        at = data.rfind(matrix)  # the track's matrix: the movie's comes first
        quarter = np.array([0, -0x10000, 0, 0x10000, 0, 0, 0, 180 << 16, 0x40000000], ">i4").tobytes()
        turned.write_bytes(data[:at] + quarter + data[at + 36 :])
    document = post(client, turned.read_bytes()).json()
    assert document["video"]["rotation"] in (90, 270)
    assert (document["video"]["width"], document["video"]["height"]) == (320, 180)
    assert sum(row["success"] for row in document["rows"]) > 10


@pytest.mark.parametrize("channels", [1, 4])
def test_grey_and_transparent_pictures_are_read(client: TestClient, face_frames: Frames, channels: int) -> None:
    grey = cv2.cvtColor(face_frames[0], cv2.COLOR_RGB2GRAY)
    picture = grey if channels == 1 else np.dstack([face_frames[0][..., ::-1], np.full(grey.shape, 128, np.uint8)])
    rows = post(client, png(picture)).json()["rows"]
    assert rows[0]["success"] == 1
    assert rows[0]["timestamp"] is None


def test_grey_video_and_one_frame_are_read(
    client: TestClient, face_frames: Frames, tmp_path: Path, write_video: Write
) -> None:
    video = write_video(tmp_path / "x.mkv", face_frames[:1], codec="ffv1", pix_fmt="gray")
    rows = post(client, video.read_bytes()).json()["rows"]
    assert len(rows) == 1
    assert rows[0]["success"] == 1


def test_phone_photos_are_whole_pictures_with_or_without_a_film(client: TestClient, face_frames: Frames) -> None:
    pillow_heif = pytest.importorskip("pillow_heif")
    image, heif, jpeg = Image.fromarray(face_frames[0]), io.BytesIO(), io.BytesIO()
    image.save(jpeg, "JPEG", quality=95)
    tile = pillow_heif.options.GRID_TILE_SIZE
    pillow_heif.options.GRID_TILE_SIZE = 128  # the face lies across several tiles, as a phone writes them
    try:
        pillow_heif.from_pillow(image).save(heif, quality=95)
    finally:
        pillow_heif.options.GRID_TILE_SIZE = tile
    film = b"\0\0\0\x18ftypmp42" + bytes(4000) + b"\xff\xda" + bytes(2000)  # what a Motion Photo has behind its picture
    for data in (heif.getvalue(), jpeg.getvalue() + film):
        answer = post(client, data).json()
        assert (answer["video"]["kind"], answer["video"]["width"], answer["video"]["height"]) == ("pictures", 320, 180)
        assert answer["rows"][0]["success"] == 1


def test_pictures_are_frames_of_their_own(client: TestClient, face_frames: Frames) -> None:
    rows = post(client, png(face_frames[0][..., ::-1]), png(face_frames[0][..., ::-1])).json()["rows"]
    assert [row["frame"] for row in rows] == [0, 1]
    assert {key: value for key, value in rows[0].items() if key != "frame"} == {
        key: value for key, value in rows[1].items() if key != "frame"
    }


def sound_only(path: Path) -> Path:
    import av

    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=44100)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 4096), np.float32), format="fltp", layout="mono")
        frame.rate = 44100
        container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def test_files_that_cannot_be_used_are_422_with_the_reason(
    client: TestClient, face_video: Path, tmp_path: Path
) -> None:
    whole = face_video.read_bytes()
    unknown = whole.replace(b"avc1", b"zzzz")
    cases = {
        "no video stream": sound_only(tmp_path / "x.mp4").read_bytes(),
        "unknown video codec": unknown,
        "empty": b"",
        "no video that can be read": b"\0" * 1000,
        "not a": b"\x89PNG\r\n\x1a\n" + b"x" * 100,
        "": whole[: len(whole) // 2],
    }
    for reason, content in cases.items():
        answer = post(client, content)
        assert answer.status_code == 422, (reason, answer.text)
        assert list(answer.json()) == ["error", "request_id"]
        assert reason in answer.text
        assert str(tmp_path) not in answer.text
        assert "Traceback" not in answer.text


def test_a_playlist_that_names_other_files_is_not_followed(client: TestClient, shared_data: Path) -> None:
    target = shared_data / "faces" / "no_face.mp4"
    for text in (f"#EXTM3U\n#EXTINF:10,\nfile://{target}\n#EXT-X-ENDLIST\n", f"ffconcat version 1.0\nfile {target}\n"):
        assert post(client, text.encode()).status_code == 422


# -- limits ---------------------------------------------------------------------------------------------------------


def test_limits_are_413_and_name_what_is_allowed(
    client: TestClient, face_frames: Frames, tmp_path: Path, write_video: Write
) -> None:
    assert "4" in post(client, *[png(face_frames[0])] * 5).json()["error"]
    large = png(np.zeros((2000, 2000, 3), np.uint8))
    long = write_video(tmp_path / "long.mp4", grey_frames(70), rate=1)
    for content in (b"x" * 3_200_000, large, long.read_bytes()):
        answer = post(client, content)
        assert answer.status_code == 413, answer.text
        assert str(tmp_path) not in answer.text


def test_size_is_enforced_while_reading_whatever_the_header_says(client: TestClient) -> None:
    sent = 0

    def endless() -> Iterator[bytes]:
        nonlocal sent
        yield b'--b\r\nContent-Disposition: form-data; name="file"; filename="x"\r\n\r\n'
        for _ in range(200):
            sent += 1
            yield b"x" * 65_536

    answer = client.post("/v1/predict", content=endless(), headers={"Content-Type": "multipart/form-data; boundary=b"})
    assert answer.status_code == 413


def test_a_long_video_as_one_document_is_refused_with_a_hint_and_streams(make_app: Make, face_video: Path) -> None:
    with TestClient(make_app(json_rows=10)) as client:
        answer = post(client, face_video.read_bytes())
        assert answer.status_code == 413
        assert "application/x-ndjson" in answer.json()["error"]
        assert post(client, face_video.read_bytes(), accept="text/csv").status_code == 200


def test_the_time_limit_is_504_and_leaves_nothing(make_app: Make, tmp_path: Path, face_video: Path) -> None:
    with TestClient(make_app(request_s=0.05)) as client:
        answer = post(client, face_video.read_bytes())
    assert answer.status_code == 504
    assert [path for path in (tmp_path / "scratch").rglob("*") if path.is_file()] == []


# -- requests that are wrong ---------------------------------------------------------------------------------------


def test_requests_that_are_wrong_are_4xx_with_one_shape_of_error(client: TestClient, face_video: Path) -> None:
    form = {"Content-Type": "multipart/form-data; boundary=b"}
    part = b'--b\r\nContent-Disposition: form-data; name="%s"%s\r\n\r\nx\r\n--b--\r\n'
    cases = [
        (415, client.post("/v1/predict", content=b"x", headers={"Content-Type": "video/mp4"})),
        (415, client.post("/v1/predict", json={"url": "http://127.0.0.1/x.mp4"})),
        (415, client.post("/v1/predict", content=b"x", headers={**form, "Content-Encoding": "gzip"})),
        (400, client.post("/v1/predict", content=b"x", headers={"Content-Type": "multipart/form-data"})),
        (400, client.post("/v1/predict", content=b"nonsense", headers=form)),
        (400, client.post("/v1/predict", content=b"", headers=form)),
        (400, client.post("/v1/predict", content=part % (b"url", b""), headers=form)),
        (400, client.post("/v1/predict", content=part % (b"other", b'; filename="x"'), headers=form)),
        (400, client.post("/v1/predict", content=(part % (b"file", b'; filename="x"'))[:-8], headers=form)),
        (400, client.post("/v1/predict", content=b"--b\r\n" + b"A" * 100_000 + b": x\r\n\r\n", headers=form)),
        (406, post(client, b"x", accept="image/png")),
        (422, post(client, face_video.read_bytes(), faces="nobody")),
        (404, client.get("/nowhere")),
        (405, client.get("/v1/predict")),
        (404, client.get("/v2/models/other")),
    ]
    for number, (status, answer) in enumerate(cases):
        assert answer.status_code == status, (number, answer.status_code, answer.text)
        assert list(answer.json()) == ["error", "request_id"]


def test_a_token_guards_everything_but_page_and_health(make_app: Make) -> None:
    with TestClient(make_app(token="s" * 20)) as client:
        for path in ("/v1/model", "/v2/models/ssm", "/v2"):
            assert client.get(path).status_code == 401
            assert client.get(path, headers={"Authorization": "Bearer wrong"}).status_code == 401
            assert client.get(path, headers={"Authorization": "Bearer " + "s" * 20}).status_code == 200
        assert client.post("/v1/predict").status_code == 401
        for path in ("/", "/page.js", "/v2/health/live", "/v2/health/ready"):
            assert client.get(path).status_code == 200


def test_the_page_asks_for_nothing_from_elsewhere(client: TestClient) -> None:
    for path in ("/", "/page.css", "/page.js", "/stream.js", "/charts.js", "/docs", "/docs.js"):
        answer = client.get(path)
        assert answer.status_code == 200
        assert "default-src 'none'" in answer.headers["Content-Security-Policy"]
        assert "http://" not in answer.text.replace("http://127.0.0.1", "")
        assert "https://" not in answer.text
