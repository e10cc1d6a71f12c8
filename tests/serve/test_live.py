"""`/v1/live`: frames of a camera in, rows out; who is too fast, too slow or unwelcome is told so."""

from __future__ import annotations

import asyncio
import base64
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from fastapi import FastAPI
from numpy.typing import NDArray
from serving_fixtures import FRAMES, small_settings
from starlette.testclient import TestClient, WebSocketDenialResponse
from starlette.websockets import WebSocketDisconnect

from serve.http.live import UNTAKEN
from serve.local import local_app
from ssm.interface.preprocessing import center
from ssm_platform.faces.squares import crop
from ssm_platform.faces.tracker import TrackedFace
from ssm_platform.read.model_reader import ModelReader

Frames = list[NDArray[np.uint8]]
Make = Callable[..., FastAPI]
TOKEN = "s" * 20


@pytest.fixture
def client(local_app: FastAPI) -> Iterator[TestClient]:
    with TestClient(local_app) as client:
        yield client


def encoded(frame: NDArray[np.uint8], ending: str = ".jpg") -> bytes:
    return cv2.imencode(ending, frame[..., ::-1])[1].tobytes()


def told(session: Any) -> dict[str, Any]:
    """The last thing that is said before the close, which must follow."""
    while (message := session.receive_json())["type"] != "error":
        pass
    with pytest.raises(WebSocketDisconnect) as closed:
        session.receive_json()
    return {**message, "code": closed.value.code}


def answers(session: Any, frames: Frames) -> list[dict[str, Any]]:
    """One after another, each taken before the next is sent."""
    found = []
    for number, frame in enumerate(frames, 1):
        session.send_bytes(encoded(frame))
        found.append(session.receive_json())
        session.send_json({"taken": number})
    return found


# -- numbers ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("faces", ["all", "main"])
def test_a_first_frame_is_read_as_a_picture_is(client: TestClient, shared_data: Path, faces: str) -> None:
    picture = (shared_data / "faces" / "multi_face.jpg").read_bytes()
    document = client.post("/v1/predict", files={"file": picture}, params={"faces": faces}).json()
    with client.websocket_connect(f"/v1/live?faces={faces}") as session:
        start = session.receive_json()
        session.send_bytes(picture)
        answer = session.receive_json()
    assert start["model"] == document["model"]
    assert start["columns"] == document["columns"]
    assert (answer["width"], answer["height"]) == (document["video"]["width"], document["video"]["height"])
    assert len(answer["rows"]) == len(document["rows"]) == (1 if faces == "main" else 4)
    for row, wanted in zip(answer["rows"], document["rows"], strict=True):
        assert {**row, "timestamp": None} == pytest.approx(wanted, abs=2e-5)
    for window, wanted in zip(answer["windows"], document["windows"], strict=True):
        assert window["expression"] == pytest.approx(wanted["expression"], abs=2e-5)
        assert window["why"]["happiness"] == pytest.approx(wanted["why"]["happiness"], abs=2e-5)


def test_the_numbers_are_the_models_own_for_the_crops_that_are_named(
    client: TestClient, face_frames: Frames, model_folder: Path
) -> None:
    """A clip is the last T crops of a face; the row is its last frame, by the vote over the clip."""
    sent = face_frames[: FRAMES + 3]
    with client.websocket_connect("/v1/live") as session:
        start = session.receive_json()
        found = answers(session, sent)
    reader = ModelReader(model_folder, "cpu", threads=1)
    model, crops = reader.description, list[NDArray[np.uint8]]()
    for frame, answer in zip(sent, found, strict=True):
        (row,), (window,) = answer["rows"], answer["windows"]
        box = TrackedFace(0, *(row[name] for name in start["columns"][5:9]), 1.0)
        seen = cv2.imdecode(np.frombuffer(encoded(frame), np.uint8), cv2.IMREAD_COLOR_RGB)
        crops.append(center(crop(np.asarray(seen, np.uint8), box)[None], model.preprocessing)[0])
        last = crops[-FRAMES:]
        clip = np.stack([*last, *last[-1:] * (FRAMES - len(last))])[None]
        wanted = reader.read(clip).clip(0)
        probability = wanted.au_probability[: len(last)]
        np.testing.assert_allclose([row[code] for code in model.vocabulary.au_codes], probability[-1], atol=2e-5)
        np.testing.assert_allclose([row[name] for name in model.vocabulary.expressions], wanted.expression, atol=2e-5)
        present = model.rule.apply(probability)[-1]
        assert [row[f"{code}_c"] for code in model.vocabulary.au_codes] == present.astype(int).tolist()
        assert (window["start"], window["frames"]) == (max(0, row["frame"] - FRAMES + 1), len(last))
    assert {answer["rows"][0]["face_id"] for answer in found} == {0}


def test_without_expressions_rows_are_the_same_but_for_them(client: TestClient, face_frames: Frames) -> None:
    with client.websocket_connect("/v1/live") as session:
        names = session.receive_json()["model"]["expressions"]
        (whole,) = answers(session, face_frames[:1])
    with client.websocket_connect("/v1/live?expressions=off") as session:
        start = session.receive_json()
        (bare,) = answers(session, face_frames[:1])
    assert start["model"]["expressions"] == []
    assert "no emotion is inferred" in start["model"]["notice"]
    assert bare["windows"] == []
    assert bare["rows"] == [{key: value for key, value in whole["rows"][0].items() if key not in names}]


