"""The page in a real Chromium: pick a video, see the face, timelines and reasons; download; by keyboard too."""

from __future__ import annotations

import asyncio
import csv
import io
import json
import os
import shutil
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from serving_fixtures import small_settings

from serve.local import local_app
from ssm_platform.faces.settings import FaceSettings

pytestmark = pytest.mark.browser
Make = Callable[..., FastAPI]
CHROMIUM = shutil.which("chromium")
ARGUMENTS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update",
             "--disable-sync", "--no-first-run", "--disable-quic"]  # fmt: skip


@contextmanager
def running(app: Any) -> Iterator[str]:
    """The address of an application behind a real HTTP server."""
    import uvicorn

    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="warning"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.05)
    yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}/"
    server.should_exit = True
    thread.join()


@pytest.fixture
def site(make_app: Make) -> Iterator[str]:
    """The application behind a real HTTP server."""
    with running(make_app()) as url:
        yield url


@pytest.fixture(scope="module")
def chromium() -> Iterator[Callable[..., Any]]:
    """`chromium(*arguments)` starts a browser."""
    if CHROMIUM is None:
        pytest.skip("no chromium on this machine: apt-get install chromium")
    api = pytest.importorskip("playwright.sync_api")
    with api.sync_playwright() as playwright:
        started = []

        def start(*arguments: str) -> Any:
            started.append(playwright.chromium.launch(executable_path=CHROMIUM, args=[*ARGUMENTS, *arguments]))
            return started[-1]

        yield start
        for browser in started:
            browser.close()


@pytest.fixture(scope="module")
def browser(chromium: Callable[..., Any]) -> Any:
    return chromium()


