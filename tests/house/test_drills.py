"""Drills that no other test holds: a disk that is really full. The list of all drills is docs/operations.md."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

FILL = """
import json, sys
import torch
from ssm_platform.checkpoints import CheckpointError, Checkpoints
from ssm_platform.storage import open_storage
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
