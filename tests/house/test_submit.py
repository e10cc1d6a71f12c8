"""`ray job submit` for real: on a cluster with token authentication, from its own folder and from a laptop's."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
TRAIN = ["python", str(REPOSITORY / "jobs" / "train.py"), "--recipe=tiny", "--steps=2", "--validate_every=2"]
MOST_UPLOADED = 4 * 2**20  # bytes; unpacked; Ray's own limit is 500 MiB

pytestmark = [pytest.mark.ray, pytest.mark.timeout(400)]


def test_the_job_of_the_mission_trains(head: Any, tmp_path: Path) -> None:
    """`ray job submit -- python jobs/train.py`, at a tiny size, with token authentication on."""
    result = head.submit("--", *TRAIN, f"--storage={tmp_path}", cwd=REPOSITORY)
    assert result.returncode == 0, result.stdout[-3000:] + result.stderr[-2000:]
    assert "succeeded" in result.stdout
    assert json.loads((tmp_path / "tiny" / "evaluation.json").read_text())["protocol"] == "clean"
    assert (tmp_path / "tiny" / "model" / "model.safetensors").is_file()


def test_a_laptops_tree_is_sent_small_and_used(head: Any, tmp_path: Path) -> None:
    """With `--working-dir .` both packages come from the upload, not from what the cluster has installed."""
    look = tmp_path / "look.json"
    code = (
        "import json, pathlib, ssm, ssm_platform; "
        "files = [pathlib.Path(module.__file__) for module in (ssm, ssm_platform)]; "
        "size = sum(f.stat().st_size for file in files for f in file.parents[1].rglob('*.*') if f.is_file()); "
        f"pathlib.Path('{look}').write_text(json.dumps([*map(str, files), size]))"
    )
    options = ("--working-dir", ".", "--runtime-env", "deploy/runtime_env.yaml")
    result = head.submit(*options, "--", "python", "-c", code, cwd=REPOSITORY)
    assert result.returncode == 0, result.stdout[-3000:] + result.stderr[-2000:]
    *files, size = json.loads(look.read_text())
    assert all("runtime_resources" in file for file in files), files
    assert size < MOST_UPLOADED, f"{size} bytes were sent: exclude what a cluster does not need"


def test_without_the_token_nobody_gets_in(head: Any, tmp_path: Path) -> None:
    wrong = tmp_path / "token"
    wrong.write_text("0" * 64)
    stranger = {**head.environment, "RAY_AUTH_TOKEN_PATH": str(wrong)}
    ray = Path(sys.executable).with_name("ray")
    result = subprocess.run(
        [str(ray), "job", "submit", "--address", head.dashboard, "--", "echo", "let-me-in"],
        env=stranger, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert result.returncode != 0
    assert re.search("401|403|[Uu]nauth|[Aa]uthenticat", result.stdout + result.stderr)
