"""A sweep whose driver is killed half-way, on a local cluster of its own, and started again; one trial fails."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import tune_driver

from ssm_platform.search.trials import Records

pytestmark = [pytest.mark.ray, pytest.mark.timeout(900)]


def start(storage: Path) -> subprocess.Popen[bytes]:
    environment = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"} | {
        "OMP_NUM_THREADS": "1"
    }
    with (storage / "log").open("a") as log:
        command = [sys.executable, tune_driver.__file__, str(storage)]
        return subprocess.Popen(command, env=environment, stdout=log, stderr=log, start_new_session=True)


def files(folder: Path) -> dict[str, int]:
    return {str(path.relative_to(folder)): path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}


def pixels(folder: Path) -> dict[str, int]:
    return {path: time for path, time in files(folder).items() if path.endswith(".data")}


def test_a_killed_sweep_keeps_what_is_finished_and_a_failed_trial_does_not_end_it(tmp_path: Path) -> None:
    sweep = tune_driver.sweep(tmp_path)
    first, failing, last = sweep.listed() or []
    driver = start(tmp_path)
    until = time.monotonic() + 400
    while not any(trial.over for trial in Records(sweep.folder).read()):
        assert driver.poll() is None, (tmp_path / "log").read_text()[-4000:]
        assert time.monotonic() < until, (tmp_path / "log").read_text()[-4000:]
        time.sleep(0.1)
    os.kill(driver.pid, signal.SIGKILL)
    driver.wait()
    done = {trial.name: trial for trial in sweep.trials() if trial.over}
    before = files(sweep.folder / "trials" / first.name)
    shards = pixels(sweep.folder / "shards")
    assert list(done) == [first.name]

    assert start(tmp_path).wait(timeout=400) == 0, (tmp_path / "log").read_text()[-4000:]
    trials = {trial.name: trial for trial in sweep.trials()}
    assert trials[first.name] == done[first.name]
    assert files(sweep.folder / "trials" / first.name) == before, "a finished trial was touched"
    assert pixels(sweep.folder / "shards") == shards, "corpora were decoded again"
    assert trials[failing.name].state == "failed"
    assert trials[failing.name].error is not None
    assert "nan" in trials[failing.name].error or "diverged" in trials[failing.name].error
    assert trials[last.name].state == "finished"
    assert [step for step, _ in trials[last.name].curve] == [2, 4]
