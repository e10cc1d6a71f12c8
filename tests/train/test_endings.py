"""What no restart would mend ends a run at its first worker; what may pass is tried again."""

from __future__ import annotations

import errno
import os
import pickle
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from ssm.training.watch import TrainingDiverged
from ssm_platform.base.storage import MissingKey, StorageError, open_storage
from ssm_platform.data.clips import TooManyUnreadable
from ssm_platform.data.order import OrderError
from ssm_platform.runs.recipes import tiny
from ssm_platform.train import worker
from ssm_platform.train.checkpoints import CheckpointError, Checkpoints
from ssm_platform.train.endings import EndAtOnce, RunEnded, may_pass
from ssm_platform.train.place import Job
from ssm_platform.train.worker import work

REPOSITORY = Path(__file__).resolve().parents[2]
FULL = OSError(errno.ENOSPC, "No space left on device")
FINAL = [
    TrainingDiverged(3, {"total": float("nan")}),
    CheckpointError("the disk is full"),
    TooManyUnreadable("all clips"),
    OrderError("step 3 after 2"),
    ValueError("a batch that cannot be cut"),
    MissingKey("k", "no such file"),
    FULL,
]
PASSING = [CheckpointError("away", final=False), StorageError("k", "gave up"), ConnectionResetError("peer")]


@pytest.mark.parametrize("error", [*FINAL, *PASSING], ids=repr)
def test_a_worker_says_whether_a_restart_would_help(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(job: Job) -> None:
        raise error

    monkeypatch.setattr(worker, "_work", fails)
    with pytest.raises(type(error) if error in PASSING else RunEnded) as caught:
        work(Job(tiny(), "/x", "", 1, []))
    assert str(error) in str(caught.value)


def test_the_hook_ends_the_run_for_one_of_the_workers_and_leaves_other_errors_to_ray() -> None:
    ended = pickle.loads(pickle.dumps(RunEnded("full")))
    with pytest.raises(RunEnded, match="full"):
        EndAtOnce().after_exception(None, {1: RuntimeError("connection closed by peer"), 0: ended})
    EndAtOnce().after_exception(None, {0: RuntimeError("died"), 1: StorageError("k", "away")})


def test_what_may_pass_is_still_known_after_its_way_to_the_driver() -> None:
    for error in (CheckpointError("away", final=False), CheckpointError("full")):
        assert may_pass(pickle.loads(pickle.dumps(error))) == may_pass(error)


DRILL = """
mount -t tmpfs -o size=400m tmpfs "$1" && shift
"$@" & run=$!
until ls "$STORAGE"/tiny/checkpoints/*/complete.json > /dev/null 2>&1; do
    kill -0 $run || exit 9
    sleep 0.1
done
cat /dev/zero > "$STORAGE"/filler 2> /dev/null
wait $run
code=$?
rm "$STORAGE"/filler
cp -r "$STORAGE"/tiny/checkpoints "$KEPT"
exit $code
"""


@pytest.mark.ray
@pytest.mark.timeout(500)
def test_a_disk_that_fills_up_ends_a_whole_run_at_once(tiny_corpora: Path, tmp_path: Path) -> None:
    """Two workers, of which only the first writes and the second waits for it, and any number of restarts allowed."""
    small = tmp_path / "small"
    small.mkdir()
    namespace = ["unshare", "--user", "--map-root-user", "--mount", "bash", "-c"]
    mount = ["mount -t tmpfs -o size=1m tmpfs " + str(small)]
    if shutil.which("unshare") is None or subprocess.run([*namespace, *mount], check=False).returncode:
        pytest.skip("this machine gives ordinary users no mount namespaces, so no small disk")
    fields = {
        "storage": str(small), "steps": 2000, "validate_every": 2000, "checkpoint.every": 1, "scale.workers": 2,
        "scale.max_failures": -1, **{f"data.corpora.{name}.root": tiny_corpora / name for name in ("bp4d", "dfew")},
    }  # fmt: skip
    train = [sys.executable, str(REPOSITORY / "jobs" / "train.py"), "--recipe=tiny"]
    train += [f"--{name}={value}" for name, value in fields.items()]
    environment = {**os.environ, "STORAGE": str(small), "KEPT": str(tmp_path / "kept"), "OMP_NUM_THREADS": "1"}
    environment.pop("RAY_ADDRESS", None)
    result = subprocess.run(
        [*namespace, DRILL, "drill", str(small), *train], env=environment, cwd=tmp_path, capture_output=True, text=True,
        timeout=400, check=False,
    )  # fmt: skip
    assert result.returncode == 1, result.stderr[-5000:]
    said = result.stderr.strip().splitlines()[-1]
    assert said.startswith("error: ")
    assert "No space left on device" in said
    assert f"complete checkpoints are kept in {small}/tiny" in said
    (tmp_path / "run").mkdir()
    (tmp_path / "kept").rename(tmp_path / "run" / "checkpoints")
    assert Checkpoints(open_storage(tmp_path / "run")).resume() is not None
