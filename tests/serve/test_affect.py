"""Valence and arousal in every form of an answer: rows, windows, tensors, and what the model says of itself."""

from __future__ import annotations

import json

import numpy as np

from serve.http.formats import csv, lines, model_facts, window_facts
from serve.http.tensors import model_metadata, outputs_of
from serve.replicas.model import Reading
from serve.settings import Settings
from ssm.interface import Abstention, DecisionRule, Preprocessing, Smoothing
from ssm.labels import AFFECT, Vocabulary
from ssm_platform.faces.squares import Square
from ssm_platform.models import ModelDescription
from ssm_platform.read.camera import CameraClips
from ssm_platform.read.rows import FaceFrame
from ssm_platform.read.tables import record
from ssm_platform.read.windows import ClipAnswers, Face, Row, Window

LABELS = Vocabulary(aus=(4, 12), expressions=("happiness", "neutral"), affect=AFFECT)
MODEL = ModelDescription(
    version="v", frames=4, vocabulary=LABELS, preprocessing=Preprocessing(image_size=32), precision="float32",
    rule=DecisionRule.default(LABELS.aus), fitted=False, smoothing=Smoothing(affect=3),
)  # fmt: skip
ROWS = [
    Row(
        0, 0.0, 1, 0.9, (0, 0, 5, 5), np.array([True, False]), np.float32([0.7, 0.2]), np.float32([0.6, 0.4]),
        np.float32([0.25, -0.5]),
    ),
    Row(1, 0.04),
]  # fmt: skip


def test_rows_carry_both_and_an_empty_cell_where_no_face_is() -> None:
    found = [json.loads(line) for line in lines(ROWS, MODEL).splitlines()]
    assert [(row["valence"], row["arousal"]) for row in found] == [(0.25, -0.5), (None, None)]
    assert [line.split(",")[-2:] for line in csv(ROWS, MODEL).splitlines()] == [["0.25", "-0.5"], ["", ""]]


def test_a_camera_tells_doubts_and_withholds_as_films_do() -> None:
    """Of the newest frame of a face."""
    level = Abstention(risk=0.1, doubt=0.5, coverage=0.5)
    clips = CameraClips(MODEL.model_copy(update={"evidence": True, "abstention": level}), 0)
    frame = FaceFrame(0, 0.0, [Face(1, (0, 0, 5, 5), 0.9, np.zeros((32, 32, 3), np.uint8), Square(2, 2, 5))], True)
    aus, doubts = np.full((1, 4, 2), 0.7, np.float32), np.float32([[[0.25, 0.75], [1, 1], [1, 1], [1, 1]]])
    answers = ClipAnswers(aus, np.float32([[0.6, 0.4]]), None, np.zeros_like(aus), au_uncertainty=doubts)
    *_, row = clips.results(frame, clips.clips(frame), answers)
    found = record(row, LABELS, doubts=True)
    assert [found[name] for name in ("AU04_c", "AU12_c", "AU04_u", "AU12_u")] == [1, None, 0.25, 0.75]


def test_a_window_says_what_each_au_adds_where_the_head_knows() -> None:
    terms = np.float32([[0.5, -0.25], [0.125, 0]])
    window = Window(1, 0, 4, np.float32([0.6, 0.4]), None, terms)
    assert window_facts(window, MODEL)["affect_why"] == {
        "valence": {"AU04": 0.5, "AU12": -0.25},
        "arousal": {"AU04": 0.125, "AU12": 0.0},
    }
    assert "affect_why" not in window_facts(Window(1, 0, 4, np.float32([0.6, 0.4]), None), MODEL)


def test_tensors_and_metadata_name_them_only_where_the_model_has_them() -> None:
    assert model_facts("ssm", MODEL)["affect"] == ["valence", "arousal"]
    (tensor,) = (one for one in model_metadata(Settings(model="x"), MODEL)["outputs"] if one["name"] == "affect")
    assert (tensor["shape"], tensor["parameters"]) == ([-1, 4, 2], {"affect": ["valence", "arousal"]})
    affect = np.zeros((1, 4, 2), np.float32)
    answers = ClipAnswers(np.zeros((1, 4, 2), np.float32), np.zeros((1, 2), np.float32), None, affect)
    assert outputs_of(Settings(model="x"), Reading(answers, "v"))["affect"] is affect
    plain = MODEL.model_copy(update={"vocabulary": LABELS.model_copy(update={"affect": ()})})
    assert "affect" not in [one["name"] for one in model_metadata(Settings(model="x"), plain)["outputs"]]
    assert model_facts("ssm", plain)["affect"] == []
