"""Spaces: what may be varied and how, and what is refused before anything starts, by line or by argument."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ssm.labels.prompts import load_style
from ssm_platform.base.overrides import override
from ssm_platform.runs.recipes import tiny
from ssm_platform.search.space import Choices, Range, SpaceError, key, parse_space, read_space

BASE = tiny()


def space_file(folder: Path, text: str) -> Path:
    path = folder / "space.yaml"
    path.write_text(text)
    return path


def test_words_and_file_describe_the_same_space(tmp_path: Path) -> None:
    path = space_file(
        tmp_path,
        "# what is searched\nmodel.text.style: [facs, label]\nmodel.mapping.off: {low: 0.005, high: 0.1, log: true}\n"
        "model.text.contexts: {low: 0, high: 8}\nmodel.semantic_weight: {low: 0, high: 1}\n",
    )
    words = ["model.text.style=facs,label", "model.mapping.off=log:0.005..0.1", "model.text.contexts=0..8"]
    space = parse_space([*words, "model.semantic_weight=0..1"], BASE)
    assert space == read_space(path, BASE)
    assert space.dimensions["model.text.style"] == Choices(("facs", "label"))
    assert space.dimensions["model.mapping.off"] == Range(0.005, 0.1, log=True)
    assert space.dimensions["model.text.contexts"] == Range(0, 8, integer=True), "the field takes whole numbers only"
    assert space.dimensions["model.semantic_weight"] == Range(0, 1), "whole ends of a field that takes fractions"


def test_every_kind_of_field_of_the_issue_can_be_varied() -> None:
    words = [
        "model.text.style=facs,anatomy", "model.text.contexts=0,4", "model.text.position=front,middle,end",
        "model.mapping.prior=emfacs,authors_bp4d,uniform,scrambled", "model.mapping.on=0.5..1.0",
        "model.mapping.off=log:0.005..0.1", "model.semantic_weight=0.05..0.5", "model.mapping.gate=0.05..0.5",
        "train.optim.mapping=log:1e-4..1e-1", "data.corpora.bp4d.weight=1.0..4.0", "model.text.scramble=null,3",
    ]  # fmt: skip
    space = parse_space(words, BASE)
    for setting in space.random(20, seed=1):
        assert override(BASE, setting).model.text.style == setting["model.text.style"]


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 30), st.integers(0, 30))
def test_random_settings_are_distinct_within_bounds_and_grow_without_changing(seed: int, few: int, more: int) -> None:
    space = parse_space(["model.text.style=facs,label", "model.mapping.off=log:0.005..0.1"], BASE)
    drawn = space.random(few + more, seed)
    assert drawn[:few] == space.random(few, seed)
    assert len({key(setting) for setting in drawn}) == few + more
    assert all(0.005 <= setting["model.mapping.off"] <= 0.1 for setting in drawn)


def test_a_small_space_ends() -> None:
    space = parse_space(["model.text.style=facs,label", "model.text.contexts=1..2"], BASE)
    assert len(space.random(100, seed=1)) == 4
    assert len(parse_space(["model.text.style=facs,label", "model.text.contexts=1,2"], BASE).grid()) == 4


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("model.text.stile: [facs]", "did you mean 'style'"),
        ("model.text.style: []", "has no choices"),
        ("model.text.style: [facs, poetry]", "no prompt style named 'poetry'"),
        ("model.text.style: facs", "expected a list of choices"),
        ("model.mapping.off: {low: 0.1, high: 0.005}", "low 0.1 must be below high 0.005"),
        ("model.mapping.off: {low: 0.1, high: 0.1}", "must be below"),
        ("model.mapping.off: {low: 0, high: 0.1, log: true}", "above 0 for a log range"),
        ("model.mapping.off: {low: 0.1}", "is no range"),
        ("model.mapping.off: {low: 0.1, high: 0.2, step: 2}", "step"),
        ("model.mapping.off: {low: a, high: 0.2}", "low is 'a'"),
        ("model.mapping.off: {low: 0.5, high: 2.0}", "must lie below mapping.on"),
        ("data.fe_batch: [6, -1]", "data.fe_batch = -1"),
        ("name: [a, b]", "set by the sweep"),
        ("data.corpora.bp4d.root: [a, b]", "all trials share the corpora"),
        ("model.text.style: [facs]\nmodel.text.style: [label]", "listed twice"),
    ],
)
def test_a_bad_file_is_refused_by_its_line(line: str, message: str, tmp_path: Path) -> None:
    path = space_file(tmp_path, f"# a comment\nmodel.text.contexts: [1, 2]\n{line}\n")
    with pytest.raises(SpaceError, match=message) as error:
        read_space(path, BASE)
    assert str(error.value).startswith(f"{path}:{3 + line.count(chr(10))}: ")


@pytest.mark.parametrize("content", ["", "- a\n- b\n", "a: [1\n"])
def test_a_file_that_is_no_space_is_refused(content: str, tmp_path: Path) -> None:
    with pytest.raises(SpaceError, match=r"space\.yaml"):
        read_space(space_file(tmp_path, content), BASE)
    with pytest.raises(SpaceError, match="cannot be read"):
        read_space(tmp_path / "absent.yaml", BASE)
    (tmp_path / "latin.yaml").write_bytes("# Größe\n".encode("latin-1"))
    with pytest.raises(SpaceError, match=r"latin\.yaml: cannot be read"):
        read_space(tmp_path / "latin.yaml", BASE)


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("model.text.style", "write field="),
        ("model.text.style=", "write field="),
        ("model.mapping.off=0.1..0.01", "must be below"),
        ("model.mapping.off=log:a..b", "must be a number"),
        ("model.mapping.of=0.1,0.2", "did you mean 'off'"),
    ],
)
def test_a_bad_argument_is_refused_by_name(word: str, message: str) -> None:
    with pytest.raises(SpaceError, match=message) as error:
        parse_space([word], BASE)
    assert repr(word) in str(error.value)


def test_a_style_file_that_lacks_a_label_is_refused_by_line_and_label(tmp_path: Path) -> None:
    style = load_style("facs")
    content = {"name": "mine", "aus": {str(au): text for au, text in style.aus.items() if au != 12}}
    file = tmp_path / "mine.json"
    file.write_text(json.dumps({**content, "expressions": dict(style.expressions)}))
    path = space_file(tmp_path, f"model.text.contexts: [1, 2]\nmodel.text.style_file: [null, {file}]\n")
    with pytest.raises(SpaceError, match=r"space\.yaml:2: prompt style 'mine' lacks a text for AU 12"):
        read_space(path, BASE)
