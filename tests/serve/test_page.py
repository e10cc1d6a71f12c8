"""The page in a real Chromium: pick a video, see the face, timelines and reasons; download; by keyboard too."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from page_fixtures import CONTRAST, DRAWN, downloaded, opened, read, running, shot, until
from serving_fixtures import save_model, small_settings

from serve.local import local_app
from ssm.interface import Abstention
from ssm.labels import AFFECT

pytestmark = pytest.mark.browser


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
    assert page.evaluate(CONTRAST) == [], "controls stand out three to one"
    shot(page, "result")
    lines = downloaded(page, "csv").splitlines()
    assert lines[0].startswith("frame,face_id,timestamp,confidence,success,FaceRectX")
    assert len(lines) == 61
    assert len(json.loads(downloaded(page, "json"))["rows"]) == 60
    assert page.problems == []


def test_affect_doubts_and_what_is_withheld_are_shown(browser: Any, face_video: Path, tmp_path: Path) -> None:
    """Of a model that has all three: a trace around zero, shaded rows, and AUs whose presence is not answered."""
    folder = save_model(tmp_path / "model", 1, "evidential", Abstention(risk=0.1, doubt=0.01, coverage=0.1), AFFECT)
    with running(local_app(small_settings(folder, tmp_path / "scratch"), None)) as site:
        page = opened(browser, site)
        until(page, "document.querySelector('#model').textContent !== ''")
        read(page, face_video)
        assert page.locator("#affect-rows .names span").all_inner_texts() == ["valence", "arousal"]
        assert page.locator("#doubt-legend").is_visible()
        row = json.loads(downloaded(page, "json"))["rows"][0]
        signs = [f"{'−' if row[name] < 0 else '+'}{abs(row[name]):.2f}" for name in AFFECT]
        assert page.inner_text("#affect-now") == f"valence {signs[0]}, arousal {signs[1]}"
        assert {row["AU12_c"], row["AU12_u"] > 0.01} == {None, True}
        average = page.locator("#averages tbody tr", has_text="AU12").locator("td").nth(1)
        assert average.inner_text() == "withheld"
        page.click("#tell")
        assert "Not answered: AU01, AU02" in page.inner_text("#told")
        shot(page, "doubts")
        assert page.problems == []


WORDS = [[f"{row} {column}" for column in ("left", "centre", "right")] for row in ("upper", "middle", "lower")]
WORDS[1][1] = "centre"


def test_where_was_looked_is_shown_and_said(browser: Any, face_video: Path, tmp_path: Path) -> None:
    """Over the face's picture, hidden where faces shall be; in words it is the place of the highest share."""
    folder = save_model(tmp_path / "model", 1, "hiva", size=96)
    with running(local_app(small_settings(folder, tmp_path / "scratch"), None)) as site:
        page = opened(browser, site)
        until(page, "document.querySelector('#model').textContent !== ''")
        read(page, face_video)
        document = json.loads(downloaded(page, "json"))
        for number in range(1, 13):
            until(page, f"({DETAIL})('#where li:nth-child({number}) canvas') > 36")
        detail = page.evaluate(DETAIL, "#where canvas")
        said = page.locator("#where canvas").evaluate_all("all => all.map((one) => one.ariaLabel)")
        maps = {code: place["map"] for code, place in document["where"][0]["aus"].items()}
        words = {code: WORDS[row][column] for code in maps for row, column in [divmod(int(np.argmax(maps[code])), 3)]}
        names = {unit["code"]: unit["name"] for unit in document["model"]["aus"]}
        assert said == [f"{code} {names[code]}: looked at most in the {words[code]}" for code in names]
        shot(page, "where")
        page.set_checked("#blur", True)
        until(page, f"({DETAIL})('#where canvas') < {detail / 2}")
        shot(page, "where-hidden")
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
    until(page, "document.querySelectorAll('#moments tbody tr').length === 60")  # filled when it was opened
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


def test_it_reads_on_a_phone_and_in_the_dark(browser: Any, site: str, face_video: Path) -> None:
    page = opened(browser, site, 390, 844, "dark")
    shot(page, "phone-start")
    read(page, face_video)
    page.locator("#scrub").fill("30")
    assert page.evaluate("document.documentElement.scrollWidth <= 390"), "nothing is wider than the phone"
    assert page.evaluate(CONTRAST) == [], "in the dark as well"
    shot(page, "phone-result")
    assert page.problems == []


DETAIL = """(id) => {
  const canvas = document.querySelector(id), context = canvas.getContext("2d");
  const { data } = context.getImageData(0, 0, canvas.width, canvas.height);
  const colours = new Set();
  for (let i = 0; i < data.length; i += 4) colours.add((data[i] << 16) + (data[i + 1] << 8) + data[i + 2]);
  return colours.size;
}"""


def test_several_faces_can_be_looked_at_one_by_one_and_hidden(browser: Any, site: str, shared_data: Path) -> None:
    """Covered, a face has the 36 colours of its cells."""
    page = opened(browser, site)
    picture = shared_data / "faces" / "multi_face.jpg"
    read(page, picture, picture)
    options = page.locator("#face option").all_inner_texts()
    assert len(options) == 4
    assert options[0].endswith("of each picture: 2")
    assert "2 pictures" in page.inner_text("#title")
    page.select_option("#face", index=2)
    assert page.locator("#averages caption").inner_text().startswith(options[2])
    until(page, "document.querySelector('#picture').complete")
    page.wait_for_timeout(200)
    seen = page.evaluate(DETAIL, "#thumbnail")
    shot(page, "faces")
    page.set_checked("#blur", True)
    assert page.evaluate(DETAIL, "#thumbnail") <= 36 < seen / 10
    assert page.evaluate(DRAWN)
    shot(page, "faces-hidden")
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
