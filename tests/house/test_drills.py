"""Drills that no other test holds: a disk that is really full, an object store that goes away under a whole run.

All drills, with these: docs/operations.md.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import boto3
import pytest
from moto.server import ThreadedMotoServer

from ssm_platform.base.storage import open_storage
from ssm_platform.train.checkpoints import Checkpoints

REPOSITORY = Path(__file__).resolve().parents[2]
FILL = """
import json, sys
import torch
from ssm_platform.train.checkpoints import CheckpointError, Checkpoints
from ssm_platform.base.storage import open_storage
checkpoints = Checkpoints(open_storage(sys.argv[1]), keep=1, deadline=3600)
for step in range(1, 100):
    try:
        checkpoints.write({"weight": torch.full((20_000 * step,), float(step))}, step, "run", None)
    except CheckpointError as error:
        said = str(error)
        break
marker, state = checkpoints.resume()
print(json.dumps({"failed": step, "said": said, "kept": marker.step, "weight": float(state["weight"][0])}))
"""


@pytest.fixture
def on_a_small_disk(tmp_path: Path) -> list[str]:
    """The beginning of a command that sees a disk of 1 MiB at `tmp_path`; only its own processes do."""
    enter = ["unshare", "--user", "--map-root-user", "--mount", "bash", "-c"]
    mount = f"mount -t tmpfs -o size=1m tmpfs {tmp_path}"
    if shutil.which("unshare") is None or subprocess.run([*enter, mount], capture_output=True, check=False).returncode:
        pytest.skip("this machine gives ordinary users no mount namespaces, so no small disk")
    return [*enter, f'{mount} && exec "$@"', "bash"]


def test_a_full_disk_ends_the_write_at_once_and_the_last_good_checkpoint_is_kept(
    on_a_small_disk: list[str], tmp_path: Path
) -> None:
    """With an hour of patience: a full disk is not waited for."""
    result = subprocess.run(
        [*on_a_small_disk, sys.executable, "-c", FILL, str(tmp_path)], capture_output=True, text=True, timeout=60,
        check=False,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr[-2000:]
    found = json.loads(result.stdout)
    assert "No space left on device; free space or change storage" in found["said"]
    assert found["kept"] == found["weight"] == found["failed"] - 1


@pytest.mark.ray
@pytest.mark.timeout(500)
def test_a_run_outlives_an_outage_of_its_object_store(
    tiny_corpora: Path, tmp_path: Path, unused_port: Callable[[], int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Everything of the run lies in S3, which is gone for five seconds after the first checkpoint."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=unused_port(), verbose=False)
    server.start()
    settings = {
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{server.get_host_and_port()[1]}",
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "hush-hush",
        "AWS_DEFAULT_REGION": "us-east-1",
        "SSM_STORAGE": "s3://drill/runs",
    }
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    boto3.client("s3").create_bucket(Bucket="drill")
    roots = [f"--data.corpora.{name}.root={tiny_corpora / name}" for name in ("bp4d", "dfew")]
    command = [sys.executable, str(REPOSITORY / "jobs" / "train.py"), "--recipe=tiny", "--steps=20", *roots]
    log = tmp_path / "log"
    with log.open("w") as output:
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        run = subprocess.Popen(command, env=environment, stdout=output, stderr=output, cwd=tmp_path)
        try:
            checkpoints = Checkpoints(open_storage("s3://drill/runs/tiny"))
            while checkpoints.newest() is None:
                assert run.poll() is None, log.read_text()[-5000:]
                time.sleep(0.2)
            server.stop()
            time.sleep(5)
            server.start()
            assert run.wait(timeout=300) == 0, log.read_text()[-5000:]
        finally:
            run.kill()
            run.wait()
            server.stop()
    assert "model: s3://drill/runs/tiny/model" in log.read_text()
    assert "hush-hush" not in log.read_text()
