"""`SSM`: the network and its facts, saved to and loaded from a folder or the hub; the class that users name.

A saved model is `model.safetensors`, `config.json` and a model card, written whole or not at all. `config.json` carries
the configuration, the texts, what the caller knows beside the weights (preprocessing, decision rule, metrics, data) and
fingerprints of all that a prediction depends on. The text tower is never saved: folded prototypes are, so a saved model
serves without it.
"""

from __future__ import annotations

import shutil
import tempfile
from dataclasses import replace
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from ssm.model import ModelConfig, Prototypes, SSMNetwork, TextShape
from ssm.saved.card import model_card
from ssm.saved.facts import ModelFacts, SavedConfig, fingerprints
from ssm.saved.folder import CARD, CONFIG, WEIGHTS, check_fit, fetch, read_config, read_tensors, swap

_FORMAT = 1
_FOLDED = "folded."


class SSM(SSMNetwork):
    """The model. `SSM(config)` starts from scratch (or timm's weights); `SSM.from_pretrained` from a saved folder."""

    def __init__(self, config: ModelConfig, *, text_shape: TextShape | None = None) -> None:
        """`text_shape` stands for the tower when a saved model is rebuilt: no tower is loaded then."""
        super().__init__(config, text_shape=text_shape)
        self.facts = ModelFacts()

    def save_pretrained(self, folder: str | Path, *, facts: ModelFacts | None = None) -> None:
        """Writes weights, configuration and card, whole or not at all; `facts` replace `model.facts`."""
        if facts is not None:
            self.facts = facts
        save(self, Path(folder))

    def push_to_hub(self, repo_id: str, *, private: bool | None = None, token: str | None = None) -> str:
        """Saves to a repository of the hub, made where it is absent; returns the commit's address."""
        from huggingface_hub import HfApi

        api = HfApi(token=token)
        api.create_repo(repo_id, private=private, exist_ok=True)
        with tempfile.TemporaryDirectory() as folder:
            write_into(self, Path(folder))
            return api.upload_folder(repo_id=repo_id, folder_path=folder).commit_url

    @classmethod
    def from_pretrained(
        cls,
        source: str | Path,
        *,
        released_behaviour: bool | None = None,
        revision: str | None = None,
        cache_dir: str | Path | None = None,
        local_files_only: bool = False,
        force_download: bool = False,
        token: str | bool | None = None,
    ) -> SSM:
        """A saved model, folded, in evaluation mode; `released_behaviour` overrides the saved setting (section 8)."""
        folder = fetch(
            source, revision=revision, cache_dir=cache_dir, local_files_only=local_files_only,
            force_download=force_download, token=token,
        )  # fmt: skip
        return load(folder, released_behaviour=released_behaviour)


def save(model: SSM, folder: Path) -> None:
    """Writes the folder next to its place and puts it there; an older folder of that name is replaced (`swap`)."""
    folder = folder.absolute()
    folder.parent.mkdir(parents=True, exist_ok=True)
    fresh = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    try:
        write_into(model, fresh)
        swap(fresh, folder)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)


def write_into(model: SSM, folder: Path) -> None:
    """Writes the three files into an existing folder."""
    saved = SavedConfig(
        format=_FORMAT,
        model=model.config,
        text_shape=None if model.text is None else model.text.shape,
        facts=model.facts,
        fingerprints=fingerprints(model, model.facts),
    )
    save_file(_tensors(model), folder / WEIGHTS, metadata={"format": "pt"})
    (folder / CONFIG).write_text(saved.model_dump_json(indent=2), encoding="utf-8")
    (folder / CARD).write_text(model_card(model.config, model.facts, saved.fingerprints), encoding="utf-8")


def load(folder: Path, *, released_behaviour: bool | None = None) -> SSM:
    """The model of a folder, in evaluation mode; ValueError names file, expected and found. All or nothing."""
    saved = read_config(folder)
    config = saved.model
    if released_behaviour is not None:
        config = config.model_copy(update={"released_behaviour": released_behaviour})
    # timm's own weights are overwritten at once: do not fetch them.
    build = config.model_copy(update={"backbone": config.backbone.model_copy(update={"pretrained": False})})
    tensors = read_tensors(folder / WEIGHTS)
    model = SSM(build, text_shape=saved.text_shape)
    check_fit(model.state_dict() | _folds(model), tensors, folder / WEIGHTS)
    folded = {name: tensors.pop(name) for name in list(tensors) if name.startswith(_FOLDED)}
    model.load_state_dict(tensors)
    model.config, model.facts = config, saved.facts
    model.eval()
    _check_fingerprints(model, saved, folder / CONFIG)
    model.take_folded(_unpack(folded))
    return model


def _tensors(model: SSM) -> dict[str, Tensor]:
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}
    with torch.no_grad():
        folded = model.prototypes()
    if folded is not None:
        tensors |= {name: rows.cpu().clone() for name, rows in _pack(folded).items()}
    return tensors


def _folds(model: SSM) -> dict[str, Tensor]:
    """Names and shapes of the folded prototypes that a saved `model` comes with."""
    if model.text is None:
        return {}
    labels, width = model.vocabulary, model.config.width
    rows = Prototypes(torch.empty(len(labels.expressions), width), torch.empty(len(labels.aus), width))
    each = torch.empty(len(labels.aus), model.text.shape.per_au, width) if model.au_head.needs_texts else None
    return _pack(replace(rows, unfused=None if model.mapping is None else rows, au_texts=each))


def _pack(rows: Prototypes, prefix: str = _FOLDED) -> dict[str, Tensor]:
    packed = {prefix + "expressions": rows.expressions, prefix + "aus": rows.aus}
    if rows.au_texts is not None:
        packed[prefix + "au_texts"] = rows.au_texts
    return packed if rows.unfused is None else packed | _pack(rows.unfused, prefix + "unfused.")


def _unpack(tensors: dict[str, Tensor], prefix: str = _FOLDED) -> Prototypes | None:
    if prefix + "expressions" not in tensors or prefix + "aus" not in tensors:
        return None
    unfused = _unpack(tensors, prefix + "unfused.")
    each = tensors.get(prefix + "au_texts")
    return Prototypes(tensors[prefix + "expressions"], tensors[prefix + "aus"], unfused, each)


def _check_fingerprints(model: SSM, saved: SavedConfig, path: Path) -> None:
    for name, value in fingerprints(model, model.facts).items():
        if saved.fingerprints.get(name) != value:
            raise ValueError(
                f"{path}: the fingerprint of {name} is {saved.fingerprints.get(name)!r}, the contents give {value!r}: "
                "the file was changed after it was saved, or by a version that computes this otherwise"
            )
