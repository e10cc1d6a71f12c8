"""What a run costs at a size nobody has rented yet: a simulator over measured per-clip costs.

`Costs` are measured (`python bench/scaling.py` measures them on the machine it runs on), `Fleet` says what is rented,
`simulate` plays a training run step by step: decoders fill a bounded buffer, every worker waits for its share, the
slowest worker and the gradient exchange end the step, checkpoints and lost machines cost time. Knows no Ray.
Units: seconds, bytes, clips, US dollars.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from pydantic import BaseModel, ConfigDict, Field


class Costs(BaseModel):
    """Per-clip and per-step costs of one model on one kind of machine, as measured."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    decode_s: float = Field(gt=0, description="one core's time to read, decode and crop one clip")
    driver_s: float = Field(ge=0, description="Ray Data's scheduler and the hand-out, per clip: what does not shard")
    compute_s: float = Field(gt=0, description="one worker's forward and backward time per clip")
    step_s: float = Field(ge=0, description="a step's fixed time on a worker: text tower, optimiser, launches")
    spread: float = Field(ge=0, lt=1, description="standard deviation of log step time between workers and steps")
    gradient_bytes: float = Field(gt=0, description="bytes all workers exchange in a step")
    checkpoint_bytes: float = Field(gt=0, description="bytes of a complete checkpoint")
    clip_bytes: float = Field(gt=0, description="bytes of a decoded clip on its way from a decoder to a worker")
    shard_bytes: float = Field(gt=0, description="bytes of a clip read from storage")
    requests: float = Field(default=0, ge=0, description="requests to the object store per clip; 0: local files")
    mixup_bytes: float = Field(default=0, ge=0, description="bytes of partners' clips that one worker takes in a step")


class Fleet(BaseModel):
    """What is rented, and the habits of the run."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    workers: int = Field(ge=1, description="training workers, one accelerator each")
    decode_cores: int = Field(ge=1, description="cores that decode, over the whole fleet")
    clips_per_worker: int = Field(ge=1, description="clips of one worker in one step")
    network: float = Field(default=1.25e9, gt=0, description="bytes/s in and out of one machine")
    storage: float = Field(default=6e8, gt=0, description="bytes/s from one machine to the object store")
    latency_s: float = Field(default=5e-5, ge=0, description="one message between two machines")
    request_s: float = Field(default=0.03, ge=0, description="the object store's time to its first byte")
    requests_ahead: int = Field(default=1, ge=1, description="requests that one decoding core has in the air")
    overlap: float = Field(default=0.5, ge=0, le=1, description="share of the gradient exchange hidden behind backward")
    checkpoint_every: int = Field(default=200, ge=1, description="steps between checkpoints")
    lost_per_hour: float = Field(default=0.0, ge=0, description="chance that one machine is lost within an hour (spot)")
    restart_s: float = Field(default=60.0, ge=0, description="time to be training again after a loss")
    worker_price: float = Field(default=1.3, ge=0, description="dollars per hour of one worker's machine")
    core_price: float = Field(
        default=0.04, ge=0, description="dollars per hour of one decoding core; 0 where it comes with a worker's"
    )


@dataclass(frozen=True)
class Prediction:
    """What a simulated run did. `shares` says where the time went; `bottleneck` is its largest part."""

    clips_per_s: float
    dollars_per_million_clips: float
    efficiency: float  # of the workers: compute time over wall time
    shares: dict[str, float]
    bottleneck: str


def exchange_s(costs: Costs, fleet: Fleet) -> float:
    """Ring all-reduce: every machine sends and receives 2 (n-1)/n of the gradient in 2 (n-1) messages."""
    n = fleet.workers
    if n == 1:
        return 0.0
    return 2 * (n - 1) / n * costs.gradient_bytes / fleet.network + 2 * (n - 1) * fleet.latency_s


def mixup_s(costs: Costs, fleet: Fleet) -> float:
    """Partners' clips come from the other workers; alone, a worker has them."""
    n = fleet.workers
    return (n - 1) / n * costs.mixup_bytes / fleet.network + (fleet.latency_s if n > 1 and costs.mixup_bytes else 0.0)


def supply_s(costs: Costs, fleet: Fleet) -> dict[str, float]:
    """Seconds each part of the supply line needs for one clip, the whole fleet working on it."""
    machines = max(fleet.workers, fleet.decode_cores // 16, 1)
    return {
        "decode": (costs.decode_s + costs.requests * fleet.request_s / fleet.requests_ahead) / fleet.decode_cores,
        "driver": costs.driver_s,
        "storage": costs.shard_bytes / (fleet.storage * machines),
        "network": costs.clip_bytes / (fleet.network * fleet.workers),
    }


class Clock:
    """The time of a run, and what each part of it went to."""

    def __init__(self, parts: Iterable[str]) -> None:
        self.now = 0.0
        self.spent = dict.fromkeys(parts, 0.0)

    def spend(self, part: str, seconds: float) -> None:
        """Lets `seconds` pass for `part`."""
        self.now += seconds
        self.spent[part] += seconds


def simulate(costs: Costs, fleet: Fleet, steps: int = 2000, seed: int = 0) -> Prediction:
    """Play `steps` steps and say what came of it; a pure function of its arguments."""
    generator = np.random.default_rng(seed)
    batch = fleet.workers * fleet.clips_per_worker
    supply = supply_s(costs, fleet)
    narrowest = max(supply, key=lambda part: supply[part])
    work = costs.step_s + fleet.clips_per_worker * costs.compute_s
    exchange, mixup = exchange_s(costs, fleet) * (1 - fleet.overlap), mixup_s(costs, fleet)
    # The slowest of n log-normal step times, drawn once per step.
    slowest = work * np.exp(costs.spread * generator.standard_normal((steps, fleet.workers)).max(axis=1))
    snapshot = costs.checkpoint_bytes / 5e9  # the copy to host memory; the upload runs beside the training
    hazard = fleet.lost_per_hour * fleet.workers / 3600

    clock = Clock(("compute", "stragglers", narrowest, "exchange", "mixup", "checkpoint", "lost machines"))
    supplied, kept = 0.0, 0.0  # when the supply line has delivered the batch of this step; when the last checkpoint was
    for step in range(steps):
        begun = clock.now
        supplied = max(supplied, begun - 2 * batch * supply[narrowest]) + batch * supply[narrowest]
        clock.spend(narrowest, max(0.0, supplied - begun))
        clock.spend("compute", work)
        clock.spend("stragglers", float(slowest[step]) - work)
        clock.spend("exchange", exchange)
        clock.spend("mixup", mixup)
        if (step + 1) % fleet.checkpoint_every == 0:
            clock.spend("checkpoint", snapshot)
            kept = clock.now
        if generator.random() < -np.expm1(-hazard * (clock.now - begun)):
            clock.spend("lost machines", clock.now - kept + fleet.restart_s)
            kept = clock.now
    return _prediction(clock, fleet, steps * batch)


def _prediction(clock: Clock, fleet: Fleet, clips: int) -> Prediction:
    shares = {part: seconds / clock.now for part, seconds in clock.spent.items()}
    dollars = (fleet.workers * fleet.worker_price + fleet.decode_cores * fleet.core_price) * clock.now / 3600
    waits = {part: share for part, share in shares.items() if part != "compute"}
    return Prediction(
        clips_per_s=clips / clock.now,
        dollars_per_million_clips=dollars / clips * 1e6,
        efficiency=shares["compute"],
        shares=shares,
        bottleneck="compute" if shares["compute"] >= 0.5 else max(waits, key=lambda part: waits[part]),
    )
