"""The page and a service that is busy, slow or guarded, and its camera; in a real Chromium."""

from __future__ import annotations

import asyncio
import csv
import io
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from page_fixtures import DRAWN, downloaded, opened, read, running, shot, until
from serving_fixtures import small_settings

from serve.local import local_app
from ssm_platform.faces.settings import FaceSettings

pytestmark = pytest.mark.browser
Make = Callable[..., FastAPI]


def test_a_second_file_waits_and_both_can_be_looked_at(browser: Any, site: str, face_video: Path) -> None:
    page = opened(browser, site)
    page.set_input_files("#file", str(face_video))
    again = {"name": "again.mp4", "mimeType": "video/mp4", "buffer": face_video.read_bytes()}
    page.set_input_files("#file", again)
    assert page.locator("#list li").count() == 2
    until(page, "document.querySelectorAll('#list button:not([disabled])').length === 2")
    page.wait_for_selector("#progress", state="hidden", timeout=60_000)
    assert page.inner_text("#title") == "face.mp4", "what is looked at stays"
    page.locator("#list button").nth(1).click()
    assert page.inner_text("#title") == "again.mp4"
    assert page.problems == []


def test_a_token_is_asked_for_and_the_file_kept(browser: Any, make_app: Make, face_video: Path) -> None:
    with running(make_app(token="s" * 20)) as site:
        page = opened(browser, site)
        page.wait_for_selector("#token-box:not([hidden])")
        page.set_input_files("#file", str(face_video))
        page.wait_for_selector("#retry:not([hidden])")
        assert "bearer token" in page.inner_text("#error")
        page.fill("#token", "s" * 20)
        page.click("#retry")
        page.wait_for_selector("#result:not([hidden])", timeout=60_000)
        page.wait_for_selector("#progress", state="hidden", timeout=60_000)
        assert "60 frames" in page.inner_text("#facts")
        assert not page.is_visible("#error")


def test_a_busy_service_is_asked_again(browser: Any, make_app: Make, face_video: Path) -> None:
    """The first upload finds every place taken: it is sent again after the time that the service names."""
    app, refused = make_app(), list[str]()

    async def busy_once(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http" or scope["path"] != "/v1/predict" or refused:
            return await app(scope, receive, send)
        refused.append(scope["path"])
        headers = [(b"content-type", b"application/json"), (b"retry-after", b"1")]
        await send({"type": "http.response.start", "status": 503, "headers": headers})
        await send({"type": "http.response.body", "body": b'{"error": "all places are taken", "request_id": "1"}'})

    with running(busy_once) as site:
        page = opened(browser, site)
        read(page, face_video)
        assert "60 frames" in page.inner_text("#facts")
    assert refused == ["/v1/predict"]


def test_rows_are_shown_while_the_video_is_still_read(browser: Any, make_app: Make, face_video: Path) -> None:
    """The answer stops half-way until the page has shown what came: its facts say that there is more to come."""
    app, gate = make_app(), threading.Event()

    async def halting(scope: Any, receive: Any, send: Any) -> None:
        async def slow(message: Any) -> None:
            if b'"frame":15' in message.get("body", b""):
                await send({**message, "more_body": True})
                return await asyncio.to_thread(gate.wait, 30) and None
            await send(message)

        await app(scope, receive, slow if scope.get("path") == "/v1/predict" else send)

    with running(halting) as site:
        page = opened(browser, site)
        page.set_input_files("#file", str(face_video))
        page.wait_for_selector("#result:not([hidden])", timeout=60_000)
        until(page, "document.querySelector('#facts').innerText.includes('of 60 frames')")
        assert page.is_visible("#progress")
        until(page, "document.querySelector('#averages tbody td').innerText.includes('%')")
        shot(page, "reading")
        gate.set()
        page.wait_for_selector("#progress", state="hidden", timeout=60_000)
        assert page.inner_text("#facts").startswith("60 frames")


@pytest.fixture
def pose_site(model_folder: Path, tmp_path: Path, shared_data: Path) -> Iterator[str]:
    """The application with a detector that tells points, so that there is a head pose."""
    detection = FaceSettings(detector="yunet", model=shared_data / "face_detection_yunet_2026may.onnx")
    with running(local_app(small_settings(model_folder, tmp_path, detection=detection))) as url:
        yield url


def test_the_camera_is_read_recorded_and_downloaded(camera_browser: Any, pose_site: str) -> None:
    site = pose_site
    page = opened(camera_browser, site, permissions=("camera",))
    page.click("#use-camera")
    until(page, "document.querySelector('#rate').innerText.includes('frames/s')")
    until(page, "document.querySelectorAll('#units .strong, #units i').length === 12")
    assert page.evaluate(DRAWN)
    assert "%" in page.inner_text("#expressions")
    until(page, "document.querySelector('#pose').innerText.startsWith('Head: yaw')")
    page.click("#tell")
    assert "face 0" in page.inner_text("#told")
    page.set_checked("#blur", True)
    page.wait_for_timeout(500)
    shot(page, "camera")
    page.click("#record")
    until(page, "/ (\\d+) frames recorded/.exec(document.querySelector('#rate').innerText)?.[1] > 9")
    page.click("#record")
    page.wait_for_selector("#downloads:not([hidden])")
    table = list(csv.DictReader(io.StringIO(downloaded(page, "csv"))))
    assert [int(row["frame"]) for row in table] == list(range(len(table)))
    assert len(table) > 9
    times = [float(row["timestamp"]) for row in table]
    assert times[0] == 0
    assert times == sorted(times)
    assert sum(row["success"] == "1" for row in table) > len(table) / 2
    shot(page, "recorded")
    assert page.locator("#averages tbody tr").count() == 19
    assert page.problems == []


def test_a_camera_that_is_refused_is_told_so(camera_browser: Any, site: str) -> None:
    page = opened(camera_browser, site)
    context = page.context.new_cdp_session(page).send("Target.getTargetInfo")["targetInfo"]["browserContextId"]
    denied = {"permission": {"name": "camera"}, "setting": "denied", "origin": site, "browserContextId": context}
    camera_browser.new_browser_cdp_session().send("Browser.setPermission", denied)
    late: list[Any] = []

    def held(route: Any) -> None:
        late.append(route)

    page.route("**/v1/model", held)  # the model's name comes only after the camera was refused
    page.reload(wait_until="domcontentloaded")
    page.click("#use-camera")
    page.wait_for_selector("#error:not([hidden])")
    (asked,) = late
    asked.continue_()
    until(page, "document.querySelector('#model').innerText.startsWith('model ')")
    assert page.is_visible("#error")
    assert "The camera was refused. Allow it" in page.inner_text("#error")


def test_a_camera_that_needs_a_token_says_so_until_it_is_there(
    camera_browser: Any, model_folder: Path, tmp_path: Path
) -> None:
    token = "s" * 20
    with running(local_app(small_settings(model_folder, tmp_path), token)) as site:
        page = opened(camera_browser, site, permissions=("camera",))
        page.click("#use-camera")
        until(page, "document.querySelector('#error').innerText.includes('A token is needed.')")
        page.fill("#token", token)
        page.press("#token", "Enter")
        page.wait_for_selector("#error", state="hidden")
        page.click("#use-camera")
        until(page, "document.querySelector('#rate').innerText.includes('frames/s')")
