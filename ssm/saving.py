"""A saved model: `model.safetensors`, `config.json` and a model card in one folder, written whole or not at all.

A folder that also holds somebody's own files cannot be exchanged: there the three are replaced one after the other,
`config.json` last, and only each file is whole at any moment.
`config.json` carries the configuration, the texts, what the caller knows beside the weights (preprocessing, decision
rule, metrics, data) and fingerprints of all that a prediction depends on. The text tower is never saved: folded
prototypes are, so a saved model serves without it.
"""

from __future__ import annotations

import ctypes
import glob
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from ssm.card import model_card
from ssm.config import ModelConfig
from ssm.preprocessing import Preprocessing
from ssm.text import Prototypes, TextShape

if TYPE_CHECKING:
    from ssm.model import SSM

WEIGHTS, CONFIG, CARD = "model.safetensors", "config.json", "README.md"
_FORMAT = 1
_FOLDED = "folded."
_OLD = ".old."  # in the name of the folder that holds the old model between two renames
_HERE, _RENAME_EXCHANGE = -100, 2  # AT_FDCWD and the flag of renameat2(2)


class ModelFacts(BaseModel):
    """What travels with the weights and is not architecture. Filled by training and evaluation, read by serving."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    preprocessing: dict[str, JsonValue] | None = Field(default=None, description="dump of ssm.preprocessing")
    rule: dict[str, JsonValue] | None = Field(default=None, description="dump of the fitted ssm.rules.DecisionRule")
    metrics: dict[str, JsonValue] = Field(default_factory=dict, description="figures with their protocol")
    data: dict[str, JsonValue] = Field(default_factory=dict, description="corpora, splits, seeds, licences")


class SavedConfig(BaseModel):
    """The contents of `config.json`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: int = Field(description="version of this layout")
    model: ModelConfig = Field(description="architecture")
    text_shape: TextShape | None = Field(description="descriptions and sizes of the text side; None without TSP")
    facts: ModelFacts = Field(description="what travels with the weights")
    fingerprints: dict[str, str] = Field(description="SHA-256 of preprocessing, labels, prompts and prior")


def fingerprint(value: object) -> str:
    """SHA-256 of a value's canonical JSON."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, ensure_ascii=False).encode()).hexdigest()


def fingerprints(model: SSM) -> dict[str, str]:
    """Fingerprints of whatever a prediction depends on besides the weights."""
    shape = None if model.text is None else model.text.shape.model_dump(mode="json")
    prior = (
        None if model.mapping is None else [[round(cell, 6) for cell in row] for row in model.mapping.prior.tolist()]
    )
    return {
        "labels": fingerprint(model.vocabulary.model_dump(mode="json")),
        "prompts": fingerprint(shape),
        "prior": fingerprint(prior),
        "preprocessing": _preprocessing_fingerprint(model.facts),
    }


def _preprocessing_fingerprint(facts: ModelFacts) -> str:
    """That of `ssm.preprocessing`, which covers its code too; of nothing where none is recorded."""
    if facts.preprocessing is None:
        return fingerprint(None)
    return Preprocessing.model_validate(facts.preprocessing).fingerprint()


def save(model: SSM, folder: Path) -> None:
    """Writes the folder next to its place and puts it there; an older folder of that name is replaced (`_swap`)."""
    folder = folder.absolute()
    folder.parent.mkdir(parents=True, exist_ok=True)
    fresh = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    try:
        write_into(model, fresh)
        _swap(fresh, folder)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)


def write_into(model: SSM, folder: Path) -> None:
    """Writes the three files into an existing folder."""
    saved = SavedConfig(
        format=_FORMAT,
        model=model.config,
        text_shape=None if model.text is None else model.text.shape,
        facts=model.facts,
        fingerprints=fingerprints(model),
    )
    save_file(_tensors(model), folder / WEIGHTS, metadata={"format": "pt"})
    (folder / CONFIG).write_text(saved.model_dump_json(indent=2), encoding="utf-8")
    (folder / CARD).write_text(model_card(model, saved.fingerprints), encoding="utf-8")


def load(folder: Path, *, released_behaviour: bool | None = None) -> SSM:
    """The model of a folder, in evaluation mode; ValueError names file, expected and found. All or nothing."""
    from ssm.model import SSM

    saved = read_config(folder)
    config = saved.model
    if released_behaviour is not None:
        config = config.model_copy(update={"released_behaviour": released_behaviour})
    # timm's own weights are overwritten at once: do not fetch them.
    build = config.model_copy(update={"backbone": config.backbone.model_copy(update={"pretrained": False})})
    tensors = read_tensors(folder / WEIGHTS)
    model = SSM(build, text_shape=saved.text_shape)
    folded = {name: tensors.pop(name) for name in list(tensors) if name.startswith(_FOLDED)}
    check_fit(model.state_dict(), tensors, folder / WEIGHTS)
    model.load_state_dict(tensors)
    model.config, model.facts = config, saved.facts
    model.eval()
    _check_fingerprints(model, saved, folder / CONFIG)
    rows = _unpack(folded)
    if rows is not None:
        model.take_folded(rows)
    return model


def read_config(folder: Path) -> SavedConfig:
    """`config.json` of a folder; ValueError names the file and the field at fault."""
    path = folder / CONFIG
    try:
        return SavedConfig.model_validate_json(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ValueError(f"{path}: cannot read a saved model here: {error.strerror}") from error
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        raise ValueError(f"{path}: not the configuration of a saved SSM: {place}: {first['msg']}") from error


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Tensors of a safetensors file; ValueError where it is absent, truncated or something else."""
    try:
        return load_file(path)
    except FileNotFoundError as error:
        raise ValueError(f"{path}: the file is absent") from error
    except (SafetensorError, OSError) as error:
        raise ValueError(f"{path}: not a whole safetensors file: {error}") from error


