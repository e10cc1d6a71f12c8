"""Released checkpoints: their outputs reproduced, both model classes, and files that are not what they say."""

from __future__ import annotations

import collections
import pickle
import runpy
from pathlib import Path

import pytest
import torch
from pages import documented
from safetensors.torch import load_file, save_file
from torch import Tensor

from ssm import SSM
from ssm.labels.vocabulary import BP4D_AUS, DISFA_AUS, EXPRESSIONS
from ssm.saved.released import import_released, read_state
from ssm.saved.unpickle import read_torch_pickle

JOB = Path(__file__).resolve().parents[3] / documented("reading.md", "python jobs/import_released.py")[1]
CLOSE = 5e-6  # the largest difference measured is 6e-7
OUTPUTS = ("fe_logits", "fe_semantic_logits", "au_logits", "au_semantic_logits", "map_au_to_fe", "map_fe_to_au")


@pytest.fixture(scope="module")
def reference(shared_data: Path) -> Path:
    """The tiny model in released names, with inputs and outputs of the released forward."""
    return shared_data / "reference_bp4d_dfew_tiny.safetensors"


@pytest.fixture(scope="module")
def tensors(reference: Path) -> dict[str, Tensor]:
    """All tensors of the reference file."""
    return load_file(reference)


@pytest.fixture(scope="module")
def folder(reference: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The reference imported by the command."""
    out = tmp_path_factory.mktemp("released") / "model"
    assert runpy.run_path(str(JOB))["main"]([str(reference), "--out", str(out)]) == 0
    return out


def _state(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix("state."): value for name, value in tensors.items() if name.startswith("state.")}


@torch.no_grad()
def test_all_six_outputs_of_their_forward(folder: Path, tensors: dict[str, Tensor]) -> None:
    model = SSM.from_pretrained(folder, released_behaviour=True)
    output = model(fe_clips=tensors["input.fe_clips"], au_clips=tensors["input.au_clips"])
    for name in OUTPUTS:
        want = tensors[f"output.{name}"]
        torch.testing.assert_close(getattr(output, name).reshape(want.shape), want, atol=CLOSE, rtol=0)


@torch.no_grad()
def test_without_the_option_the_maps_are_equal_and_a_clip_stands_alone(
    folder: Path, tensors: dict[str, Tensor]
) -> None:
    model = SSM.from_pretrained(folder)
    clips = tensors["input.fe_clips"]
    batch = model(fe_clips=clips, au_clips=clips)
    for name in ("map_au_to_fe", "map_fe_to_au"):
        torch.testing.assert_close(getattr(batch, name), tensors[f"output.{name}"], atol=CLOSE, rtol=0)
    alone = model(fe_clips=clips[1:2], au_clips=clips[1:2])
    torch.testing.assert_close(alone.fe_logits[0], batch.fe_logits[1], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(alone.au_logits[0], batch.au_logits[1], atol=1e-4, rtol=1e-4)
    released = SSM.from_pretrained(folder, released_behaviour=True)
    apart = released(fe_clips=clips[1:2]).fe_logits - released(fe_clips=clips).fe_logits[1]
    assert apart.abs().max() > 1e-5, "the released routing should depend on the rest of the batch"


class RecorderMeter:
    """Stands for the plot recorder that lies in the authors' files."""

    def __init__(self) -> None:
        import numpy as np

        self.losses, self.best = np.zeros((3, 2), dtype=np.float32), {1, 2}


def test_a_pickle_with_recorder_and_prefix_gives_the_same_model(
    reference: Path, tensors: dict[str, Tensor], tmp_path: Path
) -> None:
    want = import_released(reference)
    state = collections.OrderedDict((f"module.{name}", value) for name, value in _state(tensors).items())
    content = {"epoch": 3, "state_dict": state, "best_acc": torch.tensor(0.5), "recorder": RecorderMeter()}
    bare = dict(_state(tensors))
    for number, (saved, zipped) in enumerate([(content, True), (content, False), (bare, True)]):
        path = tmp_path / f"model{number}.pth"
        torch.save(saved, path, _use_new_zipfile_serialization=zipped)
        got = import_released(path)
        assert all(torch.equal(got.state_dict()[name], value) for name, value in want.state_dict().items())


def _as_disfa_11(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The reference reshaped into a DISFA model of eleven classes, under that class's names."""
    rows = torch.arange(11) % 7
    state = {}
    for name, value in _state(tensors).items():
        name = name.replace("dfer_temporal_net", "temporal_net").replace("au_temporal_net", "temporal_net_au")
        if name.startswith("prompt_learner1") or name in ("dfer_head.weight", "dfer_head.bias"):
            value = value[rows]
        if name.startswith(("prompt_learner2", "au_head", "au_smooth")):
            value = value[:8]
        if name in ("delta_map1", "init_map"):
            value = value[rows][:, :8]
        if name == "delta_map2":
            value = value[:8][:, rows]
        state[name] = value.contiguous()
    return state


def test_disfa_models_of_eleven_classes_are_recognised(tensors: dict[str, Tensor], tmp_path: Path) -> None:
    path = tmp_path / "disfa.safetensors"
    save_file(_as_disfa_11(tensors), path)
    model = import_released(path)
    assert model.vocabulary.aus == DISFA_AUS
    assert model.vocabulary.expressions == EXPRESSIONS
    clips = tensors["input.fe_clips"][:1]
    assert model(fe_clips=clips, au_clips=clips).au_logits.shape == (1, 16, 8)
    with pytest.raises(ValueError, match="not a bp4d model"):
        import_released(path, "bp4d")


def test_plain_blocks_before_the_experts_keep_their_own_activation(tensors: dict[str, Tensor], tmp_path: Path) -> None:
    """The published models have experts in the last 6 of 12 blocks; here in the last 2 of 6."""
    state = {}
    for name, value in _state(tensors).items():
        block = int(name.split(".")[3]) if name.startswith("encoder.transformer.resblocks.") else 6
        plain = name.replace("mlp.shared_fc1", "mlp.c_fc").replace("mlp.shared_fc2", "mlp.c_proj")
        if block >= 4 or ".mlp." not in name:
            state[name] = value
        elif plain != name:
            state[plain] = value
    save_file(state, tmp_path / "plain.safetensors")
    model = import_released(tmp_path / "plain.safetensors")
    experts = model.config.backbone.experts
    assert experts is not None
    assert experts.blocks == 2
    blocks = list(model.backbone.net.blocks)  # type: ignore[arg-type]
    assert [type(getattr(b.mlp, "shared", b.mlp).act).__name__ for b in blocks] == ["QuickGELU"] * 4 + ["GELU"] * 2
    fc1 = state["encoder.transformer.resblocks.0.mlp.c_fc.weight"]
    assert torch.equal(blocks[0].mlp.fc1.weight, fc1)


def test_the_descriptions_are_recovered_from_the_embedded_prompts(reference: Path, tensors: dict[str, Tensor]) -> None:
    model = import_released(reference, descriptions=None)
    assert model.text is not None
    assert model.vocabulary.aus == BP4D_AUS
    tokens = torch.cat([tensors["tokens.fe"], tensors["tokens.au"]])
    contexts = model.config.text.contexts
    assert list(model.text.shape.lengths) == (tokens.argmax(1) - 1 - contexts).tolist()


class _Attack:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        import os

        return os.system, ("touch attacked",)


def test_code_in_a_pickle_is_refused_and_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for zipped in (True, False):
        path = tmp_path / "bad.pth"
        torch.save({"state_dict": {"a": torch.zeros(1)}, "x": _Attack()}, path, _use_new_zipfile_serialization=zipped)
        with pytest.raises(ValueError, match=r"bad\.pth: .*the file asks to call (posix|nt)\.system"):
            read_torch_pickle(path)
    (tmp_path / "raw.pth").write_bytes(pickle.dumps({"x": _Attack()}))
    with pytest.raises(ValueError, match=r"raw\.pth"):
        read_torch_pickle(tmp_path / "raw.pth")
    torch.jit.save(torch.jit.script(torch.nn.Linear(2, 2)), tmp_path / "script.pt")
    with pytest.raises(ValueError, match="TorchScript"):
        read_torch_pickle(tmp_path / "script.pt")
    assert not (tmp_path / "attacked").exists()


def test_truncated_foreign_and_misshapen_files_are_refused(
    reference: Path, tensors: dict[str, Tensor], tmp_path: Path
) -> None:
    cut = tmp_path / "cut.safetensors"
    cut.write_bytes(reference.read_bytes()[:100_000])
    with pytest.raises(ValueError, match=r"cut\.safetensors: not a whole safetensors file"):
        import_released(cut)
    torch.save(_state(tensors), tmp_path / "whole.pth")
    (tmp_path / "cut.pth").write_bytes((tmp_path / "whole.pth").read_bytes()[:100_000])
    with pytest.raises(ValueError, match=r"cut\.pth: not a readable file of tensors"):
        import_released(tmp_path / "cut.pth")
    whole = (tmp_path / "whole.pth").read_bytes()
    for number, damaged in enumerate(
        (whole[-100_000:], whole[:-40] + b"\0" * 40, whole.replace(b"PK\x01\x02", b"PK\x01\x03"))
    ):
        (tmp_path / f"{number}.pth").write_bytes(damaged)
        with pytest.raises(ValueError, match=rf"{number}\.pth: not a readable file of tensors"):
            import_released(tmp_path / f"{number}.pth")
    torch.save(torch.nn.Linear(2, 2).state_dict(), tmp_path / "foreign.pth")
    with pytest.raises(ValueError, match=r"foreign\.pth: not a released SSM checkpoint.*it holds bias, weight"):
        import_released(tmp_path / "foreign.pth")
    with pytest.raises(ValueError, match=r"nowhere\.pth: the file is absent"):
        read_state(tmp_path / "nowhere.pth")
    for name, message in {
        "au_head.weight": "au_head has 5 rows; this corpus has 12 AUs",
        "dfer_head.weight": r"dfer_head has 5 rows; released models have \[7, 11\]",
    }.items():
        path = tmp_path / "shape.safetensors"
        save_file({**_state(tensors), name: torch.zeros(5, 512)}, path)
        with pytest.raises(ValueError, match=message):
            import_released(path)
    for name in ("delta_map1", "text_encoder.ln_final.weight", "prompt_learner1.ctx"):
        path = tmp_path / "lacking.safetensors"
        save_file({key: value for key, value in _state(tensors).items() if key != name}, path)
        with pytest.raises(ValueError, match=r"lacking\.safetensors"):
            import_released(path)


def test_the_command_says_what_is_wrong_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "x.pth").write_bytes(b"no")
    assert runpy.run_path(str(JOB))["main"]([str(tmp_path / "x.pth"), "--out", str(tmp_path / "out")]) == 2
    stderr = capsys.readouterr().err
    assert stderr.startswith(f"error: {tmp_path / 'x.pth'}: not a readable file")
    assert len(stderr.splitlines()) == 1
    assert not (tmp_path / "out").exists()
