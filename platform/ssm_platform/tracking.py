"""Where scalars of a run are logged: TensorBoard by default, MLflow when asked, both from rank 0 only.

A tracker takes `(step, {name: value})`. After a resume, TensorBoard drops what an earlier process logged past the
checkpoint, so curves have no double points.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from ssm_platform.config import RunConfig


class Tracker(Protocol):
    """Takes scalars; `close` flushes."""

    def log(self, step: int, scalars: Mapping[str, float]) -> None:
        """Logs every scalar at `step`."""
        ...

    def close(self) -> None:
        """Flushes and ends."""
        ...


class TensorBoard:
    """Event files below `folder`."""

    def __init__(self, folder: Path, purge_from: int | None) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._writer: Any = SummaryWriter(str(folder), purge_step=purge_from, flush_secs=10)

    def log(self, step: int, scalars: Mapping[str, float]) -> None:
        """One point per scalar."""
        for name, value in scalars.items():
            self._writer.add_scalar(name, value, step)

    def close(self) -> None:
        """Flushes the event file."""
        self._writer.close()


class MLflow:
    """One MLflow run per run name; a resumed run goes on in the one that is there."""

    def __init__(self, uri: str, config: RunConfig) -> None:
        from mlflow.tracking import MlflowClient

        self._client = MlflowClient(tracking_uri=uri)
        experiment = self._client.get_experiment_by_name("ssm")
        experiment_id = experiment.experiment_id if experiment else self._client.create_experiment("ssm")
        found = self._client.search_runs([experiment_id], f"tags.mlflow.runName = '{config.name}'", max_results=1)
        self._run = (found[0] if found else self._client.create_run(experiment_id, run_name=config.name)).info.run_id
        if not found:
            for path, value in config.mathematics().items():
                self._client.log_param(self._run, path, str(value)[:500])

    def log(self, step: int, scalars: Mapping[str, float]) -> None:
        """One metric point per scalar."""
        for name, value in scalars.items():
            self._client.log_metric(self._run, name.replace("@", "_"), float(value), step=step)

    def close(self) -> None:
        """Marks the run as finished."""
        self._client.set_terminated(self._run)


class Trackers:
    """Every tracker of a run behind one `log`."""

    def __init__(self, trackers: list[Tracker]) -> None:
        self._trackers = trackers

    @classmethod
    def of(cls, config: RunConfig, folder: Path, resumed_at: int) -> Trackers:
        """The trackers that `config.tracking` asks for."""
        chosen: list[Tracker] = []
        if config.tracking.tensorboard:
            chosen.append(TensorBoard(folder / "tensorboard", resumed_at + 1 if resumed_at else None))
        if config.tracking.mlflow is not None:
            chosen.append(MLflow(config.tracking.mlflow, config))
        return cls(chosen)

    def log(self, step: int, scalars: Mapping[str, float]) -> None:
        """Logs to every tracker."""
        for tracker in self._trackers:
            tracker.log(step, scalars)

    def close(self) -> None:
        """Closes every tracker."""
        for tracker in self._trackers:
            tracker.close()
