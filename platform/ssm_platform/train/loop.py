"""The training loop of one worker: batches in, steps, validations and checkpoints out. Plain PyTorch, no Ray.

It goes from the step it resumes at to the last one and checks that every batch is the one the plan asks for: a feed
that starts elsewhere, skips or repeats raises `OrderError` instead of training a silently different model. All
workers run it in step; what only one may do (log, write checkpoints) comes in as `Outlets`, empty on the others.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ssm.training import PADDING, AUBatch, FEBatch, StepResult, TrainStep, VABatch
from ssm_platform.data import OrderError, OrderHash, Used


@dataclass(frozen=True)
class Batch:
    """What this worker has of one global batch, or of a round of validation."""

    rows: NDArray[np.int64]  # global row numbers of the plan, `PADDING` where there is no clip; of validation, its own
    samples: NDArray[np.int64]  # identities of the clips that were decoded for them
    fe: FEBatch | None
    au: AUBatch | None
    va: VABatch | None = None


@dataclass(frozen=True)
class Schedule:
    """When what happens, in steps."""

    total: int
    global_batch: int
    log_every: int
    validate_every: int
    checkpoint_every: int

    def validates(self, done: int) -> bool:
        """Whether a validation follows when `done` steps are done."""
        return done % self.validate_every == 0 or done == self.total

    def checkpoints(self, done: int) -> bool:
        """Whether a checkpoint follows; every validation has one, so that the best model can be kept."""
        return done % self.checkpoint_every == 0 or self.validates(done)

    def logs(self, done: int) -> bool:
        """Whether losses are logged."""
        return done % self.log_every == 0 or done == self.total


@dataclass
class Position:
    """How far a run is: steps done, running hash of the samples used, and the curves so far. Saved in checkpoints."""

    done: int = 0
    order: OrderHash = field(default_factory=OrderHash)
    curves: list[dict[str, float]] = field(default_factory=list)

    def state(self) -> dict[str, Any]:
        """As plain values for a checkpoint."""
        return {"done": self.done, "order": self.order.state, "curves": [dict(point) for point in self.curves]}

    @classmethod
    def of(cls, state: Mapping[str, Any]) -> Position:
        """The inverse of `state`."""
        return cls(state["done"], OrderHash(state["order"]), [dict(point) for point in state["curves"]])


def _nothing(*_: Any) -> None:
    """An outlet that leads nowhere: what every worker but the first has."""


@dataclass(frozen=True)
class Outlets:
    """Where results go: scalars to a log, the complete state to storage, positions to the progress bar."""

    log: Callable[[int, Mapping[str, float]], None] = _nothing
    checkpoint: Callable[[dict[str, Any], int, float | None], None] = _nothing
    progress: Callable[[int, int, str], None] = _nothing
    report: Callable[[dict[str, float]], None] = _nothing  # on every worker: Ray Train's barrier


Validate = Callable[[torch.nn.Module, Iterator[Batch]], dict[str, float]]
"""Reads its rounds from the stream; all workers call it together. `score` is what chooses."""


@dataclass
class Loop:
    """Steps, validations and checkpoints of one worker."""

    step: TrainStep
    schedule: Schedule
    position: Position
    validate: Validate
    outlets: Outlets
    places: NDArray[np.int64]  # of the global batch that are this worker's, `PADDING` where it has fewer than others
    _used: list[Used] = field(default_factory=list)  # by this worker, not yet summed over all
    _notes: dict[str, str] = field(default_factory=dict)  # last loss and last score, for the progress bar

    def run(self, batches: Iterable[Batch]) -> Position:
        """Trains to the end. Raises `OrderError`, `ssm.training.watch.TrainingDiverged`, `CheckpointError`."""
        stream = iter(batches)
        while self.position.done < self.schedule.total:
            batch = self._next(stream)
            result = self.step(batch.fe, batch.au, self.position.done, self.schedule.total, batch.va)
            self.position.done += 1
            self._after_step(result, stream)
        self._settle_order()
        self.step.check()
        return self.position

    def state(self) -> dict[str, Any]:
        """Everything that the rest of the run depends on. All workers call it together."""
        self._settle_order()
        return {"train": self.step.state_dict(), "position": self.position.state()}

    def load(self, state: Mapping[str, Any]) -> None:
        """Takes over what `state` gave."""
        self.step.load_state_dict(state["train"])
        self.position = Position.of(state["position"])

    def _next(self, stream: Iterator[Batch]) -> Batch:
        """The next batch, compared with the rows that the plan has for this worker at this step."""
        done, first = self.position.done, self.position.done * self.schedule.global_batch
        if (batch := next(stream, None)) is None:
            raise OrderError(f"the feed ended after step {done} of {self.schedule.total}")
        wanted = np.where(self.places == PADDING, PADDING, first + self.places)
        if not np.array_equal(batch.rows, wanted):
            raise OrderError(
                f"step {done}, worker {self.step.collective.rank} of {self.step.collective.world}: got rows "
                f"{batch.rows[:3]}.. ({len(batch.rows)}), the plan has {wanted[:3]}.. ({len(wanted)})"
            )
        self._used.append(Used.of(batch.rows, batch.samples))
        return batch

    def _settle_order(self) -> None:
        """Sums what the steps since the last time used over the workers: a sum a step would wait for a GPU."""
        first, size = self.position.done - len(self._used), self.schedule.global_batch
        if self._used:
            self.position.order.settle(first, self._used, self._sum, size, self.step.collective.world)
        self._used.clear()

    def _sum(self, values: NDArray[np.int64]) -> NDArray[np.int64]:
        """Signed 64-bit numbers summed over the workers, wrapping."""
        return np.asarray(self.step.collective.sum(torch.from_numpy(values).to(self.step.device)).cpu())

    def _after_step(self, result: StepResult, stream: Iterator[Batch]) -> None:
        done, total = self.position.done, self.schedule.total
        if self.schedule.logs(done):
            self._log(result.floats())
            self._notes["loss"] = f"loss {self.position.curves[-1]['total']:.3f}"
        score = self._validate(stream) if self.schedule.validates(done) else None
        self.outlets.progress(done, total, ", ".join(self._notes.values()))
        if self.schedule.checkpoints(done):
            self.outlets.checkpoint(self.state(), done, score)

    def _validate(self, stream: Iterator[Batch]) -> float:
        with self.step.averaged() as model:
            metrics = self.validate(model, stream)
        self._log({f"validation/{name}": value for name, value in metrics.items()})
        self._notes["score"] = f"score {metrics['score']:.3f} at {self.position.done}"
        self.outlets.report({**metrics, "step": float(self.position.done)})
        return metrics["score"]

    def _log(self, scalars: dict[str, float]) -> None:
        self.position.curves.append({"step": float(self.position.done), **scalars})
        self.outlets.log(self.position.done, scalars)
