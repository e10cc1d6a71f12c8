"""The end of a run: which checkpoints its model may come from, and what of a saved model is left alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import tiny_model as tiny
import torch

from ssm import SSM
from ssm.interface.rules import AURule, DecisionRule
from ssm_platform.base.storage import open_storage
from ssm_platform.runs import recipes
from ssm_platform.train.finishing import TrainingFailed, finish
from ssm_platform.train.opening import Run
from ssm_platform.train.place import Job

CONFIG = recipes.tiny().model_copy(update={"model": tiny.with_text()})


def network(seed: int) -> SSM:
    return tiny.small_model(CONFIG.model, seed)


def trained(folder: str, *steps: tuple[int, float | None]) -> Job:
    """A run to step 20 with checkpoints whose weights are drawn from their step."""
    job = Job(CONFIG, folder, "run", 20, [])
    for step, score in steps:
        position: dict[str, Any] = {"curves": [{"step": float(step)}], "order": {}}
        state = {"train": {"model": network(step).state_dict(), "average": {}}, "position": position}
        job.place.checkpoints.write(state, step, "run", score)
    return job


def damage(job: Job, step: int) -> None:
    (Path(job.folder) / f"checkpoints/step-{step:08d}/state.pt").write_bytes(b"")


def ended(job: Job) -> bool:
    nothing: Any = None
    return Run(job, nothing, nothing).ended


def same(model: SSM, step: int) -> bool:
    mine, theirs = model.state_dict(), network(step).state_dict()
    return mine.keys() == theirs.keys() and all(torch.equal(mine[name], theirs[name]) for name in mine)


def test_a_run_whose_last_checkpoint_is_damaged_has_not_ended(tmp_path: Path) -> None:
    """It could not be trained on, since it had ended, nor end."""
    job = trained(str(tmp_path), (10, 0.5), (20, 0.9))
    assert ended(job)
    damage(job, 20)
    assert not ended(job)
    with pytest.raises(TrainingFailed, match="checkpoint is at step 10 of 20"):
        finish(job)


def test_a_damaged_best_checkpoint_leaves_the_model_to_the_best_intact_one(tmp_path: Path) -> None:
    job = trained(str(tmp_path), (5, 0.9), (10, 0.7), (20, 0.5))
    damage(job, 5)
    assert ended(job)
    assert finish(job).best.step == 10
    assert same(SSM.from_pretrained(tmp_path / "model"), 10)


def test_a_run_without_any_score_says_so(tmp_path: Path) -> None:
    with pytest.raises(TrainingFailed, match="no intact checkpoint has a validation score"):
        finish(trained(str(tmp_path), (20, float("nan"))))


@pytest.mark.parametrize("remote", [False, True])
def test_a_finished_run_that_is_started_again_keeps_what_an_assessment_found(
    tmp_path: Path, bucket: str, remote: bool
) -> None:
    """Its rule and figures were gone until the next assessment was over."""
    job = trained(f"{bucket}/runs/one" if remote else str(tmp_path / "run"), (20, 0.5))
    finish(job)
    found = {"rule": DecisionRule(rules={1: AURule(threshold=0.4, half_window=2)}), "metrics": {"macro_f1": 0.6}}
    assert rewritten(job, tmp_path / "copy", **found).facts.rule == found["rule"]
    finish(job)
    kept = saved(job, tmp_path / "kept")
    assert (kept.facts.rule, kept.facts.metrics) == (found["rule"], found["metrics"])

    finish(trained(job.folder, (40, 0.9)))  # trained on, to a better one: what was found is of other weights
    fresh = saved(job, tmp_path / "fresh")
    assert same(fresh, 40)
    assert (fresh.facts.rule, fresh.facts.metrics) == (None, {})


def test_a_model_with_other_preprocessing_or_a_damaged_one_is_saved_anew(tmp_path: Path) -> None:
    job = trained(str(tmp_path), (20, 0.5))
    finish(job)
    rewritten(job, tmp_path / "copy", preprocessing=None, metrics={"macro_f1": 0.6})
    finish(job)
    again = SSM.from_pretrained(tmp_path / "model")
    assert (again.facts.preprocessing, again.facts.metrics) == (CONFIG.preprocessing, {})
    (tmp_path / "model" / "model.safetensors").write_bytes(b"")
    finish(job)
    assert same(SSM.from_pretrained(tmp_path / "model"), 20)


def saved(job: Job, folder: Path) -> SSM:
    """The model of a run, read from a copy in `folder`."""
    storage = open_storage(job.folder)
    folder.mkdir()
    for key in storage.list("model/"):
        (folder / Path(key).name).write_bytes(storage.read(key))
    return SSM.from_pretrained(folder)


def rewritten(job: Job, folder: Path, **facts: Any) -> SSM:
    """The run's model, saved again with other facts as an assessment does."""
    model = saved(job, folder)
    model.facts = model.facts.model_copy(update=facts)
    model.save_pretrained(folder)
    for file in folder.iterdir():
        open_storage(job.folder).write(f"model/{file.name}", file.read_bytes())
    return model
