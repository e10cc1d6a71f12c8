"""The page in a real Chromium: pick a video, see the face, timelines and reasons; download; by keyboard too."""

from __future__ import annotations

import json
import os
import shutil
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI

pytestmark = pytest.mark.browser
CHROMIUM = shutil.which("chromium")
ARGUMENTS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update",
             "--disable-sync", "--no-first-run", "--disable-quic"]  # fmt: skip


@pytest.fixture
def site(make_app: Callable[..., FastAPI]) -> Iterator[str]:
    """The application behind a real HTTP server."""
    import uvicorn

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    server = uvicorn.Server(uvicorn.Config(make_app(), port=port, log_level="warning"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.05)
    yield f"http://127.0.0.1:{port}/"
    server.should_exit = True
    thread.join()


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    if CHROMIUM is None:
        pytest.skip("no chromium on this machine: apt-get install chromium")
    api = pytest.importorskip("playwright.sync_api")
    with api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        yield browser
        browser.close()


def opened(browser: Any, site: str, width: int = 1280, height: int = 900, scheme: str = "light", at: str = "") -> Any:
    """A page whose console errors, failed requests and requests to elsewhere fail the test."""
    page = browser.new_page(viewport={"width": width, "height": height}, color_scheme=scheme)
    page.problems = []
    page.on("console", lambda message: message.type == "error" and page.problems.append(message.text))
    page.on("pageerror", lambda error: page.problems.append(str(error)))
    page.on("request", lambda r: r.url.startswith((site, "blob:", "data:")) or page.problems.append(r.url))
    page.goto(site + at)
    return page


def shot(page: Any, name: str) -> None:
    """A screenshot for whoever asked for one (SSM_SHOTS names a folder)."""
    if folder := os.environ.get("SSM_SHOTS"):
        page.screenshot(path=f"{folder}/{name}.png", full_page=True)


def test_a_video_is_read_shown_explained_and_downloaded(browser: Any, site: str, face_video: Path) -> None:
    page = opened(browser, site)
    shot(page, "start")
    page.set_input_files("#file", str(face_video))
    page.wait_for_selector("#result:not([hidden])", timeout=60_000)
    assert "60 frames" in page.inner_text("#facts")
    assert page.locator("#au-rows .names span").count() == 12
    assert page.locator("#expression-rows .names span").count() == 7
    page.wait_for_function("document.querySelector('#video').readyState >= 2", timeout=20_000)
    page.locator("#au-rows canvas").focus()
    for _ in range(20):
        page.keyboard.press("ArrowRight")
    assert page.locator("#scrub").input_value() == "20"
    page.wait_for_function("Math.abs(document.querySelector('#video').currentTime - 0.8) < 0.05")
    drawn = (
        "() => { const c = document.querySelector('#overlay');"
        " const d = c.getContext('2d').getImageData(0, 0, c.width, c.height).data; return d.some((v) => v > 0); }"
    )
    assert page.evaluate(drawn)
    page.locator("#expressions button", has_text="anger").focus()
    page.keyboard.press("Enter")
    assert page.inner_text("#why-name") == "anger"
    assert page.locator("#why .bar-row").count() == 8
    shot(page, "result")
    with page.expect_download() as download:
        page.click("#csv")
    lines = Path(download.value.path()).read_text().splitlines()
    assert lines[0].startswith("frame,face_id,timestamp,confidence,success,FaceRectX")
    assert len(lines) == 61
    with page.expect_download() as download:
        page.click("#json")
    assert len(json.loads(Path(download.value.path()).read_text())["rows"]) == 60
    page.click("#again")
    assert page.is_visible("#drop")
    assert page.problems == []


def test_it_reads_on_a_phone_and_in_the_dark(browser: Any, site: str, face_video: Path) -> None:
    page = opened(browser, site, 390, 844, "dark")
    shot(page, "phone-start")
    page.set_input_files("#file", str(face_video))
    page.wait_for_selector("#result:not([hidden])", timeout=60_000)
    page.locator("#scrub").fill("30")
    assert page.evaluate("document.documentElement.scrollWidth <= 390"), "nothing is wider than the phone"
    shot(page, "phone-result")
    assert page.problems == []


def test_several_faces_and_pictures_can_be_looked_at_one_by_one(browser: Any, site: str, shared_data: Path) -> None:
    page = opened(browser, site)
    page.set_input_files("#file", str(shared_data / "faces" / "multi_face.jpg"))
    page.wait_for_selector("#result:not([hidden])", timeout=60_000)
    tabs = page.locator("#tabs button")
    assert tabs.count() >= 3
    tabs.nth(1).click()
    assert tabs.nth(1).get_attribute("aria-pressed") == "true"
    page.wait_for_timeout(300)
    shot(page, "faces")
    assert page.problems == []


def test_a_refusal_is_told_in_the_services_words(browser: Any, site: str, tmp_path: Path) -> None:
    bad = tmp_path / "notes.mp4"
    bad.write_bytes(b"not a video at all")
    page = opened(browser, site)
    page.set_input_files("#file", str(bad))
    page.wait_for_selector("#error:not([hidden])")
    assert "no video that can be read" in page.inner_text("#error")
    assert page.is_visible("#drop")


def test_the_interface_page_lists_every_route(browser: Any, site: str) -> None:
    page = opened(browser, site, at="docs")
    page.wait_for_selector("#routes section")
    assert "POST /v1/predict" in page.inner_text("#routes")
    shot(page, "docs")
    assert page.problems == []