# -- frames that are odd ----------------------------------------------------------------------------------------------


def test_a_frame_that_is_refused_does_not_end_the_session(client: TestClient, face_frames: Frames) -> None:
    good = encoded(face_frames[0])
    cases = {
        b"not a picture": (422, "plain text"),
        b"\0" * 50: (422, "JPEG or WebP are read"),
        b"": (422, "0 bytes"),
        encoded(face_frames[0], ".png"): (422, "this is PNG"),
        good[: len(good) // 2]: (422, "truncated JPEG"),
        encoded(np.zeros((1300, 1300, 3), np.uint8)): (413, "1300 x 1300 pixels"),
    }
    with client.websocket_connect("/v1/live") as session:
        session.receive_json()
        for number, (data, (status, words)) in enumerate(cases.items()):
            session.send_bytes(data)
            answer = session.receive_json()
            assert (answer["frame"], answer["status"]) == (number, status), answer
            assert words in answer["error"]
            session.send_json({"taken": number + 1})
        session.send_bytes(good)
        assert session.receive_json()["rows"][0]["success"] == 1


def test_frames_may_change_their_size_and_kind(client: TestClient, face_frames: Frames) -> None:
    """A frame of another size starts anew: another id, a clip of its own."""
    other = np.ascontiguousarray(cv2.resize(face_frames[3], (640, 360)), np.uint8)
    with client.websocket_connect("/v1/live") as session:
        session.receive_json()
        found = answers(session, [face_frames[0], face_frames[1], other, np.zeros((40, 2, 3), np.uint8)])
        session.send_bytes(encoded(face_frames[4], ".webp"))
        found.append(session.receive_json())
    assert [(a["width"], a["height"]) for a in found] == [(320, 180)] * 2 + [(640, 360), (2, 40), (320, 180)]
    assert [a["rows"][0]["face_id"] for a in found] == [0, 0, 1, None, 2]
    assert [[w["frames"] for w in a["windows"]] for a in found] == [[1], [2], [1], [], [1]]


# -- clients that are too fast, too slow, or not welcome --------------------------------------------------------------


def test_the_newest_frame_wins_and_what_is_not_taken_is_not_sent(client: TestClient, face_frames: Frames) -> None:
    """Sixty frames at once: few are answered, in order, the last of them among them; the rest are counted."""
    with client.websocket_connect("/v1/live") as session:
        session.receive_json()
        for frame in face_frames:
            session.send_bytes(encoded(frame))
        found = [session.receive_json()]
        while found[-1]["frame"] < 59:
            session.send_json({"taken": len(found)})
            found.append(session.receive_json())
    numbers = [answer["frame"] for answer in found]
    assert numbers == sorted(set(numbers))
    assert found[-1]["dropped"] == 60 - len(found) > 0


def test_a_client_that_does_not_read_is_sent_no_more_and_then_left(make_app: Make, face_frames: Frames) -> None:
    with TestClient(make_app(idle_s=1)) as client, client.websocket_connect("/v1/live") as session:
        session.receive_json()
        until = time.monotonic() + 2.5
        try:
            while time.monotonic() < until:
                session.send_bytes(encoded(face_frames[0]))
                time.sleep(0.02)
        except WebSocketDisconnect:
            pass
        found = [session.receive_json() for _ in range(UNTAKEN)]
        last = told(session)
    assert all(answer["type"] == "frame" for answer in found)
    assert (last["status"], last["code"]) == (408, 1008)
    assert "were not taken" in last["error"]


@pytest.mark.parametrize(
    ("limits", "sent", "status", "code"),
    [
        ({"live_frame_bytes": 1000}, 1, 413, 1009),
        ({"live_rate": 3}, 9, 429, 1008),
        ({"idle_s": 0.4}, 0, 408, 1008),
        ({"live_s": 1.2}, 1, 504, 1008),
    ],
    ids=["large", "fast", "silent", "long"],
)
def test_limits_end_a_session_with_their_words(
    make_app: Make, face_frames: Frames, limits: dict[str, float], sent: int, status: int, code: int
) -> None:
    with TestClient(make_app(**limits)) as client, client.websocket_connect("/v1/live") as session:
        request_id = session.receive_json()["request_id"]
        for _ in range(sent):
            session.send_bytes(encoded(face_frames[0]))
        last = told(session)
    assert (last["status"], last["code"], last["request_id"]) == (status, code, request_id), last


@pytest.mark.parametrize("text", ["{}", '{"taken": -1}', '{"taken": 5}', '{"taken": true}', "[" * 50, "x" * 5000])
def test_text_that_means_nothing_is_400(client: TestClient, text: str) -> None:
    with client.websocket_connect("/v1/live") as session:
        session.receive_json()
        session.send_text(text)
        assert told(session)["status"] == 400


def test_a_camera_that_left_before_it_was_refused_is_no_fault_of_ours(
    make_app: Make, logged: list[dict[str, Any]]
) -> None:
    """The server of `serve.local` raises where it sends to a client that is gone; its own test client never does."""
    asked = [{"type": "websocket.connect"}, {"type": "websocket.receive", "bytes": b"x" * 3000}]
    scope = {"type": "websocket", "path": "/v1/live", "raw_path": b"/v1/live", "query_string": b"", "root_path": "",
             "headers": [(b"host", b"testserver")], "subprotocols": [], "scheme": "ws", "server": ("testserver", 80),
             "asgi": {"version": "3.0", "spec_version": "2.4"}}  # fmt: skip

    async def receive() -> dict[str, Any]:
        return asked.pop(0) if asked else await asyncio.Event().wait()

    async def send(message: dict[str, Any]) -> None:
        if message.get("text", "").startswith('{"type": "error"') or message["type"] == "websocket.close":
            raise OSError("the client left")

    asyncio.run(make_app(live_frame_bytes=2000)(scope, receive, send))
    assert [facts["status"] for facts in logged] == ["413"]


def test_cameras_have_places_that_come_back(make_app: Make, face_frames: Frames, logged: list[dict[str, Any]]) -> None:
    with TestClient(make_app(live=1)) as client:
        with client.websocket_connect("/v1/live") as first:
            first.receive_json()
            answers(first, face_frames[:1])
            with client.websocket_connect("/v1/live") as second:
                last = told(second)
            assert (last["status"], last["code"]) == (503, 1013)
            assert last["retry_after"] >= 1
        with client.websocket_connect("/v1/live") as third:
            assert third.receive_json()["type"] == "start"
    ends = [(line["status"], line.get("frames")) for line in logged if line["route"] == "/v1/live"]
    assert sorted(ends, key=str) == [("503", None), ("closed", 0), ("closed", 1)]


def refused(client: TestClient, status: int, url: str = "/v1/live", **headers: str) -> None:
    with pytest.raises(WebSocketDenialResponse) as caught, client.websocket_connect(url, headers=headers):
        pass
    assert caught.value.status_code == status
    assert list(caught.value.json()) == ["error", "request_id"]


def test_who_may_not_come_in_is_told_before_the_socket_opens(make_app: Make) -> None:
    with TestClient(make_app()) as client:
        refused(client, 403, Host="rebound.example")
        refused(client, 403, Origin="https://evil.example")
        refused(client, 400, "/v1/live?face=main")
        refused(client, 422, "/v1/live?faces=some")
        with client.websocket_connect("/v1/live", headers={"Origin": "http://testserver"}) as session:
            assert session.receive_json()["type"] == "start"
    with TestClient(make_app(token=TOKEN)) as client:
        refused(client, 401)
        refused(client, 401, **{"Sec-WebSocket-Protocol": "ssm.live, ssm.bearer.a"})
        with client.websocket_connect("/v1/live", headers={"Authorization": f"Bearer {TOKEN}"}) as session:
            assert session.receive_json()["type"] == "start"
        secret = base64.urlsafe_b64encode(TOKEN.encode()).decode().rstrip("=")
        offered = ["ssm.live", f"ssm.bearer.{secret}"]
        with client.websocket_connect("/v1/live", subprotocols=offered) as session:
            assert session.accepted_subprotocol == "ssm.live"
            assert session.receive_json()["type"] == "start"


def test_what_is_switched_off_cannot_be_switched_on(model_folder: Path, tmp_path: Path, face_video: Path) -> None:
    app = local_app(small_settings(model_folder, tmp_path / "scratch", expressions="off"))
    with TestClient(app) as client:
        refused(client, 403, "/v1/live?expressions=on")
        with client.websocket_connect("/v1/live") as session:
            assert session.receive_json()["model"]["expressions"] == []
        upload = {"file": face_video.read_bytes()}
        assert client.post("/v1/predict", files=upload, params={"expressions": "on"}).status_code == 403
        assert client.get("/v1/model").json()["expressions"] == []
        document = client.post("/v1/predict", files=upload).json()
        assert document["windows"] == []
        assert "happiness" not in document["columns"]
        assert len(document["rows"]) == 60
        assert [output["name"] for output in client.get("/v2/models/ssm").json()["outputs"]] == ["au_probability"]
        clips = {"name": "clips", "shape": [1, FRAMES, 32, 32, 3], "datatype": "UINT8", "data": [9] * (FRAMES * 3072)}
        asked = {"inputs": [clips], "outputs": [{"name": "expression_probability"}]}
        assert client.post("/v2/models/ssm/infer", json=asked).status_code == 400
        assert len(client.post("/v2/models/ssm/infer", json={"inputs": [clips]}).json()["outputs"]) == 1


def test_nothing_of_a_camera_is_written(make_app: Make, face_frames: Frames, tmp_path: Path) -> None:
    with TestClient(make_app()) as client, client.websocket_connect("/v1/live") as session:
        session.receive_json()
        answers(session, face_frames[:3])
        assert [path for path in tmp_path.rglob("*") if path.is_file()] == []
