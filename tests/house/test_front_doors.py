"""Front doors that only read or write files: what is absent or wrong is one line, and the exit code says which."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from ssm_platform.base.overrides import override
from ssm_platform.base.storage import open_storage
from ssm_platform.data.order import OrderHash
from ssm_platform.runs.preparation import prepare, training_plan
from ssm_platform.runs.recipes import tiny
from ssm_platform.train.building import run_reader
from ssm_platform.train.checkpoints import Checkpoints

REPOSITORY = Path(__file__).resolve().parents[2]


def job(name: str, *arguments: object, cwd: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(REPOSITORY / "jobs" / f"{name}.py"), *map(str, arguments)]
    return subprocess.run(command, cwd=cwd, env=os.environ, capture_output=True, text=True, timeout=200, check=False)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["manifests", "--settings", "absent.yaml"], "No such file or directory: 'absent.yaml'"),
        (["manifests", "--settings", "broken.yaml"], "broken.yaml: not YAML"),
        (["manifests", "--settings", "wrong.yaml"], "wrong.yaml: no_such_field"),
        (["synthesize", "bp4d"], "name the folder to write to"),
        (["synthesize", "bp4d", "out", "--spec", "absent.json"], "No such file or directory: 'absent.json'"),
        (["synthesize", "bp4d", "out", "--spec", "wrong.json"], "wrong.json: no_such_field"),
        (["synthesize", "bp4d", "full", "--preset", "tiny"], "is not empty and no synthetic corpus"),
        (["train", "--recipe", "absent.json"], "absent.json: a recipe in a file is JSON"),
        (
            ["evaluate", "run", "--people", "wrong.json"],
            'wrong.json:1: columns are {"no_such_field": 1}; one must be subject',
        ),
    ],
)
def test_what_is_absent_or_wrong_is_one_line(tmp_path: Path, arguments: list[str], message: str) -> None:
    (tmp_path / "broken.yaml").write_text("a: [")
    (tmp_path / "wrong.yaml").write_text("no_such_field: 1")
    (tmp_path / "wrong.json").write_text('{"no_such_field": 1}')
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").write_text("")
    result = job(*arguments, cwd=tmp_path)
    assert result.returncode == 1
    assert "Traceback" not in result.stderr
    assert result.stderr.rpartition("error: ")[1], result.stderr
    assert message in result.stderr


def used(folder: Path, tiny_corpora: Path, other: bool) -> None:
    """A run's folder after two steps, with the samples of its plan or with others."""
    places = {f"data.corpora.{name}.root": str(tiny_corpora / name) for name in ("bp4d", "dfew")}
    config = override(tiny(), places)
    prepared = prepare(config)
    plan, order = training_plan(config, prepared), OrderHash()

    reader = run_reader(config, prepared.train)
    for step in range(2):
        columns = reader.read(plan.rows(step, step + 1).columns())
        order.update(step, columns["row"], columns["sample"] + int(other))
    storage = open_storage(folder)
    storage.write("run.json", json.dumps({"config": config.model_dump(mode="json")}).encode())
    Checkpoints(storage).write({"position": {"order": order.state}}, 2, "", None)


def test_a_proof_tells_other_samples_from_what_could_not_be_checked(tiny_corpora: Path, tmp_path: Path) -> None:
    used(tmp_path / "good", tiny_corpora, other=False)
    used(tmp_path / "bad", tiny_corpora, other=True)
    good, bad, absent, nowhere = (job("verify", run, cwd=tmp_path) for run in ("good", "bad", "absent", "gs://x"))
    assert (good.returncode, bad.returncode, absent.returncode, nowhere.returncode) == (0, 1, 2, 2)
    assert "each used exactly once" in good.stdout
    assert "other samples were used" in bad.stderr
    assert "could not check: " in absent.stderr
    assert "no run here" in absent.stderr
    assert "gs://x: storage is a folder or s3" in nowhere.stderr
