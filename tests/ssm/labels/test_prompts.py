"""Prompt styles: complete tables, a user's file, and what is said of a bad one."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ssm.labels.prompts import load_style, style_names
from ssm.labels.vocabulary import ACTION_UNITS, EXPRESSIONS, Vocabulary
from ssm.model.config import TextConfig
from ssm.model.text import descriptions

EVERYTHING = Vocabulary(aus=tuple(ACTION_UNITS), expressions=EXPRESSIONS)


def test_the_shipped_styles_are_the_five_of_the_method_and_one_of_several_texts_each() -> None:
    assert style_names() == ["anatomy", "facs", "label", "llm", "narrative", "template"]


@pytest.mark.parametrize("name", style_names())
def test_a_shipped_style_has_a_text_of_its_own_for_every_label(name: str) -> None:
    texts = load_style(name).texts(EVERYTHING)
    assert len(set(texts.aus)) == texts.per_au * len(ACTION_UNITS)
    assert len(set(texts.expressions)) == len(EXPRESSIONS)


def test_the_authors_style_uses_facs_names() -> None:
    style = load_style("facs")
    assert style.aus == {number: unit.name for number, unit in ACTION_UNITS.items()}
    assert style.aus[24] == "lip pressor"
    assert style.expressions["happiness"] == "happiness, cheek raiser, lip corner puller"
    assert load_style("label").aus[12] == "AU12"


def test_texts_follow_the_columns_of_the_vocabulary() -> None:
    texts = descriptions(TextConfig(style="label"), Vocabulary(aus=(12, 4), expressions=("fear", "neutral")))
    assert texts.aus == ("AU12", "AU4")
    assert texts.expressions == ("fear", "neutral")


def test_scrambled_texts_stand_under_other_labels() -> None:
    plain = descriptions(TextConfig(), EVERYTHING)
    moved, again, other = (descriptions(TextConfig(scramble=seed), EVERYTHING) for seed in (1, 1, 2))
    assert moved == again
    assert moved != other
    for before, after in ((plain.aus, moved.aus), (plain.expressions, moved.expressions)):
        assert sorted(before) == sorted(after)
        assert all(a != b for a, b in zip(before, after, strict=True))


def _write(path: Path, **fields: object) -> TextConfig:
    path.write_text(json.dumps(fields, indent=1), encoding="utf-8")
    return TextConfig(style_file=str(path))


def test_a_file_of_ones_own_is_a_style(tmp_path: Path) -> None:
    config = _write(tmp_path / "mine.json", aus={"12": "smile"}, expressions={"happiness": "joie"})
    texts = descriptions(config, Vocabulary(aus=(12,), expressions=("happiness",)))
    assert (texts.aus, texts.expressions) == (("smile",), ("joie",))


def test_an_au_may_have_several_texts_as_many_as_every_other(tmp_path: Path) -> None:
    both = Vocabulary(aus=(12, 4), expressions=("neutral",))
    fields = {"aus": {"4": ["a", "b"], "12": ["c", "d"], "1": "e"}, "expressions": {"neutral": "n"}}
    config = _write(tmp_path / "mine.json", **fields)
    texts = descriptions(config, both)
    assert (texts.aus, texts.per_au) == (("c", "d", "a", "b"), 2)
    assert descriptions(config.model_copy(update={"scramble": 1}), both).aus == ("a", "b", "c", "d")
    with pytest.raises(ValueError, match=r"'mine' has 1 texts for AU 1 and 2 for AU 4: give every AU as many"):
        descriptions(config, Vocabulary(aus=(4, 1), expressions=("neutral",)))
    with pytest.raises(
        ValueError, match=r"mine\.json, line 3: the text of '4' is \[\]; it must be a non-empty string, or"
    ):
        descriptions(_write(tmp_path / "mine.json", aus={"4": []}, expressions={}), both)
    with pytest.raises(ValueError, match=r"the text of 'neutral' is \['n'\]; it must be a non-empty string"):
        descriptions(_write(tmp_path / "mine.json", aus={}, expressions={"neutral": ["n"]}), both)


def test_a_bad_file_is_named_with_its_line_and_label(tmp_path: Path) -> None:
    path = tmp_path / "mine.json"
    with pytest.raises(ValueError, match="'mine' lacks a text for AU 4"):
        descriptions(_write(path, aus={"12": "smile"}, expressions={e: e for e in EXPRESSIONS}), EVERYTHING.model_copy(
            update={"aus": (12, 4)}))  # fmt: skip
    with pytest.raises(ValueError, match=r"mine\.json, line 4: unknown AU '99'"):
        load_style(path) if _write(path, aus={"1": "a", "99": "b"}, expressions={}) else None
    with pytest.raises(ValueError, match=r"mine\.json, line 4: unknown expression 'joy'"):
        load_style(path) if _write(path, aus={}, expressions={"joy": "b"}) else None
    with pytest.raises(ValueError, match=r"mine\.json, line 3: the text of '1' is 7"):
        load_style(path) if _write(path, aus={"1": 7}, expressions={}) else None
    with pytest.raises(ValueError, match=r"unknown \['au'\]"):
        load_style(path) if _write(path, au={}) else None
    with pytest.raises(ValueError, match="'aus' must map labels to texts; it is list"):
        load_style(path) if _write(path, aus=[], expressions={}) else None
    path.write_text('{"aus": {\n"1": }}', encoding="utf-8")
    with pytest.raises(ValueError, match=r"mine\.json, line 2: not JSON"):
        load_style(path)
    path.write_bytes(b'{"aus": "\xff"}')
    with pytest.raises(ValueError, match=r"mine\.json: the prompt style is not UTF-8"):
        load_style(path)
    with pytest.raises(ValueError, match=r"absent\.json: cannot read the prompt style"):
        load_style(tmp_path / "absent.json")
    with pytest.raises(ValueError, match="no prompt style named 'poetry'; shipped: anatomy, facs"):
        load_style("poetry")
