"""The model that comes with the package: what reads on first use, where no model is named and none is registered.

It lies in the folder `shipped` beside this module as any saved model does; `ship` puts it there, and refuses one that
is too large or that does not say what it was trained on. A package without the folder has no such model, and then a
reading without a model is refused as before. Imports no torch.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

SHIPPED = "shipped"
"""What `--model` calls it."""

LARGEST = 8 * 2**20
"""Bytes of all its files: it is in every download of the package."""

_FOLDER = Path(__file__).parent / "shipped"
_FILES = ("config.json", "model.safetensors")


def shipped_model(folder: Path = _FOLDER) -> Path | None:
    """The folder of the model that comes with the package; None where none does."""
    return folder if all((folder / name).is_file() for name in _FILES) else None


def notice() -> str:
    """What a user is told who reads with it without having asked for it."""
    return (
        "no model is named and none is registered: reading with the one that comes with the package "
        "(expressions: real faces; action units: drawn faces, experimental; see docs/real_faces.md)"
    )


def ship(model: Path, folder: Path = _FOLDER) -> Path:
    """Makes the saved, evaluated model in `model` the one that comes with the package. ValueError where it may not."""
    if shipped_model(model) is None:
        raise ValueError(f"{model}: not a saved model: it lacks {' or '.join(_FILES)}")
    size = sum(path.stat().st_size for path in model.rglob("*") if path.is_file())
    if size > LARGEST:
        raise ValueError(f"{model}: {size / 2**20:.1f} MiB; a model in the package has at most {LARGEST / 2**20:g}")
    facts = json.loads((model / "config.json").read_text()).get("facts") or {}
    if absent := [name for name in ("metrics", "data", "rule") if not facts.get(name)]:
        raise ValueError(f"{model}: says nothing of its {', '.join(absent)}; evaluate its run first (jobs/evaluate.py)")
    scratch = folder.with_name(f".{folder.name}.part")
    shutil.rmtree(scratch, ignore_errors=True)
    shutil.copytree(model, scratch)
    shutil.rmtree(folder, ignore_errors=True)
    return scratch.rename(folder)
