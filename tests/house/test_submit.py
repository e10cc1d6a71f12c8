"""`ray job submit` for real: on a cluster with token authentication, from its own folder and from a laptop's.

The training job is submitted twice: the first time its head is killed under it, the second time it goes on.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from pages import documented

from ssm_platform.base.storage import open_storage
from ssm_platform.train.checkpoints import Checkpoints

REPOSITORY = Path(__file__).resolve().parents[2]
STEPS = 60
JOB = documented("training.md", "ray job submit -- python jobs/train.py")[3:]  # after `ray job submit`
SMALL = ["--recipe=tiny", f"--steps={STEPS}", f"--validate_every={STEPS}", "--checkpoint.every=2"]
MOST_UPLOADED = 4 * 2**20  # bytes; unpacked, but for the package's model; Ray's own limit is 500 MiB

pytestmark = [pytest.mark.ray, pytest.mark.timeout(400)]


def test_the_readmes_job_trains_on_after_its_head_was_killed(
    start_head: Any, head: Any, tiny_corpora: Path, tmp_path: Path
) -> None:
    """`ray job submit -- python jobs/train.py` at a tiny size; nothing is lost but the steps since a checkpoint."""
    roots = [f"--data.corpora.{name}.root={tiny_corpora / name}" for name in ("bp4d", "dfew")]
    words = [str(REPOSITORY / word) if word.startswith("jobs/") else word for word in JOB]
    job = (*words, *SMALL, f"--storage={tmp_path / 'runs'}", *roots)
    checkpoints = Checkpoints(open_storage(tmp_path / "runs" / "tiny"))
    with start_head() as mortal:
        assert mortal.submit("--no-wait", *job, cwd=REPOSITORY).returncode == 0
        until = time.monotonic() + 240
        while checkpoints.newest() is None and time.monotonic() < until:
            time.sleep(0.1)
        mortal.kill()
    kept = checkpoints.newest()
    assert kept is not None
    assert kept.step < STEPS

    result = head.submit(*job, cwd=REPOSITORY)

    assert result.returncode == 0, result.stdout[-3000:] + result.stderr[-2000:]
    assert "succeeded" in result.stdout
    order = json.loads((tmp_path / "runs" / "tiny" / "order.json").read_text())
    assert len(order["spans"]) > 1, "the second job did go on where a checkpoint of the first ends"
    assert json.loads((tmp_path / "runs" / "tiny" / "evaluation.json").read_text())["protocol"] == "clean"
    assert (tmp_path / "runs" / "tiny" / "model" / "model.safetensors").is_file()


def test_a_laptops_tree_is_sent_small_and_used(head: Any, tmp_path: Path) -> None:
    """With `--working-dir .` both packages come from the upload, not from what the cluster has installed."""
    look = tmp_path / "look.json"
    code = (
        "import json, pathlib, ssm, ssm_platform; "
        "files = [pathlib.Path(module.__file__) for module in (ssm, ssm_platform)]; "
        "sent = [f for file in files for f in file.parents[1].rglob('*.*') if f.is_file()]; "
        "size = sum(f.stat().st_size for f in sent if f.parent.name != 'shipped'); "
        f"pathlib.Path('{look}').write_text(json.dumps([*map(str, files), size]))"
    )
    words = documented("cluster.md", "ray job submit --working-dir")[3:]
    options = words[: words.index("--")]
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
