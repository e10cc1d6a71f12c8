"""bench/consistency.py on a tree of its own: figures over all images, over those that are there once, per group."""

from __future__ import annotations

import importlib.util
import json
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import tiny_training as tiny

from ssm.interface.preprocessing import Preprocessing
from ssm.labels.vocabulary import BASIC_EXPRESSIONS, Vocabulary
from ssm.saved.facts import ModelFacts
from ssm.saved.pretrained import SSM

if TYPE_CHECKING:
    Tree = Any

BENCH = Path(__file__).resolve().parents[2] / "bench" / "consistency.py"


@pytest.fixture(scope="module")
def bench() -> Any:
    spec = importlib.util.spec_from_file_location("bench_consistency", BENCH)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def model(tmp_path: Path) -> Path:
    config = tiny.tiny_config(vocabulary=Vocabulary(aus=(6, 12), expressions=BASIC_EXPRESSIONS))
    made = SSM(config)
    made.facts = ModelFacts(preprocessing=Preprocessing(image_size=tiny.SIZE).model_dump(mode="json"))
    made.save_pretrained(tmp_path / "model")
    return tmp_path / "model"


def run(bench: Any, monkeypatch: pytest.MonkeyPatch, *arguments: str) -> None:
    monkeypatch.setattr(sys, "argv", ["consistency.py", *arguments])
    bench.main()


def test_images_with_copies_are_told_apart(
    bench: Any, model: Path, tree: Tree, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tree.pictures(*(f"test/{name}/PrivateTest_{n}.png" for name in ("happy", "sad") for n in range(4)))
    (tree.root / "train/happy").mkdir(parents=True)
    shutil.copy(tree.root / "test/happy/PrivateTest_0.png", tree.root / "train/happy/Training_0.png")
    place = tmp_path / "found.json"
    run(bench, monkeypatch, str(model), "--root", str(tree.root), "--part", "PrivateTest", "--json", str(place))
    (found,) = json.loads(place.read_text())
    assert found["images"] == 8
    assert [(row["au"], row["linked"], row["images"], row["others"]) for row in found["consistency"]] == [
        (6, ["happiness"], 4, 4),
        (12, ["happiness"], 4, 4),
    ]
    assert found["map_moved"] == pytest.approx(0, abs=1e-6)


def test_groups_of_actors_have_figures_of_their_own(
    bench: Any, model: Path, tree: Tree, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for actor, emotion in ((1, 3), (2, 4), (3, 3)):
        tree.video(f"Actor_{actor:02d}/01-01-{emotion:02d}-01-01-01-{actor:02d}.mp4", 3)
    place = tmp_path / "found.json"
    run(bench, monkeypatch, str(model), "--reader", "ravdess", "--root", str(tree.root), "--json", str(place))
    (found,) = json.loads(place.read_text())
    assert {group: figures[2] for group, figures in found["groups"].items()} == {"Sex Female": 1, "Sex Male": 2}
    with pytest.raises(SystemExit, match="part 'test' is not one of none"):
        run(bench, monkeypatch, str(model), "--reader", "ravdess", "--root", str(tree.root), "--part", "test")
