"""Scalars of a run reach TensorBoard, once each also after a resume, and MLflow when it is asked for."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from ssm_platform.base.overrides import override
from ssm_platform.runs.config import RunConfig
from ssm_platform.runs.recipes import tiny
from ssm_platform.train import tracking
from ssm_platform.train.tracking import Apart, Origin, Tracker, Trackers

ORIGIN = Origin("/runs/tiny", "f1")


def logged(folder: Path, name: str) -> list[tuple[int, float]]:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder / "tensorboard"))
    events.Reload()
    return [(event.step, event.value) for event in events.Scalars(name)]


def test_points_past_the_checkpoint_are_dropped_after_a_resume(tmp_path: Path) -> None:
    before = Trackers.of(tiny(), tmp_path, resumed_at=0, origin=ORIGIN)
    for step in (1, 2, 3, 4):
        before.log(step, {"total": float(step)})
    before.close()
    after = Trackers.of(tiny(), tmp_path, resumed_at=3, origin=ORIGIN)
    for step in (4, 5):
        after.log(step, {"total": 10.0 * step})
    after.close()
    assert logged(tmp_path, "total") == [(1, 1.0), (2, 2.0), (3, 3.0), (4, 40.0), (5, 50.0)]


@pytest.fixture
def mlflow(tmp_path: Path) -> tuple[RunConfig, Any]:
    """A run that logs to a database of its own, and a client of that."""
    client = pytest.importorskip("mlflow.tracking", reason="mlflow is an extra of the platform")
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    config = override(tiny(), {"tracking.tensorboard": False, "tracking.mlflow": uri})
    return config, client.MlflowClient(tracking_uri=uri)


def runs(client: Any) -> list[Any]:
    return list(client.search_runs([client.get_experiment_by_name("ssm").experiment_id]))


def test_mlflow_goes_on_in_the_run_that_is_resumed(mlflow: tuple[RunConfig, Any], tmp_path: Path) -> None:
    config, client = mlflow
    for step in (1, 2):  # the second time the run is resumed
        trackers = Trackers.of(config, tmp_path, step - 1, ORIGIN)
        trackers.log(step, {"loss/fe": 1.0 / step})
        trackers.close(failed=step == 1)
        (run,) = runs(client)
        assert run.info.status == ("FAILED" if step == 1 else "FINISHED")
    assert run.data.params["data.fe_batch"] == "6"
    assert [point.value for point in client.get_metric_history(run.info.run_id, "loss/fe")] == [1.0, 0.5]


def test_mlflow_holds_runs_of_one_name_apart(mlflow: tuple[RunConfig, Any], tmp_path: Path) -> None:
    config, client = mlflow
    for origin in (ORIGIN, Origin("s3://b/tiny", "f1"), Origin("/runs/tiny", "f2")):
        Trackers.of(config, tmp_path, 0, origin).close()
    assert len(runs(client)) == 3
    assert {run.info.run_name for run in runs(client)} == {"tiny"}


class Stuck:
    """A tracker whose server fails, or does not answer."""

    def __init__(self, answer: threading.Event | None) -> None:
        self._answer = answer

    def log(self, step: int, scalars: Mapping[str, float]) -> None:
        if self._answer is None:
            raise ConnectionError("no route to tracker:5000")
        self._answer.wait(20)

    def close(self, failed: bool = False) -> None: ...


def test_a_tracker_that_fails_or_hangs_costs_its_curves_and_not_the_run(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(tracking, "_PATIENCE", 0.2)
    answer = threading.Event()

    def absent() -> Tracker:
        raise ConnectionError("no route to tracker:5000")

    began = time.monotonic()
    cases = [(absent, True), (lambda: Stuck(None), True), (lambda: Stuck(answer), False)]
    for make, told in cases:
        caplog.clear()
        tracker = Apart(make)
        for step in range(20):
            tracker.log(step, {"total": 1.0})
        tracker.close()
        assert "messages were lost" in caplog.text
        assert ("training goes on: ConnectionError: no route" in caplog.text) == told
    assert time.monotonic() - began < 5
    answer.set()
