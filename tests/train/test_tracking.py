"""Scalars of a run reach TensorBoard, once each also after a resume, and MLflow when it is asked for."""

from __future__ import annotations

from pathlib import Path

import pytest

from ssm_platform.cli import override
from ssm_platform.recipes import tiny
from ssm_platform.tracking import Trackers


def logged(folder: Path, name: str) -> list[tuple[int, float]]:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder / "tensorboard"))
    events.Reload()
    return [(event.step, event.value) for event in events.Scalars(name)]


def test_points_past_the_checkpoint_are_dropped_after_a_resume(tmp_path: Path) -> None:
    before = Trackers.of(tiny(), tmp_path, resumed_at=0)
    for step in (1, 2, 3, 4):
        before.log(step, {"total": float(step)})
    before.close()
    after = Trackers.of(tiny(), tmp_path, resumed_at=3)
    for step in (4, 5):
        after.log(step, {"total": 10.0 * step})
    after.close()
    assert logged(tmp_path, "total") == [(1, 1.0), (2, 2.0), (3, 3.0), (4, 40.0), (5, 50.0)]


def test_mlflow_holds_one_run_per_name(tmp_path: Path) -> None:
    tracking = pytest.importorskip("mlflow.tracking", reason="mlflow is an extra of the platform")
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    config = override(tiny(), {"tracking.tensorboard": False, "tracking.mlflow": uri})
    for step in (1, 2):  # the second time the run is resumed
        trackers = Trackers.of(config, tmp_path, resumed_at=step - 1)
        trackers.log(step, {"loss/fe": 1.0 / step})
        trackers.close()
    client = tracking.MlflowClient(tracking_uri=uri)
    experiment = client.get_experiment_by_name("ssm")
    (run,) = client.search_runs([experiment.experiment_id])
    assert run.data.params["data.fe_batch"] == "6"
    assert [point.value for point in client.get_metric_history(run.info.run_id, "loss/fe")] == [1.0, 0.5]
