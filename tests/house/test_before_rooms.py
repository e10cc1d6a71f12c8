"""What was written before the rooms (commit a2060ff) still loads and goes on: a model, a registry, shards, a run.

`fixtures/before_rooms` holds a run of recipe `tiny` made smaller, over shards of a few drawn clips, as that commit
wrote them; of its checkpoints only the one at step 6 of 12. `answers.npz` is what that commit's model and shard reader
gave.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from ssm import SSM
from ssm_platform.media.frames import open_frames
from ssm_platform.models.registry import Registry
from ssm_platform.records.manifest import Manifest
from ssm_platform.runs.config import RunConfig
from ssm_platform.train.running import train

OLD = Path(__file__).resolve().parents[1] / "fixtures" / "before_rooms"
OUTPUTS = ("fe_logits", "fe_semantic_logits", "au_logits", "au_semantic_logits", "map_au_to_fe", "map_fe_to_au")
CORPORA = ("bp4d", "dfew")


@pytest.fixture(scope="module")
def answers() -> dict[str, np.ndarray]:
    with np.load(OLD / "answers.npz") as stored:
        return dict(stored)


def test_a_saved_model_gives_the_numbers_it_gave(answers: dict[str, np.ndarray]) -> None:
    clips = torch.from_numpy(answers["clips"])
    with torch.no_grad():
        output = SSM.from_pretrained(OLD / "model")(fe_clips=clips, au_clips=clips)
    for name in OUTPUTS:
        np.testing.assert_allclose(getattr(output, name).numpy(), answers[name], rtol=1e-5, atol=1e-5, err_msg=name)


def test_a_registry_gives_its_latest(tmp_path: Path) -> None:
    registry = Registry(OLD / "registry", cache=tmp_path)
    folder = registry.resolve("latest")
    assert (folder / "model.safetensors").read_bytes() == (OLD / "model" / "model.safetensors").read_bytes()


def test_shards_give_the_pixels_they_gave(answers: dict[str, np.ndarray]) -> None:
    for corpus in CORPORA:
        manifest = Manifest.read(OLD / "shards" / corpus / "manifest.parquet")
        source = open_frames(manifest[0], OLD / "shards" / corpus)
        np.testing.assert_array_equal(source.read(range(4)), answers[f"frames_{corpus}"])


@pytest.mark.ray
def test_a_run_goes_on_to_the_model_it_would_have_made(ray_cluster: None, tmp_path: Path) -> None:
    shutil.copytree(OLD / "runs", tmp_path / "runs")
    config = _here(RunConfig.model_validate_json((OLD / "config.json").read_text()), tmp_path)
    assert train(config).folder == str(tmp_path / "runs" / "tiny")
    ended, straight = (
        load_file(place / "model.safetensors") for place in (tmp_path / "runs/tiny/model", OLD / "model")
    )
    assert ended.keys() == straight.keys()
    for name, tensor in straight.items():  # to rounding: the straight run was another processor's
        torch.testing.assert_close(ended[name], tensor, rtol=1e-3, atol=1e-4, msg=name)


def _here(config: RunConfig, folder: Path) -> RunConfig:
    """The run's configuration with its places in `folder`: shards that were moved get their new root."""
    corpora = []
    for corpus in config.data.corpora:
        shards, place = OLD / "shards" / corpus.name, folder / f"{corpus.name}.parquet"
        Manifest.read(shards / "manifest.parquet", root=shards).write(place)
        corpora.append(corpus.model_copy(update={"manifest": str(place)}))
    data = config.data.model_copy(update={"corpora": tuple(corpora)})
    return config.model_copy(update={"storage": str(folder / "runs"), "data": data})
