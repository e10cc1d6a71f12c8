"""Whole runs on Ray Train: killed drivers, dead workers, another number of workers. One corpus, one model, 20 steps.

`straight` is the run that nothing happens to. A killed run at the same number of workers must end with its very
bits; at another number, with the same samples in the same order and losses within `TOLERANCE`.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from ssm_platform.base.overrides import override
from ssm_platform.base.storage import open_storage
from ssm_platform.data.order import verify
from ssm_platform.runs.preparation import prepare, training_plan
from ssm_platform.runs.recipes import tiny
from ssm_platform.synthetic import PRESETS, write_corpus
from ssm_platform.train.checkpoints import Checkpoints, Marker

pytestmark = [pytest.mark.ray, pytest.mark.timeout(600)]

STEPS = 20
TOLERANCE = 1e-4
DRIVER = Path(__file__).parent.parent / "support" / "train_driver.py"


class Runs:
    """Starts drivers on the session's cluster, each in a process that can be killed."""

    def __init__(self, folder: Path, address: str) -> None:
        self.folder, self._address = folder, address
        self.settings: dict[str, Any] = {
            "storage": str(folder / "runs"),
            "steps": STEPS,
            "validate_every": 10,
            "checkpoint.every": 3,
            "tracking.every": 1,
            "data.corpora.bp4d.root": str(folder / "bp4d"),
            "data.corpora.dfew.root": str(folder / "dfew"),
        }

    def start(self, name: str, **changes: Any) -> subprocess.Popen[str]:
        settings = {**self.settings, "name": name, **{key.replace("__", "."): value for key, value in changes.items()}}
        environment = {**os.environ, "RAY_ADDRESS": self._address, "OMP_NUM_THREADS": "1"}
        with (self.folder / f"{name}.log").open("a") as log:
            command = [sys.executable, str(DRIVER), json.dumps(settings)]
            return subprocess.Popen(command, env=environment, stdout=log, stderr=log, text=True)

    def finish(self, name: str, **changes: Any) -> dict[str, Any]:
        """The state of the run's last checkpoint after it ran to its end."""
        code = self.start(name, **changes).wait(timeout=500)
        assert code == 0, (self.folder / f"{name}.log").read_text()[-5000:]
        return self.last(name)

    def checkpoints(self, name: str) -> Checkpoints:
        return Checkpoints(open_storage(self.folder / "runs" / name))

    def last(self, name: str) -> dict[str, Any]:
        found = self.checkpoints(name).resume()
        assert found is not None
        assert found[0].step == STEPS
        return found[1]

    def wait_for(self, name: str, step: int, driver: subprocess.Popen[str]) -> Marker:
        """The newest checkpoint, once one is complete at `step` or later."""
        until = time.monotonic() + 300
        while time.monotonic() < until and driver.poll() is None:
            newest = self.checkpoints(name).newest()
            if newest is not None and newest.step >= step:
                return newest
            time.sleep(0.1)
        raise AssertionError((self.folder / f"{name}.log").read_text()[-5000:])


@pytest.fixture(scope="module")
def runs(ray_cluster: None, tmp_path_factory: pytest.TempPathFactory) -> Runs:
    import ray

    folder = tmp_path_factory.mktemp("training")
    for name in ("bp4d", "dfew"):
        write_corpus(name, folder / name, PRESETS["tiny"], 1)
    return Runs(folder, ray.get_runtime_context().gcs_address)


@pytest.fixture(scope="module")
def straight(runs: Runs) -> dict[str, Any]:
    return runs.finish("straight")


@pytest.fixture(scope="module")
def killed(runs: Runs) -> str:
    """The name of a run whose driver was killed at a random moment between the 6th and the last step."""
    for name in ("killed", "killed-again", "killed-at-last"):
        driver = runs.start(name)
        runs.wait_for(name, 6, driver)  # two checkpoints, of which the newest may lose its marker
        time.sleep(random.Random(os.urandom(4)).uniform(0, 0.3))
        driver.send_signal(signal.SIGKILL)
        driver.wait()
        wait_for_the_end_of_workers()  # they outlive their driver for a moment, and go on training
        newest = runs.checkpoints(name).newest()
        assert newest is not None
        if newest.step < STEPS:
            return name
    raise AssertionError("every kill came after the end")


def test_every_row_of_the_plan_was_used_once(runs: Runs, straight: dict[str, Any]) -> None:
    config = override(tiny(), runs.settings)
    prepared = prepare(config)
    verdict = verify(training_plan(config, prepared), prepared.train, straight["position"]["order"])
    assert verdict.steps == STEPS


