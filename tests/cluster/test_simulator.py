"""The simulator of a fleet: right where the answer is known in closed form, and monotone where it must be."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ssm_platform.cluster.simulator import Costs, Fleet, exchange_s, simulate, supply_s
from ssm_platform.runs.recipes import tiny

BENCH = Path(__file__).resolve().parents[2] / "bench" / "scaling.py"
COSTS = Costs(
    decode_s=0.02, driver_s=1e-5, compute_s=0.01, step_s=0.02, spread=0.0, gradient_bytes=4e8,
    checkpoint_bytes=1e9, clip_bytes=6e5, shard_bytes=2e5,
)  # fmt: skip


def test_one_worker_with_plenty_of_decoders_runs_at_compute_speed() -> None:
    fleet = Fleet(workers=1, decode_cores=64, clips_per_worker=20, checkpoint_every=10**6)
    assert simulate(COSTS, fleet).clips_per_s == pytest.approx(20 / (0.02 + 20 * 0.01), rel=1e-3)


def test_too_few_decoders_set_the_pace_and_are_named() -> None:
    fleet = Fleet(workers=8, decode_cores=2, clips_per_worker=20)
    result = simulate(COSTS, fleet)
    assert result.clips_per_s == pytest.approx(2 / COSTS.decode_s, rel=0.02)
    assert result.bottleneck == "decode"


def test_the_driver_is_a_ceiling_no_fleet_passes() -> None:
    costs = COSTS.model_copy(update={"driver_s": 1e-3})
    result = simulate(costs, Fleet(workers=64, decode_cores=4096, clips_per_worker=20))
    assert result.bottleneck == "driver"
    assert result.clips_per_s <= 1000 * 1.01


def test_lost_machines_cost_what_the_replay_costs() -> None:
    calm = Fleet(workers=8, decode_cores=256, clips_per_worker=20)
    stormy = calm.model_copy(update={"lost_per_hour": 1.0})
    assert simulate(COSTS, stormy).clips_per_s < simulate(COSTS, calm).clips_per_s
    assert simulate(COSTS, stormy).shares["lost machines"] > 0


@settings(max_examples=30, deadline=None)
@given(workers=st.sampled_from([1, 2, 8, 64]), cores=st.integers(1, 512), spread=st.floats(0, 0.3))
def test_shares_are_the_whole_time_and_limits_are_never_passed(workers: int, cores: int, spread: float) -> None:
    costs = COSTS.model_copy(update={"spread": spread})
    fleet = Fleet(workers=workers, decode_cores=cores, clips_per_worker=10)
    result = simulate(costs, fleet, steps=300)
    assert sum(result.shares.values()) == pytest.approx(1.0)
    slowest = max(supply_s(costs, fleet).values())
    assert result.clips_per_s <= min(1 / slowest, workers / costs.compute_s) * 1.05


def test_a_ring_of_one_exchanges_nothing_and_a_larger_one_nears_twice_the_gradient() -> None:
    one, many = (Fleet(workers=n, decode_cores=1, clips_per_worker=1, latency_s=0) for n in (1, 1000))
    assert exchange_s(COSTS, one) == 0
    assert exchange_s(COSTS, many) == pytest.approx(2 * COSTS.gradient_bytes / many.network, rel=2e-3)


def test_waiting_for_storage_and_for_partners_is_paid() -> None:
    """Both were left out: fleets looked faster than any could be."""
    fleet = Fleet(workers=8, decode_cores=8, clips_per_worker=20)
    remote = COSTS.model_copy(update={"requests": 2.0})
    assert simulate(remote, fleet).clips_per_s == pytest.approx(8 / (COSTS.decode_s + 2 * fleet.request_s), rel=0.02)
    ahead = fleet.model_copy(update={"requests_ahead": 8, "decode_cores": 128})
    assert simulate(remote, ahead).bottleneck != "decode"
    mixed = COSTS.model_copy(update={"mixup_bytes": 2e9})
    shares = simulate(mixed, ahead).shares
    seconds = shares["mixup"] / shares["compute"] * (COSTS.step_s + 20 * COSTS.compute_s)
    assert seconds == pytest.approx(7 / 8 * 2e9 / fleet.network, rel=1e-3)
    assert simulate(mixed, Fleet(workers=1, decode_cores=64, clips_per_worker=20)).shares["mixup"] == 0


def test_the_bench_predicts_that_cores_are_shared() -> None:
    """On one machine a second worker helps only as far as there are cores; with many it nearly doubles the pace."""
    bench = runpy.run_path(str(BENCH))
    costs = COSTS.model_copy(update={"decode_s": 0.001, "gradient_bytes": 1.0, "step_s": 0.001})
    config = tiny()
    one, two, many = (bench["predict_here"](costs, config, *shape) for shape in ((1, 2), (2, 2), (2, 64)))
    assert one < two <= many
    assert two < 2 * one
    sizes = bench["fleets"](1e-5)
    assert list(sizes) == [8, 64, 512]
    assert sizes[8].efficiency > sizes[512].efficiency