@pytest.fixture(scope="module")
def camera_browser(chromium: Callable[..., Any], shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A browser whose camera shows a real video, over and over."""
    ffmpeg = shutil.which("ffmpeg")
    if ffmpeg is None:
        pytest.skip("no ffmpeg on this machine: apt-get install ffmpeg")
    film = tmp_path_factory.mktemp("camera") / "face.mjpeg"
    size = ["-t", "4", "-vf", "scale=640:480:force_original_aspect_ratio=increase,crop=640:480", "-q:v", "5"]
    source = shared_data / "faces" / "WolfgangLanger_Pexels.mp4"
    subprocess.run([ffmpeg, "-v", "error", "-i", str(source), *size, str(film)], check=True, timeout=60)
    fake = ["--use-fake-device-for-media-stream", f"--use-file-for-fake-video-capture={film}"]
    return chromium(*fake, "--deny-permission-prompts")


def opened(
    browser: Any,
    site: str,
    width: int = 1280,
    height: int = 900,
    scheme: str = "light",
    at: str = "",
    permissions: tuple[str, ...] = (),
) -> Any:
    """A page whose console errors, failed requests and requests to elsewhere fail the test."""
    context = browser.new_context(
        viewport={"width": width, "height": height}, color_scheme=scheme, permissions=list(permissions)
    )
    page = context.new_page()
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


def read(page: Any, *files: Path) -> None:
    """Hand files in and wait until all are read."""
    page.set_input_files("#file", [str(file) for file in files])
    page.wait_for_selector("#result:not([hidden])", timeout=60_000)
    page.wait_for_selector("#progress", state="hidden", timeout=60_000)


def downloaded(page: Any, kind: str) -> str:
    with page.expect_download() as download:
        page.click(f"#{kind}")
    return Path(download.value.path()).read_text()


def until(page: Any, condition: str) -> None:
    """Asked from outside: the page's own policy lets nobody evaluate text in it."""
    end = time.monotonic() + 60
    while not page.evaluate(condition):
        assert time.monotonic() < end, condition
        page.wait_for_timeout(50)


DRAWN = (
    "() => { const c = document.querySelector('#overlay');"
    " const d = c.getContext('2d').getImageData(0, 0, c.width, c.height).data; return d.some((v) => v > 0); }"
)


def test_a_video_is_read_shown_explained_and_downloaded(browser: Any, site: str, face_video: Path) -> None:
    page = opened(browser, site)
    shot(page, "start")
    read(page, face_video)
    assert "60 frames" in page.inner_text("#facts")
    assert page.locator("#au-rows .names span").count() == 12
    assert page.locator("#expression-rows .names span").count() == 7
    until(page, "document.querySelector('#video').readyState >= 2")
    page.locator("#au-rows canvas").focus()
    for _ in range(20):
        page.keyboard.press("ArrowRight")
    assert page.locator("#scrub").input_value() == "20"
    until(page, "Math.abs(document.querySelector('#video').currentTime - 0.8) < 0.05")
    assert page.evaluate(DRAWN)
    page.locator("#expressions button", has_text="anger").focus()
    page.keyboard.press("Enter")
    assert page.inner_text("#why-name") == "anger"
    assert page.locator("#why .bar-row").count() == 8
    values = page.locator("#why .value").all_inner_texts()
    sizes = [float(text[1:]) for text in values]
    assert {text[0] for text in values} <= {"+", "−"}
    assert sizes == sorted(sizes, reverse=True), "the strongest first, whatever their sign"
    assert "movement, not feeling" in page.inner_text("#notice")
    shot(page, "result")
    lines = downloaded(page, "csv").splitlines()
    assert lines[0].startswith("frame,face_id,timestamp,confidence,success,FaceRectX")
    assert len(lines) == 61
    assert len(json.loads(downloaded(page, "json"))["rows"]) == 60
    assert page.problems == []


def test_averages_marks_and_exclusions_are_seen_and_downloaded(browser: Any, site: str, face_video: Path) -> None:
    page = opened(browser, site)
    read(page, face_video)
    rows = json.loads(downloaded(page, "json"))["rows"]

    def mean(rows: list[dict[str, Any]]) -> str:
        found = [row["AU12"] for row in rows if row["success"]]
        return f"{sum(found) / len(found) * 100:.0f} %"

    average = page.locator("#averages tbody tr", has_text="AU12").locator("td").first
    assert average.inner_text() == mean(rows)
    page.locator("#scrub").fill("10")
    page.fill("#mark-text", 'a, "smile"')
    page.keyboard.press("Enter")
    page.click("#exclude")
    page.locator("#scrub").fill("50")
    page.click("#exclude")
    assert average.inner_text() == mean([row for row in rows if not 10 <= row["frame"] <= 50])
    assert page.locator("#notes li").count() == 2
    shot(page, "notes")
    table = list(csv.DictReader(io.StringIO(downloaded(page, "csv"))))
    assert [row["excluded"] for row in table] == [str(int(10 <= frame <= 50)) for frame in range(60)]
    assert [row["mark"] for row in table if row["mark"]] == ['a, "smile"']
    assert json.loads(downloaded(page, "json"))["excluded"] == [{"from": 10, "to": 50}]
    page.click("#moments-box summary")
    assert page.locator("#moments tbody tr").count() == 60
    page.locator("#notes button").first.click()
    page.locator("#notes button").first.click()
    assert average.inner_text() == mean(rows)
    assert page.problems == []


def test_groups_are_walked_with_arrows_and_a_moment_is_said_on_demand(
    browser: Any, site: str, face_video: Path
) -> None:
    page = opened(browser, site)
    read(page, face_video)
    group = page.locator("#expressions button")
    assert group.evaluate_all("all => all.filter((one) => one.tabIndex === 0).length") == 1
    group.locator("visible=true").nth(0).focus()
    chosen = []
    for _ in range(3):
        page.keyboard.press("ArrowDown")
        chosen.append(page.evaluate("document.activeElement.innerText.split('\\n')[0].trim()"))
        assert page.locator("#expressions [aria-checked=true]").inner_text().startswith(chosen[-1].split()[0])
    assert len(set(chosen)) == 3
    spoken = "[aria-live], output, [role=status], [role=alert]"
    before = page.locator(spoken).all_inner_texts()
    page.click("#play")
    until(page, "Number(document.querySelector('#scrub').value) > 5")
    assert page.locator(spoken).all_inner_texts() == before, "nothing is spoken frame by frame"
    page.click("#tell")
    assert "face 0" in page.inner_text("#told")
    assert page.problems == []


CONTRAST = r"""() => {
  const linear = (v) => (v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
  const light = (text) => {
    const [r, g, b] = text.match(/[\d.]+/g).slice(0, 3).map((v) => linear(v / 255));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const ratio = (a, b) => {
    const [low, high] = [light(a), light(b)].sort((x, y) => x - y);
    return (high + 0.05) / (low + 0.05);
  };
  const behind = (element) => {
    for (let e = element; e; e = e.parentElement) {
      const colour = getComputedStyle(e).backgroundColor;
      if (!/rgba\(.*, 0\)|transparent/.test(colour)) return colour;
    }
    return "rgb(255, 255, 255)";
  };
  return [...document.querySelectorAll("button:not(.bar-row), select, #mark-text, #drop")].filter((e) => e.offsetParent)
    .map((e) => [e.id || e.innerText, Math.max(ratio(getComputedStyle(e).borderColor, behind(e.parentElement)),
                 ratio(behind(e), behind(e.parentElement)))]).filter(([, value]) => value < 3);
}"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_controls_stand_out_three_to_one(browser: Any, site: str, face_video: Path, scheme: str) -> None:
    page = opened(browser, site, scheme=scheme)
    read(page, face_video)
    assert page.evaluate(CONTRAST) == []


def test_it_reads_on_a_phone_and_in_the_dark(browser: Any, site: str, face_video: Path) -> None:
    page = opened(browser, site, 390, 844, "dark")
    shot(page, "phone-start")
    read(page, face_video)
    page.locator("#scrub").fill("30")
    assert page.evaluate("document.documentElement.scrollWidth <= 390"), "nothing is wider than the phone"
    shot(page, "phone-result")
    assert page.problems == []


def test_several_faces_and_pictures_can_be_looked_at_one_by_one(browser: Any, site: str, shared_data: Path) -> None:
    page = opened(browser, site)
    picture = shared_data / "faces" / "multi_face.jpg"
    read(page, picture, picture)
    options = page.locator("#face option").all_inner_texts()
    assert len(options) == 4
    assert options[0].endswith("of each picture: 2")
    assert "2 pictures" in page.inner_text("#title")
    for kind in (False, True):
        page.set_checked("#blur", kind)
        page.wait_for_timeout(200)
        shot(page, f"faces-{kind}")
    page.select_option("#face", index=2)
    assert page.locator("#averages caption").inner_text().startswith(options[2])
    assert page.problems == []


def test_faces_can_be_hidden(browser: Any, site: str, shared_data: Path) -> None:
    """Covered, a face has a tenth of the detail it had; the same cut out of it."""
    page = opened(browser, site)
    read(page, shared_data / "faces" / "multi_face.jpg")
    detail = """(id) => { const c = document.querySelector(id), w = c.width, h = c.height;
        const d = c.getContext("2d").getImageData(0, 0, w, h).data; let colours = new Set();
        for (let i = 0; i < d.length; i += 4) colours.add((d[i] << 16) + (d[i + 1] << 8) + d[i + 2]);
        return colours.size; }"""
    until(page, "document.querySelector('#picture').complete")
    page.wait_for_timeout(200)
    seen = page.evaluate(detail, "#thumbnail")
    page.set_checked("#blur", True)
    assert page.evaluate(detail, "#thumbnail") <= 36 < seen / 10
    assert page.evaluate(DRAWN)


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


def test_what_the_browser_cannot_play_is_shown_in_pictures(
    browser: Any, site: str, face_frames: list[Any], write_video: Callable[..., Path], tmp_path: Path
) -> None:
    page = opened(browser, site)
    read(page, write_video(tmp_path / "x.avi", face_frames[:30], codec="mpeg4"))
    assert page.is_visible("#unplayable")
    page.locator("#scrub").fill("20")
    until(page, "document.querySelector('#picture').naturalWidth === 320")
    assert page.get_attribute("#picture", "alt") == "Frame 20"
    assert page.evaluate(DRAWN)
    shot(page, "unplayable")
    assert page.problems == []


def test_without_expressions_none_is_named(browser: Any, site: str, face_video: Path) -> None:
    page = opened(browser, site)
    page.check("#off")
    read(page, face_video)
    assert not page.is_visible("#expression-card")
    assert not page.is_visible("#expression-over")
    assert "no emotion is inferred" in page.inner_text("#notice")
    assert "happiness" not in downloaded(page, "csv")
    shot(page, "aus")
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
    page.click("#use-camera")
    page.wait_for_selector("#error:not([hidden])")
    assert "The camera was refused. Allow it" in page.inner_text("#error")


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
