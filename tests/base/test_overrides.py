"""Overrides on the command line: what is accepted, what is refused and how."""

from __future__ import annotations

from pathlib import Path

import pytest

from ssm_platform.base.overrides import (
    OverrideError,
    describe_fields,
    format_fields,
    override,
    parse_value,
    split_assignments,
)
from ssm_platform.runs.config import RunConfig, leaves
from ssm_platform.runs.preflight import check_config
from ssm_platform.runs.recipes import MODIFIERS, RECIPES, quickstart, recipe


@pytest.mark.parametrize(
    ("text", "value"),
    [("3", 3), ("1e-3", 1e-3), ("true", True), ("True", True), ("null", None), ("(1, 2)", (1, 2)), ("first", "first")],
)
def test_values_are_json_then_python_then_text(text: str, value: object) -> None:
    assert parse_value(text) == value


def test_the_three_ways_to_set_a_field_are_one() -> None:
    ways = (["--data.fe_batch=6"], ["--data.fe_batch", "6"], ["--set", "data.fe_batch=6"])
    assert [split_assignments(way) for way in ways] == [{"data.fe_batch": 6}] * 3


def test_a_field_inside_lists_options_and_optional_parts() -> None:
    changed = override(
        quickstart(),
        {
            "data.corpora.bp4d.weight": 2.0,
            "data.corpora.1.weight": 3,
            "model.backbone.options.depths": [1, 1],
            "model.text.tower": None,
            "scale.workers": [1, 2],
        },
    )
    assert [corpus.weight for corpus in changed.data.corpora] == [2.0, 3.0]
    assert changed.model.backbone.options["depths"] == [1, 1]
    assert changed.model.text.tower is None
    assert changed.scale.bounds == (1, 2)


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("data.fe_bach", 3, "did you mean 'fe_batch'"),
        ("trian.seed", 3, "did you mean 'train'"),
        ("data.corpora.bp4.weight", 1, "known: bp4d, dfew"),
        ("data.fe_batch", -1, "data.fe_batch = -1"),
        ("data.fe_batch.more", 1, "has no field 'more'"),
        ("name", "two words", "name = 'two words'"),
        ("scale.workers", [3, 1], r"workers is \(3, 1\)"),
    ],
)
def test_what_does_not_fit_is_an_error_that_names_field_and_rule(path: str, value: object, message: str) -> None:
    with pytest.raises(OverrideError, match=message):
        override(quickstart(), {path: value})


@pytest.mark.parametrize(
    "arguments",
    [
        ["fe_batch=3"],
        ["--set", "data.fe_batch"],
        ["--name"],
        ["--scale.gpu", "--name=x"],
        ["--storage", "--name=x"],
        ["--storage", "--set", "name=x"],
    ],
)
def test_stray_words_and_missing_values_are_errors(arguments: list[str]) -> None:
    with pytest.raises(OverrideError):
        split_assignments(arguments)


def test_a_text_that_looks_like_a_field_is_written_with_an_equals_sign() -> None:
    assert split_assignments(["--name=--x", "--train.seed", "-1"]) == {"name": "--x", "train.seed": -1}


def test_help_lists_and_explains_every_field() -> None:
    fields = list(describe_fields(RunConfig))
    assert all(field.description for field in fields), [field.path for field in fields if not field.description]
    text = format_fields(RunConfig)
    for path, _ in leaves(quickstart().model_dump(mode="json")):
        parts = ["N" if part.isdigit() else part for part in path.split(".")]
        known = [".".join(parts[:length]) for length in range(len(parts), 0, -1)]
        assert any(f"--{name}=" in text for name in known), path


def test_every_recipe_and_modifier_is_a_valid_config_of_its_own() -> None:
    made = [recipe(name) for name in RECIPES] + [recipe(f"quickstart+{name}") for name in MODIFIERS]
    assert len({config.name for config in made}) == len(made)
    for config in made:
        assert override(config, {}) == config
        assert check_config(config) == []


def test_ablations_differ_from_the_full_method_in_numbers() -> None:
    full = recipe("quickstart+full").fingerprint()
    others = {name: recipe(f"quickstart+{name}").fingerprint() for name in MODIFIERS if name != "full"}
    assert full == quickstart().fingerprint()
    assert len({full, *others.values()}) == len(MODIFIERS)


def test_settings_of_a_weighting_that_is_off_decide_no_number() -> None:
    change = {"train.mal.hidden": 8}
    assert override(quickstart(), change).fingerprint() == quickstart().fingerprint()
    weighted = recipe("quickstart+mal")
    assert override(weighted, change).fingerprint() != weighted.fingerprint()


def test_an_unknown_recipe_names_the_nearest() -> None:
    with pytest.raises(OverrideError, match="did you mean 'quickstart'"):
        recipe("quikstart")
    with pytest.raises(OverrideError, match="did you mean 'no_tsp'"):
        recipe("quickstart+no_tps")


def test_a_config_printed_as_json_is_read_back_as_a_recipe(tmp_path) -> None:  # type: ignore[no-untyped-def]
    file = tmp_path / "mine.json"
    file.write_text(quickstart().model_dump_json())
    assert recipe(str(file)) == quickstart()
    file.write_text(quickstart().model_dump_json().replace('"fe_batch"', '"fe_bach"'))
    with pytest.raises(OverrideError, match=r"data\.fe_bach"):
        recipe(str(file))


@pytest.mark.parametrize("name", ["absent.json", "folder.json", "picture.json"])
def test_a_recipe_file_that_cannot_be_read_is_an_error_that_names_it(tmp_path: Path, name: str) -> None:
    (tmp_path / "folder.json").mkdir()
    (tmp_path / "picture.json").write_bytes(b"\xff\xd8\xff")
    with pytest.raises(OverrideError, match=rf"{name}: a recipe in a file is JSON that --print-config wrote"):
        recipe(str(tmp_path / name))


def test_published_constants() -> None:
    config = recipe("published_bp4d_mafw")
    assert (config.epochs, config.data.fe_batch, config.data.au_batch) == (30, 10, 8)
    assert recipe("published_bp4d_dfew").data.fe_batch == 12
    assert recipe("published_bp4d_dfew").corpus("dfew").augmentation.brightness == 0.5
    assert recipe("published_disfa_ferv39k").corpus("ferv39k").augmentation.rotation == 4
    optim = config.train.optim
    assert (optim.visual_encoder, optim.mapping, optim.rest, optim.weight_decay) == (1e-6, 1e-2, 1e-4, 1e-4)
    assert [round(30 * milestone) for milestone in optim.milestones] == [15, 25]
    assert config.model.frames == 16
    assert len(config.model.vocabulary.expressions) == 11
