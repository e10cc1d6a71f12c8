"""Several Ray nodes on one machine, each with a raylet and an object store of its own; one of them is lost mid-run."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ray.cluster_utils import Cluster

from ssm_platform.checkpoints import Checkpoints
from ssm_platform.cli import override
from ssm_platform.order import verify
from ssm_platform.preparation import prepare, training_plan
from ssm_platform.recipes import tiny
from ssm_platform.storage import open_storage
from ssm_platform.synthetic import PRESETS, write_corpus

pytestmark = [pytest.mark.ray, pytest.mark.timeout(600)]

STEPS = 16
STORE = 150 * 2**20
DRIVER = Path(__file__).parent.parent / "support" / "train_driver.py"
QUICK_TO_NOTICE = {
    "health_check_initial_delay_ms": 0,
    "health_check_period_ms": 500,
    "health_check_failure_threshold": 4,
}


@pytest.fixture
def nodes() -> Iterator[Cluster]:
    """A head that runs no work, and two nodes of three CPUs."""
    head = {"num_cpus": 0, "object_store_memory": STORE, "include_dashboard": False, "_system_config": QUICK_TO_NOTICE}
    cluster = Cluster(initialize_head=True, head_node_args=head)
    try:
        for _ in range(2):
            cluster.add_node(num_cpus=3, object_store_memory=STORE)
        cluster.wait_for_nodes()
        yield cluster
    finally:
        cluster.shutdown()


def test_training_survives_the_loss_of_a_node_in_exact_order(nodes: Cluster, tmp_path: Path) -> None:
    """Two workers of 1.6 CPUs cannot share a node: losing one takes a worker with it, and a new node replaces it."""
    settings = {
        "storage": str(tmp_path / "runs"),
        "name": "nodes",
        "steps": STEPS,
        "validate_every": STEPS,
        "checkpoint.every": 2,
        "tracking.every": 1,
        "scale.workers": 2,
        "scale.cpus_per_worker": 1.6,
        "data.corpora.bp4d.root": str(tmp_path / "bp4d"),
        "data.corpora.dfew.root": str(tmp_path / "dfew"),
    }
    for name in ("bp4d", "dfew"):
        write_corpus(name, tmp_path / name, PRESETS["tiny"], 1)
    log = tmp_path / "log"
    environment = {**os.environ, "RAY_ADDRESS": nodes.address, "OMP_NUM_THREADS": "1"}
    with log.open("w") as output:
        driver = subprocess.Popen(
            [sys.executable, str(DRIVER), json.dumps(settings)], env=environment, stdout=output, stderr=output
        )
        try:
            checkpoints = Checkpoints(open_storage(tmp_path / "runs" / "nodes"))
            _wait_for(checkpoints, 4, driver, log)
            nodes.remove_node(nodes.worker_nodes.copy().pop(), allow_graceful=False)
            nodes.add_node(num_cpus=3, object_store_memory=STORE)
            assert driver.wait(timeout=400) == 0, log.read_text()[-5000:]
        finally:
            driver.kill()
    found = checkpoints.resume()
    assert found is not None
    marker, state = found
    order: dict[str, Any] = state["position"]["order"]
    assert marker.step == STEPS
    assert len(order["spans"]) > 1, "the run did start again"
    config = override(tiny(), settings)
    prepared = prepare(config)
    assert verify(training_plan(config, prepared), prepared.train, order).steps == STEPS


def _wait_for(
    checkpoints: Checkpoints, step: int, driver: subprocess.Popen[bytes], log: Path, limit: float = 240
) -> None:
    """Until a complete checkpoint at `step` or later is on storage."""
    until = time.monotonic() + limit
    while time.monotonic() < until and driver.poll() is None:
        newest = checkpoints.newest()
        if newest is not None and newest.step >= step:
            return
        time.sleep(0.1)
    raise AssertionError(log.read_text()[-5000:])
