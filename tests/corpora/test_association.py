"""A prior counted from frames that are labelled with AUs and with an expression."""

from __future__ import annotations

import json
import runpy
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from pages import documented

from ssm.labels.vocabulary import BASIC_EXPRESSIONS, Vocabulary
from ssm.model.config import MappingConfig, ModelConfig
from ssm.model.mapping import prior_matrix
from ssm_platform.corpora import read_corpus
from ssm_platform.corpora.association import cooccurrence, count_prior
from ssm_platform.runs.recipes import recipe

Tree = Any  # the fixture's class, in conftest.py
AUS = (1, 2, 4, 6, 7, 10, 12, 15, 23, 24, 25, 26)
REPOSITORY = Path(__file__).resolve().parents[2]
HAPPY, SURPRISED = 4, 6


def film(tree: Tree, part: str, name: str, classes: list[int], rows: list[dict[int, int]]) -> None:
    """One video of Aff-Wild2: a class and the AUs (0 where not said) of each frame; frame 3 has no crop."""
    lines = ["header", *(",".join(str(row.get(au, 0)) for au in AUS) for row in rows)]
    tree.text(f"AU_Detection_Challenge/{part}_Set/{name}.txt", "\n".join(lines))
    tree.text(f"EXPR_Recognition_Challenge/{part}_Set/{name}.txt", "\n".join(["header", *map(str, classes)]))
    tree.images(f"cropped/{name}", [number for number in range(1, len(classes) + 1) if number != 3], "{:05d}.jpg")


@pytest.fixture
def twice_labelled(tree: Tree) -> Tree:
    smile, brows, unknown = {6: 1, 12: 1}, {1: 1, 2: 1}, dict.fromkeys(AUS, -1)
    film(tree, "Train", "one", [HAPPY] * 6, [smile, smile, brows, {12: 1}, unknown, {}])
    film(tree, "Train", "two", [SURPRISED] * 2, [brows, {**brows, 26: 1}])
    film(tree, "Validation", "three", [HAPPY] * 4, [brows] * 4)
    return tree


def test_shares_are_counted_frame_by_frame_in_one_part(twice_labelled: Tree) -> None:
    vocabulary = Vocabulary(aus=(12, 6, 9, 1, 26), expressions=BASIC_EXPRESSIONS)
    aus = read_corpus("affwild2_au", twice_labelled.root).manifest
    clips = read_corpus("affwild2_expr", twice_labelled.root, min_length=1).manifest
    counted = count_prior(aus, clips, vocabulary, off=0.01, part="train")
    # Of the six happy frames the third has no crop and the fifth no known AU: 12 in 3 of 4, 6 in 2 of 4.
    assert counted.matrix[BASIC_EXPRESSIONS.index("happiness")] == pytest.approx((3 / 4, 2 / 4, 0.01, 0.01, 0.01))
    assert counted.matrix[BASIC_EXPRESSIONS.index("surprise")] == pytest.approx((0.01, 0.01, 0.01, 1.0, 0.5))
    assert counted.matrix[BASIC_EXPRESSIONS.index("anger")] == (0.01,) * 5
    assert (counted.frames["happiness"], counted.frames["surprise"], counted.frames["fear"]) == (5, 2, 0)
    everything = count_prior(aus, clips, vocabulary)
    assert everything.frames["happiness"] == 5 + 3


def test_manifests_that_share_nothing_are_refused(twice_labelled: Tree, tmp_path: Path) -> None:
    vocabulary = Vocabulary(aus=(12,), expressions=BASIC_EXPRESSIONS)
    aus = read_corpus("affwild2_au", twice_labelled.root).manifest
    clips = read_corpus("affwild2_expr", twice_labelled.root, min_length=1).manifest
    with pytest.raises(ValueError, match="share no frame of part P7"):
        count_prior(aus, clips, vocabulary, part="P7")
    other = type(twice_labelled)(tmp_path / "other")
    film(other, "Train", "one", [HAPPY] * 6, [{}] * 6)
    with pytest.raises(ValueError, match="both must label the same frames"):
        count_prior(aus, read_corpus("affwild2_expr", other.root, min_length=1).manifest, vocabulary)


def test_the_job_writes_a_recipe_that_trains_with_it(
    tree: Tree, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    film(tree, "Train", "one", [HAPPY] * 20, [{12: 1}] * 20)
    _, script, _, _, option, name = documented("model.md", "python jobs/count_prior.py")
    *_, used = documented("model.md", "python jobs/train.py --recipe=counted")
    out = tmp_path / name
    monkeypatch.setattr(sys, "argv", [script, str(tree.root), "--recipe=tiny", option, str(out), "--seed=5"])
    with pytest.raises(SystemExit) as end:
        runpy.run_path(str(REPOSITORY / script), run_name="__main__")
    assert not end.value.code
    config = recipe(str(tmp_path / used.removeprefix("--recipe=")))
    mapping = MappingConfig.model_validate(json.loads(out.read_text())["model"]["mapping"])
    assert (config.seed, config.model.mapping, mapping.prior) == (5, mapping, "explicit")
    happiness = config.model.vocabulary.expressions.index("happiness")
    assert mapping.matrix is not None
    assert mapping.matrix[happiness][config.model.vocabulary.aus.index(12)] == 1.0


def test_cooccurrence_is_the_share_of_frames_that_show_the_au() -> None:
    vocabulary = Vocabulary(aus=(6, 12), expressions=("happiness", "neutral", "anger"))
    expressions = torch.tensor([0, 0, 0, 0, 1, 2])
    targets = torch.tensor([[1, 1], [1, 0], [0, 1], [1, 1], [1, 1], [0, 0]])
    known = torch.tensor([[1, 1], [1, 1], [1, 1], [1, 0], [1, 1], [1, 0]]).bool()
    matrix = cooccurrence(expressions, targets, known, vocabulary)
    assert matrix[0] == pytest.approx((3 / 4, 2 / 3))
    assert matrix[1] == (0.02, 0.02)  # neutral, though its frame shows both
    assert matrix[2] == (0.02, 0.02)  # never shown, and never known
    config = ModelConfig(vocabulary=vocabulary, mapping=MappingConfig(prior="explicit", matrix=matrix))
    torch.testing.assert_close(prior_matrix(config.mapping, vocabulary), torch.tensor(matrix))
