"""The report: self-contained, complete, escaped, and the same bytes for the same numbers."""

from __future__ import annotations

import base64
import re
from pathlib import Path

import cv2
import numpy as np
import pytest

from ssm_platform.evaluate.report.page import Thumbnail, render
from ssm_platform.evaluate.scores import (
    AUScores,
    Calibration,
    Evaluation,
    FEScores,
    Interval,
    MapReport,
    NoiseFloor,
    Provenance,
    Reliability,
    RiskCoverage,
)

NOWHERE = Interval(value=float("nan"), low=float("nan"), high=float("nan"), subjects=0)


def example(protocol: str = "clean", run: str = "example") -> Evaluation:
    """An evaluation with two AUs and three classes; the numbers are for layout only."""
    intervals = (
        Interval(value=0.61, low=0.55, high=0.67, subjects=8),
        Interval(value=0.4, low=0.31, high=0.52, subjects=8),
    )
    calibration = Calibration(before=0.2, temperature=1.5, after=0.1)
    risk = RiskCoverage(coverage=(0.5, 1.0), risk=(0.1, 0.2), area=0.12)
    au = AUScores(
        corpus="bp4d", aus=(6, 12), frames=1000, subjects=8, prevalence=(0.46, 0.56), f1=intervals, f1_half=intervals,
        macro_f1=intervals[0], macro_f1_half=intervals[1],
        roc_auc=(intervals[0], NOWHERE), mean_auc=intervals[0], average_precision=(0.6, 0.5),
        calibration_error=(0.05, 0.1), calibration=calibration, risk=risk,
        reliability=Reliability(confidence=(0.1, 0.5, 0.9), observed=(0.15, 0.5, 0.8), counts=(500, 300, 200)),
    )  # fmt: skip
    fe = FEScores(
        corpus="dfew", expressions=("happiness", "sadness", "neutral"), clips=90, subjects=90, uar=intervals[0],
        war=intervals[1], recall=(*intervals, NOWHERE), confusion=((21, 5, 4), (6, 18, 6), (9, 6, 15)),
        calibration=calibration, risk=risk,
    )  # fmt: skip
    maps = MapReport(
        expressions=fe.expressions, aus=au.aus, prior=((1.0, 1.0), (0.02, 0.02), (0.02, 0.02)),
        learned=((0.9, 1.1), (0.03, 0.01), (0.02, 0.02)), true=((0.8, 0.9), (0.0, 0.1), (0.0, 0.0)),
        prior_correlation=0.97, learned_correlation=0.99,
    )  # fmt: skip
    provenance = Provenance(
        run=run, command="python jobs/evaluate.py runs/example", seed=1, config_fingerprint="ab" * 32,
        data={"bp4d": "cd" * 32}, versions=Provenance.installed(), machine="a test",
    )  # fmt: skip
    return Evaluation(
        protocol=protocol, fitted_on="validation", au=(au,), fe=(fe,), noise=NoiseFloor(repeats=20, macro_f1=0.03),
        maps=maps, provenance=provenance,
    )  # fmt: skip


def test_the_page_is_self_contained_and_says_everything() -> None:
    frames = np.random.default_rng(0).integers(0, 255, (4, 48, 48, 3), dtype=np.uint8)
    page = render(
        example(),
        losses={"fe": [(0, 1.0), (10, 0.5)]},
        validation={"macro F1": [(0, 0.2), (10, 0.5)]},
        thumbnails={"Best clips": [Thumbnail.of(frames, "clip 7: happiness, p = 0.98")]},
        rules={6: "p >= 0.40"},
    )
    assert not re.findall(r'(?:src|href)="(?!data:)[^"#]', page), "nothing is fetched from outside"
    for text in (
        "movement, not feeling",
        "Protocol: clean",
        "0.610",
        "AU12",
        "lip corner puller",
        "noise floor",
        "clip 7",
        "p &gt;= 0.40",
        "subjects: 8",
        "after temperature 1.50: 0.100",
    ):
        assert text in page
    assert page.count("<svg") == 8


def test_faces_of_a_report_can_be_hidden() -> None:
    frames = np.random.default_rng(0).integers(0, 255, (2, 48, 48, 3), dtype=np.uint8)
    shown, hidden = (
        cv2.imdecode(np.frombuffer(base64.b64decode(Thumbnail.of(frames, "", blur).jpeg), np.uint8), 1)
        for blur in (False, True)
    )
    assert hidden.shape == shown.shape
    assert np.abs(np.diff(hidden[:, 2:46].astype(int), axis=0)).max() < 20, "noise of 255 has no detail left"


def test_the_same_numbers_give_the_same_page() -> None:
    assert render(example()) == render(example())


def test_a_published_result_says_what_it_is() -> None:
    assert "Selected on the test labels" in render(example("published"))


def test_names_are_escaped() -> None:
    assert "<script>" not in render(example(run="<script>alert(1)</script>"))


def test_an_evaluation_survives_its_file(tmp_path: Path) -> None:
    path = tmp_path / "evaluation.json"
    path.write_text(example().model_dump_json())
    again = Evaluation.read(path)
    assert again.model_dump_json() == example().model_dump_json()
    assert np.isnan(again.au[0].roc_auc[1].value)
    assert again.macro_f1 == pytest.approx(0.61)


def test_a_broken_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "evaluation.json").write_text('{"protocol": "clean"}')
    with pytest.raises(ValueError, match=r"evaluation\.json"):
        Evaluation.read(tmp_path / "evaluation.json")


def test_a_page_of_few_subjects_says_that_there_is_no_noise_floor() -> None:
    page = render(example().model_copy(update={"noise": NoiseFloor(repeats=20)}))
    assert "too few test subjects" in page


def test_what_was_left_out_and_how_corpora_were_split_is_on_the_page() -> None:
    one = example()
    provenance = one.provenance.model_copy(update={"splits": {"bp4d": "10 train; test: parts P3"}})
    page = render(one.model_copy(update={"left_out": ("dfew: clip <7>: cut short",), "provenance": provenance}))
    assert "dfew: clip &lt;7&gt;: cut short" in page
    assert "10 train; test: parts P3" in page
