"""Several Ray nodes on one machine, each with a raylet and an object store of its own; nodes and actors are lost.

First training loses a node; then a service, deployed by its own command, loses Serve's controller and a node.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from ray.cluster_utils import Cluster

from serve.client import Client
from ssm_platform.base.overrides import override
from ssm_platform.base.storage import open_storage
from ssm_platform.data.order import verify
from ssm_platform.runs.preparation import prepare, training_plan
from ssm_platform.runs.recipes import tiny
from ssm_platform.synthetic.sample import write_sample
from ssm_platform.train.checkpoints import Checkpoints

pytestmark = [pytest.mark.ray, pytest.mark.timeout(600)]

STEPS = 60
STORE = 150 * 2**20
REPOSITORY = Path(__file__).resolve().parents[2]
DRIVER = REPOSITORY / "tests" / "support" / "train_driver.py"
QUICK_TO_NOTICE = {
    "health_check_initial_delay_ms": 0,
    "health_check_period_ms": 500,
    "health_check_failure_threshold": 10,
}


@pytest.fixture(scope="module")
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


def test_training_survives_the_loss_of_a_node_and_grows_with_new_ones_in_exact_order(
    nodes: Cluster, tiny_corpora: Path, tmp_path: Path
) -> None:
    """Two workers of 1.55 CPUs need two nodes: one is lost with its node, and once a larger one has joined, three share
    the batches unevenly."""
    settings = {
        "storage": str(tmp_path / "runs"),
        "name": "nodes",
        "steps": STEPS,
        "validate_every": STEPS,
        "checkpoint.every": 4,
        "checkpoint.keep": 1000,
        "tracking.every": 1,
        "scale.workers": [1, 3],
        "scale.cpus_per_worker": 1.55,
        "scale.resize_interval": 1,
        "data.decode_workers": 3,
        "data.decode_cpus": 0.4,
        "data.corpora.bp4d.root": str(tiny_corpora / "bp4d"),
        "data.corpora.dfew.root": str(tiny_corpora / "dfew"),
    }
    log = tmp_path / "log"
    environment = {**os.environ, "RAY_ADDRESS": nodes.address, "OMP_NUM_THREADS": "1"}
    with log.open("w") as output:
        driver = subprocess.Popen(
            [sys.executable, str(DRIVER), json.dumps(settings)], env=environment, stdout=output, stderr=output
        )
        try:
            checkpoints = Checkpoints(open_storage(tmp_path / "runs" / "nodes"))
            _wait_for(lambda: checkpoints.newest() is not None, driver, log)
            nodes.remove_node(nodes.worker_nodes.copy().pop(), allow_graceful=False)
            _wait_for(lambda: _attempts(tmp_path) == 2, driver, log)
            joined = nodes.add_node(num_cpus=6, object_store_memory=STORE)
            assert driver.wait(timeout=400) == 0, log.read_text()[-5000:]
            nodes.remove_node(joined)
        finally:
            driver.kill()
            nodes.add_node(num_cpus=3, object_store_memory=STORE)  # for the tests that follow
    found = checkpoints.resume()
    assert found is not None
    marker, state = found
    order: dict[str, Any] = state["position"]["order"]
    assert marker.step == STEPS
    worlds = [span["world"] for span in order["spans"]]
    assert (worlds[0], worlds[-1]) == (2, 3)
    assert _attempts(tmp_path) >= 3, "in between it went on with the one worker that the rest of the cluster can hold"
    config = override(tiny(), settings)
    prepared = prepare(config)
    assert verify(training_plan(config, prepared), prepared.train, order).steps == STEPS


def _attempts(place: Path) -> int:
    """How many groups of workers have begun."""
    return len(list((place / "runs" / "nodes" / "checkpoints" / "attempts").glob("*")))


@pytest.fixture
def address(nodes: Cluster, tiny_run: Path, tmp_path: Path, unused_port: Callable[[], int]) -> Iterator[str]:
    """A service with two replicas of everything, which one node cannot hold, started by its own command."""
    port = unused_port()
    twice = [
        f"--{part}.{field}"
        for part, cpus in (("ingress", 0.2), ("video", 0.6), ("inference", 0.8))
        for field in (f"cpus={cpus}", "replicas=2", "replicas_max=2")
    ]
    command = [
        sys.executable, str(REPOSITORY / "jobs" / "deploy.py"), "--model", str(tiny_run / "model"), f"--port={port}",
        f"--scratch={tmp_path / 'scratch'}", "--threads=1", *twice,
    ]  # fmt: skip
    log = tmp_path / "log"
    environment = {**os.environ, "RAY_ADDRESS": nodes.address, "OMP_NUM_THREADS": "1"}
    with log.open("w") as output:
        process = subprocess.Popen(command, env=environment, stdout=output, stderr=output)
        try:
            until = time.monotonic() + 200
            while "serving on" not in log.read_text():
                assert process.poll() is None, log.read_text()[-5000:]
                assert time.monotonic() < until, log.read_text()[-5000:]
                time.sleep(0.5)
            yield f"http://127.0.0.1:{port}"
        finally:
            process.terminate()
            process.wait(timeout=60)


def test_a_service_answers_on_without_its_controller_and_without_a_node(
    nodes: Cluster, address: str, tmp_path: Path
) -> None:
    """Clients that send again while they are told to wait see the same rows, whatever is lost meanwhile."""
    video = write_sample(tmp_path / "clip.mp4")
    client = Client(address, patience_s=200)
    wanted = client.predict(video)["rows"]
    assert wanted

    crash = (
        "import ray; ray.init(address='auto', namespace='serve', logging_level='error');"
        "ray.kill(ray.get_actor('SERVE_CONTROLLER_ACTOR'), no_restart=False)"
    )
    environment = {**os.environ, "RAY_ADDRESS": nodes.address}
    subprocess.run([sys.executable, "-c", crash], env=environment, check=True, timeout=100)
    assert same(client.predict(video)["rows"], wanted)

    nodes.remove_node(nodes.worker_nodes.copy().pop(), allow_graceful=False)
    for _ in range(3):
        assert same(client.predict(video)["rows"], wanted)


def same(rows: list[dict[str, Any]], wanted: list[dict[str, Any]]) -> bool:
    """Equal but for the last of five decimals, which the size of a batch may turn."""
    return len(rows) == len(wanted) and all(
        row == pytest.approx(other, abs=2e-5) for row, other in zip(rows, wanted, strict=True)
    )


def _wait_for(there: Callable[[], bool], driver: subprocess.Popen[bytes], log: Path, limit: float = 240) -> None:
    until = time.monotonic() + limit
    while time.monotonic() < until and driver.poll() is None:
        if there():
            return
        time.sleep(0.1)
    raise AssertionError(log.read_text()[-5000:])