def test_a_killed_run_goes_on_bit_equal_and_with_three_workers_alike(
    runs: Runs, straight: dict[str, Any], killed: str
) -> None:
    place = runs.folder / "runs"
    shutil.copytree(place / killed, place / "with-three")
    before_commit(place / killed)
    again = runs.finish(killed)
    assert len(again["position"]["order"]["spans"]) == 2, "it went on, and did not start again"
    assert_same_bits(again["train"], straight["train"])
    assert again["position"]["curves"] == straight["position"]["curves"]
    damage(place / "with-three")
    with_three = runs.finish("with-three", scale__workers=3, scale__max_failures=0)  # who share 6 and 4 clips unevenly
    assert len(with_three["position"]["order"]["spans"]) == 2
    assert_alike(with_three, straight)


def test_two_workers_of_which_one_dies_equal_one(runs: Runs, straight: dict[str, Any]) -> None:
    driver = runs.start("mortal", scale__workers=2)
    runs.wait_for("mortal", 3, driver)
    os.kill(random.choice(train_workers()), signal.SIGKILL)
    assert driver.wait(timeout=500) == 0, (runs.folder / "mortal.log").read_text()[-5000:]
    mortal = runs.last("mortal")
    assert len(mortal["position"]["order"]["spans"]) > 1  # it did start again
    assert_alike(mortal, straight)


def test_a_run_with_other_settings_is_refused_in_the_same_folder(runs: Runs, straight: dict[str, Any]) -> None:
    driver = runs.start("straight", data__fe_batch=4)
    assert driver.wait(timeout=300) != 0
    assert "data.fe_batch: 6 there, 4 here" in (runs.folder / "straight.log").read_text()


def before_commit(run: Path) -> None:
    """Puts the newest checkpoint back to the moment before its marker was written, as a death there leaves it."""
    folders = sorted((run / "checkpoints").glob("step-*"))
    assert len(folders) > 1
    (folders[-1] / "complete.json").unlink(missing_ok=True)


def damage(run: Path) -> None:
    """Cuts the newest complete state in half and leaves its marker: workers and stream go on from the one before."""
    newest = max(run.glob("checkpoints/step-*/complete.json")).with_name("state.pt")
    newest.write_bytes(newest.read_bytes()[: newest.stat().st_size // 2])


def wait_for_the_end_of_workers() -> None:
    until = time.monotonic() + 60
    while train_workers():
        assert time.monotonic() < until
        time.sleep(0.2)


def train_workers() -> list[int]:
    """Process ids of Ray Train's workers among the descendants of this process, so of this session's cluster."""
    listing = subprocess.run(["ps", "-eo", "pid,ppid,args"], capture_output=True, text=True, check=True).stdout
    rows = [line.split(None, 2) for line in listing.splitlines()[1:]]
    parents = {int(pid): int(parent) for pid, parent, *_ in rows}
    return [int(pid) for pid, _, *args in rows if "RayTrainWorker" in "".join(args) and _descends(int(pid), parents)]


def _descends(pid: int, parents: dict[int, int]) -> bool:
    while pid in parents:
        if pid == os.getpid():
            return True
        pid = parents[pid]
    return False


def assert_same_bits(one: Any, other: Any, where: str = "state") -> None:
    if isinstance(one, torch.Tensor):
        assert torch.equal(one, other), where
    elif isinstance(one, dict):
        assert one.keys() == other.keys(), where
        for key in one:
            assert_same_bits(one[key], other[key], f"{where}.{key}")
    elif isinstance(one, list | tuple):
        assert len(one) == len(other), where
        for place, (mine, theirs) in enumerate(zip(one, other, strict=True)):
            assert_same_bits(mine, theirs, f"{where}.{place}")
    else:
        assert one == other, where


def assert_alike(one: dict[str, Any], other: dict[str, Any]) -> None:
    """The same samples in the same order, and every logged loss of every step within `TOLERANCE`."""
    assert one["position"]["order"]["digest"] == other["position"]["order"]["digest"]
    wanted: Callable[[str], bool] = lambda name: name == "total" or name.startswith("loss/")  # noqa: E731
    mine, theirs = (
        [{name: value for name, value in point.items() if wanted(name)} for point in state["position"]["curves"]]
        for state in (one, other)
    )
    assert len(mine) == len(theirs)
    for step, (losses, expected) in enumerate(zip(mine, theirs, strict=True)):
        assert losses == pytest.approx(expected, abs=TOLERANCE), step
