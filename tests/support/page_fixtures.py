"""What the tests of the page share: a real server, Chromium, a camera that shows a real video."""

from __future__ import annotations

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
    return chromium(*fake)


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
