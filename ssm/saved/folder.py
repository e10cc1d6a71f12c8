"""The folder of a saved model on disk: three files, read with checks, exchanged whole.

A folder that also holds somebody's own files cannot be exchanged: there the three are replaced one after the other,
`config.json` last, and only each file is whole at any moment.
"""

from __future__ import annotations

import ctypes
import glob
import os
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from ssm.saved.facts import SavedConfig

WEIGHTS = "model.safetensors"
CONFIG = "config.json"
CARD = "README.md"
_OLD = ".old."  # in the name of the folder that holds the old model between two renames
_HERE, _RENAME_EXCHANGE = -100, 2  # AT_FDCWD and the flag of renameat2(2)


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
        path.open("rb").close()  # safetensors calls a file that it may not read absent
        return load_file(path)
    except FileNotFoundError as error:
        raise ValueError(f"{path}: the file is absent") from error
    except PermissionError as error:
        raise ValueError(f"{path}: permission denied; its owner lets you read it by `chmod a+r`") from error
    except (SafetensorError, OSError) as error:
        raise ValueError(f"{path}: not a whole safetensors file: {error}") from error


def check_fit(expected: Mapping[str, Tensor], found: Mapping[str, Tensor], path: Path) -> None:
    """ValueError unless names and shapes agree and every value is finite: nothing is half-loaded."""
    missing, foreign = sorted(set(expected) - set(found)), sorted(set(found) - set(expected))
    if missing or foreign:
        reader = "; they are of another AU reader: au_reader.kind must be the one that was trained"
        heads = any(name.startswith("au_head.") for name in foreign)
        raise ValueError(
            f"{path}: the weights do not fit the configuration: lacks {_few(missing)}; has {_few(foreign)}"
            f"{reader if heads else ''}"
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


def swap(fresh: Path, folder: Path) -> None:
    """Puts `fresh` in the place of `folder`: a reader sees the old one or the new one.

    Two exceptions: among foreign files ours are replaced one by one, and on a file system that cannot exchange two
    folders there is none between two renames; a death there leaves the old one beside it, and `fetch` says where.
    """
    _by_umask(fresh)
    if not folder.exists():
        os.replace(fresh, folder)
    elif any(path.name not in (WEIGHTS, CONFIG, CARD) for path in folder.iterdir()):
        for name in (WEIGHTS, CARD, CONFIG):
            os.replace(fresh / name, folder / name)
    elif not _exchange(fresh, folder):
        _replace(fresh, folder)


def _by_umask(folder: Path) -> None:
    """The usual modes: temporary folders, and the files of safetensors >= 0.8, are their owner's alone."""
    mask = os.umask(0)
    os.umask(mask)
    folder.chmod(0o777 & ~mask)
    for path in folder.iterdir():
        path.chmod(0o666 & ~mask)


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


def _few(names: list[str]) -> str:
    if not names:
        return "nothing"
    return ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")
