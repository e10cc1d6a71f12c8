"""Where scalars of a run are logged: TensorBoard by default, MLflow when asked, both from rank 0 only.

A tracker takes `(step, {name: value})`. After a resume, TensorBoard drops what an earlier process logged past the
checkpoint, so curves have no double points; MLflow goes on in the run that carries the same `Origin` in its tags.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

from ssm_platform.runs import RunConfig


@dataclass(frozen=True)
class Origin:
    """Which run is logged: a name says little, since every storage may hold one of that name."""

    folder: str  # of the run, absolute or an s3:// prefix
    fingerprint: str  # of mathematics and data together


_TAG = "ssm."


class Tracker(Protocol):
    """Takes scalars; `close` flushes."""

    def log(self, step: int, scalars: Mapping[str, float]) -> None:
        """Logs every scalar at `step`."""
        ...

    def close(self, failed: bool = False) -> None:
        """Flushes and ends; `failed` where training raised."""
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

    def close(self, failed: bool = False) -> None:
        """Flushes the event file."""
        self._writer.close()


class MLflow:
    """One MLflow run per run of ours; a resumed one goes on in the one that is there."""

    def __init__(self, uri: str, config: RunConfig, origin: Origin) -> None:
        from mlflow.tracking import MlflowClient

        self._client = MlflowClient(tracking_uri=uri)
        experiment = self._client.get_experiment_by_name("ssm")
        experiment_id = experiment.experiment_id if experiment else self._client.create_experiment("ssm")
        tags = {f"{_TAG}{name}": value for name, value in asdict(origin).items()}
        found = self._client.search_runs([experiment_id], f"tags.`{_TAG}fingerprint` = '{origin.fingerprint}'")
        mine = next((run for run in found if run.data.tags.get(f"{_TAG}folder") == origin.folder), None)
        if mine is not None:
            self._run = mine.info.run_id
            self._client.update_run(self._run, status="RUNNING")
            return
        self._run = self._client.create_run(experiment_id, run_name=config.name, tags=tags).info.run_id
        for path, value in config.mathematics().items():
            self._client.log_param(self._run, path, str(value)[:500])

    def log(self, step: int, scalars: Mapping[str, float]) -> None:
        """One metric point per scalar."""
        for name, value in scalars.items():
            self._client.log_metric(self._run, name.replace("@", "_"), float(value), step=step)

    def close(self, failed: bool = False) -> None:
        """Marks the run as finished or failed."""
        self._client.set_terminated(self._run, "FAILED" if failed else "FINISHED")


class Trackers:
    """Every tracker of a run behind one `log`."""

    def __init__(self, trackers: list[Tracker]) -> None:
        self._trackers = trackers

    @classmethod
    def of(cls, config: RunConfig, folder: Path, resumed_at: int, origin: Origin) -> Trackers:
        """The trackers that `config.tracking` asks for; files go below `folder`."""
        chosen: list[Tracker] = []
        if config.tracking.tensorboard:
            chosen.append(TensorBoard(folder / "tensorboard", resumed_at + 1 if resumed_at else None))
        if config.tracking.mlflow is not None:
            chosen.append(MLflow(config.tracking.mlflow, config, origin))
        return cls(chosen)

    def log(self, step: int, scalars: Mapping[str, float]) -> None:
        """Logs to every tracker."""
        for tracker in self._trackers:
            tracker.log(step, scalars)

    def close(self, failed: bool = False) -> None:
        """Closes every tracker."""
        for tracker in self._trackers:
            tracker.close(failed)
