"""Saved models: what comes back, what travels along, and what is refused."""

from __future__ import annotations

import json
import os
import pickle
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
import tiny_model as tiny
import torch
from safetensors.torch import load_file, save_file

from ssm import SSM
from ssm.interface.preprocessing import Preprocessing
from ssm.interface.rules import AURule, DecisionRule
from ssm.saved import folder as on_disk
from ssm.saved.facts import ModelFacts
from ssm.saved.folder import CARD, CONFIG, WEIGHTS

FACTS = ModelFacts(
    preprocessing=Preprocessing(image_size=32),
    rule=DecisionRule(rules={1: AURule(threshold=0.4, half_window=2)}),
    metrics={"protocol": "clean", "macro_f1": 0.61},
    data={"corpora": ["synthetic"]},
)


def test_a_rule_that_is_none_is_refused_where_it_would_be_stored() -> None:
    with pytest.raises(ValueError, match="rules"):
        ModelFacts.model_validate({"rule": {"threshold": [0.4], "half_window": 2}})


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A saved model."""
    tiny.small_model(tiny.with_text()).save_pretrained(tmp_path / "model", facts=FACTS)
    return tmp_path / "model"


def test_a_model_comes_back_without_its_tower(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny.small_model(tiny.with_text()).eval()
    monkeypatch.setattr("ssm.model.network.load_tower", None)
    monkeypatch.setattr("ssm.model.text.load_tower", None)
    back = SSM.from_pretrained(folder)
    clips = tiny.clips(2)
    torch.testing.assert_close(back(clips, clips).fe_logits, model(clips, clips).fe_logits)
    torch.testing.assert_close(back(clips, clips).au_logits, model(clips, clips).au_logits)
    assert back.config == model.config
    assert back.facts == FACTS
    assert not back.training
    back.fold().save_pretrained(folder.parent / "again")
    torch.testing.assert_close(SSM.from_pretrained(folder.parent / "again")(clips).fe_logits, model(clips).fe_logits)


def test_a_loaded_model_can_train_on(folder: Path) -> None:
    model = SSM.from_pretrained(folder).train()
    output = model(tiny.clips(1), tiny.clips(1))
    (output.fe_logits.sum() + output.au_logits.sum()).backward()
    assert model.text is not None
    assert model.text.contexts.grad is not None


def test_the_folder_holds_weights_config_and_card_and_no_tower(folder: Path) -> None:
    assert sorted(os.listdir(folder)) == [CARD, CONFIG, WEIGHTS]
    assert os.listdir(folder.parent) == ["model"]
    assert (folder / WEIGHTS).stat().st_size < 2**20
    saved = json.loads((folder / CONFIG).read_text())
    assert set(saved["fingerprints"]) == {"labels", "prompts", "prior", "preprocessing"}
    assert saved["fingerprints"]["preprocessing"] == Preprocessing(image_size=32).fingerprint()
    card = (folder / CARD).read_text()
    for part in (
        "lip corner puller",
        "macro_f1",
        "half_window",
        "synthetic",
        "Limits",
        *saved["fingerprints"].values(),
    ):
        assert part in card


def test_others_may_read_what_the_umask_lets_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for mask, file, place in ((0o022, 0o644, 0o755), (0o027, 0o640, 0o750)):
        before = os.umask(mask)
        try:
            tiny.small_model(tiny.with_text()).save_pretrained(tmp_path / f"{mask:o}", facts=FACTS)
        finally:
            os.umask(before)
        modes = {path.stat().st_mode & 0o777 for path in (tmp_path / f"{mask:o}").iterdir()}
        assert (modes, (tmp_path / f"{mask:o}").stat().st_mode & 0o777) == ({file}, place)

    def refuse(self: Path, *_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied", str(self))

    monkeypatch.setattr(Path, "open", refuse)  # the tests may run as root, who is refused nothing
    with pytest.raises(ValueError, match=r"model\.safetensors: permission denied"):
        on_disk.read_tensors(tmp_path / "22" / WEIGHTS)


def test_saving_twice_replaces_and_leaves_other_files_alone(folder: Path) -> None:
    other = tiny.small_model(tiny.with_text(), seed=1)
    other.save_pretrained(folder)
    assert os.listdir(folder.parent) == ["model"]
    torch.testing.assert_close(
        SSM.from_pretrained(folder)(tiny.clips(1)).fe_logits, other.eval()(tiny.clips(1)).fe_logits
    )
    (folder / "notes.txt").write_text("mine")
    tiny.small_model(tiny.with_text(), seed=2).save_pretrained(folder)
    assert (folder / "notes.txt").read_text() == "mine"


def test_a_failed_save_leaves_the_old_model(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError("no space left on device")

    before = (folder / WEIGHTS).read_bytes()
    monkeypatch.setattr("ssm.saved.pretrained.model_card", full)
    with pytest.raises(OSError, match="no space"):
        tiny.small_model(tiny.with_text(), seed=1).save_pretrained(folder)
    assert (folder / WEIGHTS).read_bytes() == before
    assert os.listdir(folder.parent) == ["model"]


def test_a_reader_finds_a_model_at_any_moment_of_a_save(folder: Path) -> None:
    if not on_disk._exchange(_copy(folder, "one"), _copy(folder, "two")):
        pytest.skip("this file system cannot exchange two folders")
    ended = threading.Event()

    def replace() -> None:
        for number in range(200):
            on_disk.swap(_copy(folder, f"fresh-{number}"), folder)
        ended.set()

    saver = threading.Thread(target=replace)
    saver.start()
    looks = absent = 0
    while not ended.is_set():
        looks, absent = looks + 1, absent + (not (folder / CONFIG).exists())
    saver.join()
    assert (absent, looks > 200) == (0, True)


def _copy(folder: Path, name: str) -> Path:
    place = folder.parent / name
    place.mkdir()
    for file in (CONFIG, CARD):
        (place / file).write_bytes((folder / file).read_bytes())
    return place


def test_a_death_between_two_renames_loses_nothing_and_is_named(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where folders cannot be exchanged: the second rename is where the process dies."""
    weights, replace = (folder / WEIGHTS).read_bytes(), os.replace

    def dies(source: Path, target: Path) -> None:
        if target == folder:
            raise KeyboardInterrupt  # as a signal would: nothing is put back
        replace(source, target)

    monkeypatch.setattr("ssm.saved.folder._exchange", lambda *_: False)
    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", dies)
        with pytest.raises(KeyboardInterrupt):
            tiny.small_model(tiny.with_text(), seed=1).save_pretrained(folder)
    with pytest.raises(
        ValueError, match=r"A save was interrupted: the model before it is .*/\.model\.old\..*/gone"
    ) as told:
        SSM.from_pretrained(folder)
    left = Path(str(told.value).split("before it is ")[1].split(", rename")[0])
    left.rename(folder)
    assert (folder / WEIGHTS).read_bytes() == weights
    SSM.from_pretrained(folder).save_pretrained(folder)  # and without a death the two renames do
    assert (folder / WEIGHTS).is_file()


