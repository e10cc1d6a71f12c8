"""Where scalars of a run are logged: TensorBoard by default, MLflow when asked, both from rank 0 only.

A tracker takes `(step, {name: value})`. After a resume, TensorBoard drops what an earlier process logged past the
checkpoint, so curves have no double points; MLflow goes on in the run that carries the same `Origin` in its tags.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from ssm_platform.runs import RunConfig


@dataclass(frozen=True)
class Origin:
    """Which run is logged: a name says little, since every storage may hold one of that name."""

    folder: str  # of the run, absolute or an s3:// prefix
    fingerprint: str  # of mathematics and data together


LOG = logging.getLogger(__name__)

_TAG = "ssm."
_WAITING = 1000  # messages to a slow tracker before more are dropped
_PATIENCE = 30.0  # seconds that the end of a run waits for it


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


class Apart:
    """A tracker in a thread of its own: what it cannot do costs its curves, never the run, and a slow one no step."""

    def __init__(self, make: Callable[[], Tracker]) -> None:
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="tracking")
        self._tracker = self._thread.submit(make)
        self._sent: deque[Future[Any]] = deque([self._tracker])
        self._lost = 0

    def log(self, step: int, scalars: Mapping[str, float]) -> None:
        """Hands scalars over; drops them where a thousand wait already."""
        self._tell()
        if len(self._sent) < _WAITING:
            self._send(lambda tracker: tracker.log(step, dict(scalars)))
        else:
            self._lost += 1

    def close(self, failed: bool = False) -> None:
        """Gives it half a minute to end."""
        self._send(lambda tracker: tracker.close(failed))
        wait(self._sent, timeout=_PATIENCE)
        self._lost += sum(not one.done() for one in self._sent)
        self._tell()
        if self._lost:
            LOG.warning("tracking: %d messages were lost; the curves in curves.json are whole", self._lost)
        self._thread.shutdown(wait=False, cancel_futures=True)

    def _send(self, action: Callable[[Tracker], None]) -> None:
        self._sent.append(self._thread.submit(lambda: action(self._tracker.result())))

    def _tell(self) -> None:
        """Looks at what was done; the first failure is told."""
        while self._sent and self._sent[0].done():
            error = self._sent.popleft().exception()
            if error is not None and not self._lost:
                LOG.warning("tracking failed, training goes on: %s: %s", type(error).__name__, error)
            self._lost += error is not None


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
            chosen.append(Apart(partial(MLflow, config.tracking.mlflow, config, origin)))
        return cls(chosen)

    def log(self, step: int, scalars: Mapping[str, float]) -> None:
        """Logs to every tracker."""
        for tracker in self._trackers:
            tracker.log(step, scalars)

    def close(self, failed: bool = False) -> None:
        """Closes every tracker."""
        for tracker in self._trackers:
            tracker.close(failed)