def check_fit(expected: Mapping[str, Tensor], found: Mapping[str, Tensor], path: Path) -> None:
    """ValueError unless names and shapes agree and every value is finite: nothing is half-loaded."""
    missing, foreign = sorted(set(expected) - set(found)), sorted(set(found) - set(expected))
    if missing or foreign:
        raise ValueError(
            f"{path}: the weights do not fit the configuration: lacks {_few(missing)}; has {_few(foreign)}"
        )
    for name, tensor in found.items():
        if tensor.shape != expected[name].shape:
            raise ValueError(
                f"{path}: {name} is {tuple(tensor.shape)}; the configuration asks for {tuple(expected[name].shape)}"
            )
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            raise ValueError(f"{path}: {name} holds NaN or infinite values")


def fetch(source: str | Path, **options: Any) -> Path:
    """A local folder as it is; a hub id through the hub's cache. ValueError says what was tried and where."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    if Path(source).is_dir():
        return Path(source)
    if isinstance(source, Path) or source.startswith((".", "/", "~")) or source.count("/") > 1:
        raise ValueError(f"{source}: no such folder; expected one that `save_pretrained` wrote{_left_behind(source)}")
    try:
        return Path(snapshot_download(source, allow_patterns=[WEIGHTS, CONFIG, CARD], **options))
    except (HFValidationError, HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        raise ValueError(
            f"{source!r} is neither a local folder nor a model that the hub (or its cache) gives: "
            f"{str(error).splitlines()[0]}"
        ) from error


def _tensors(model: SSM) -> dict[str, Tensor]:
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}
    folded = model.folded_copy()
    if folded is not None:
        tensors |= _pack(folded.apply(lambda rows: rows.detach().cpu().clone()))
    return tensors


def _pack(rows: Prototypes, prefix: str = _FOLDED) -> dict[str, Tensor]:
    packed = {prefix + "expressions": rows.expressions, prefix + "aus": rows.aus}
    return packed if rows.unfused is None else packed | _pack(rows.unfused, prefix + "unfused.")


def _unpack(tensors: dict[str, Tensor], prefix: str = _FOLDED) -> Prototypes | None:
    if prefix + "expressions" not in tensors or prefix + "aus" not in tensors:
        return None
    unfused = _unpack(tensors, prefix + "unfused.")
    return Prototypes(tensors[prefix + "expressions"], tensors[prefix + "aus"], unfused)


def _swap(fresh: Path, folder: Path) -> None:
    """Puts `fresh` in the place of `folder`: a reader sees the old one or the new one.

    Two exceptions: among foreign files ours are replaced one by one, and on a file system that cannot exchange two
    folders there is none between two renames; a death there leaves the old one beside it, and `fetch` says where.
    """
    os.chmod(fresh, 0o755)
    if not folder.exists():
        os.replace(fresh, folder)
    elif any(path.name not in (WEIGHTS, CONFIG, CARD) for path in folder.iterdir()):
        for name in (WEIGHTS, CARD, CONFIG):
            os.replace(fresh / name, folder / name)
    elif not _exchange(fresh, folder):
        _replace(fresh, folder)


def _exchange(one: Path, other: Path) -> bool:
    """Each gets the other's name in one step (Linux); False where system or file system cannot."""
    try:
        rename = ctypes.CDLL(None, use_errno=True).renameat2
    except (OSError, AttributeError):
        return False
    return bool(rename(_HERE, os.fsencode(one), _HERE, os.fsencode(other), _RENAME_EXCHANGE) == 0)


def _replace(fresh: Path, folder: Path) -> None:
    """In two renames; the old folder comes back where the second fails."""
    old = Path(tempfile.mkdtemp(prefix=f".{folder.name}{_OLD}", dir=folder.parent))
    os.replace(folder, old / "gone")
    try:
        os.replace(fresh, folder)
    except OSError:
        os.replace(old / "gone", folder)
        raise
    finally:
        if folder.exists():
            shutil.rmtree(old)


def _left_behind(source: str | Path) -> str:
    """What a save that died between two renames left of this folder, for the message that it is absent."""
    folder = Path(source).absolute()
    left = sorted(folder.parent.glob(f".{glob.escape(folder.name)}{_OLD}*/gone"))
    return f". A save was interrupted: the model before it is {left[-1]}, rename that back" if left else ""


def _check_fingerprints(model: SSM, saved: SavedConfig, path: Path) -> None:
    for name, value in fingerprints(model).items():
        if saved.fingerprints.get(name) != value:
            raise ValueError(
                f"{path}: the fingerprint of {name} is {saved.fingerprints.get(name)!r}, the contents give {value!r}: "
                "the file was changed after it was saved, or by a version that computes this otherwise"
            )


def _few(names: list[str]) -> str:
    if not names:
        return "nothing"
    return ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")