def test_a_refused_second_rename_puts_the_old_model_back(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    weights, replace, refused = (folder / WEIGHTS).read_bytes(), os.replace, []

    def refuses(source: Path, target: Path) -> None:
        if target == folder and not refused:
            refused.append(source)
            raise OSError("no")
        replace(source, target)

    monkeypatch.setattr("ssm.saved.folder._exchange", lambda *_: False)
    monkeypatch.setattr(os, "replace", refuses)
    with pytest.raises(OSError, match="no"):
        tiny.small_model(tiny.with_text(), seed=1).save_pretrained(folder)
    assert (folder / WEIGHTS).read_bytes() == weights
    assert os.listdir(folder.parent) == ["model"]


def test_among_foreign_files_the_configuration_comes_last(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "notes.txt").write_text("mine")
    order, replace = [], os.replace
    monkeypatch.setattr(
        os, "replace", lambda source, target: (order.append(Path(target).name), replace(source, target))
    )
    tiny.small_model(tiny.with_text(), seed=1).save_pretrained(folder)
    assert order == [WEIGHTS, CARD, CONFIG]


def _edit(folder: Path, **changes: object) -> None:
    saved = json.loads((folder / CONFIG).read_text())
    for path, value in changes.items():
        *parents, last = path.split("__")
        inner = saved
        for parent in parents:
            inner = inner[parent]
        inner[last] = value
    (folder / CONFIG).write_text(json.dumps(saved))


def test_what_does_not_fit_is_refused_by_name(folder: Path) -> None:
    good = (folder / CONFIG).read_text()
    cases = {
        r"config\.json: the fingerprint of labels": {"model__vocabulary__aus": [1, 4, 12, 17]},
        r"is \(4,\); the configuration asks for \(3,\)": {
            "model__vocabulary__aus": [1, 4, 12], "text_shape__au_texts": ["a", "b", "c"],
            "text_shape__lengths": [1] * 6,
        },
        r"config\.json: not the configuration of a saved SSM: model\.widht": {"model__widht": 3},
        r"fingerprint of prompts": {"text_shape__au_texts": ["a", "b", "c", "d"]},
        r"fingerprint of preprocessing": {"facts__preprocessing__image_size": 64},
        r"lacks .*blocks.0.mlp.alpha.*has .*blocks.0.mlp.fc1": {"model__backbone__experts__blocks": 3},
    }  # fmt: skip
    for message, changes in cases.items():
        _edit(folder, **changes)
        with pytest.raises(ValueError, match=message):
            SSM.from_pretrained(folder)
        (folder / CONFIG).write_text(good)
    assert SSM.from_pretrained(folder).config.vocabulary == tiny.LABELS


def test_broken_and_absent_files_are_refused(folder: Path) -> None:
    whole = (folder / WEIGHTS).read_bytes()
    (folder / WEIGHTS).write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match=r"model\.safetensors: not a whole safetensors file"):
        SSM.from_pretrained(folder)
    (folder / WEIGHTS).unlink()
    with pytest.raises(ValueError, match=r"model\.safetensors: the file is absent"):
        SSM.from_pretrained(folder)
    (folder / CONFIG).write_text("{")
    with pytest.raises(ValueError, match=r"config\.json: not the configuration of a saved SSM"):
        SSM.from_pretrained(folder)
    (folder / CONFIG).unlink()
    with pytest.raises(ValueError, match=r"config\.json: cannot read a saved model here"):
        SSM.from_pretrained(folder)
    with pytest.raises(ValueError, match="no such folder"):
        SSM.from_pretrained(folder / "nowhere")
    with pytest.raises(ValueError, match="'someone/nothing' is neither a local folder nor a model that the hub"):
        SSM.from_pretrained("someone/nothing", local_files_only=True)


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("au_head.linear.bias", lambda rows: rows * torch.nan, r"au_head\.linear\.bias holds NaN"),
        ("folded.aus", lambda rows: rows * torch.inf, r"folded\.aus holds NaN or infinite"),
        ("folded.unfused.aus", lambda rows: rows[:, 1:], r"folded\.unfused\.aus is \(4, \d+\); the configuration asks"),
        ("folded.expressions", None, r"lacks folded\.expressions"),
        ("folded.third", lambda _: torch.zeros(1), r"has folded\.third"),
    ],
)
def test_weights_and_folds_that_do_not_fit_are_refused(
    folder: Path, name: str, change: Callable[[torch.Tensor], torch.Tensor] | None, message: str
) -> None:
    tensors = load_file(folder / WEIGHTS)
    found = tensors.pop(name, torch.zeros(0))
    save_file(tensors if change is None else {**tensors, name: change(found).contiguous()}, folder / WEIGHTS)
    with pytest.raises(ValueError, match=message):
        SSM.from_pretrained(folder)


def test_a_configuration_that_names_a_pickle_runs_nothing(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ran, pickled = folder.parent / "ran", folder.parent / "weights.pth"
    pickled.write_bytes(pickle.dumps(Touch(ran)))
    monkeypatch.setattr("timm.create_model", None)  # nothing is built at all
    _edit(folder, model__backbone__options={"checkpoint_path": str(pickled)})
    with pytest.raises(ValueError, match=r"model\.backbone\.options: .*'checkpoint_path', an argument of timm"):
        SSM.from_pretrained(folder)
    assert not ran.exists()
    pickle.loads(pickled.read_bytes())
    assert ran.exists(), "the pickle would have run"


class Touch:
    """An object whose unpickling makes a file."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __reduce__(self) -> tuple[object, ...]:
        return Path.touch, (self._path,)
