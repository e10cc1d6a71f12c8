"""The model that comes with the package: it is the one that the page on real faces tells of, and as good as it says."""

from __future__ import annotations

import json
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from ssm_platform import Reader
from ssm_platform.models.shipped import LARGEST, shipped_model

REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def model() -> Path:
    found = shipped_model()
    assert found is not None
    return found


def test_it_is_small_and_the_one_that_the_page_names(model: Path) -> None:
    assert sum(path.stat().st_size for path in model.iterdir()) <= LARGEST
    assert Reader("shipped").model.version[:12] in (REPOSITORY / "docs" / "real_faces.md").read_text()
    assert {path.suffix for path in model.iterdir()} == {".md", ".json", ".safetensors"}


def test_it_is_as_good_as_it_says_on_faces_it_was_not_chosen_on(model: Path, shared_data: Path, tmp_path: Path) -> None:
    archive = shared_data / "fer2013.zip"
    if not archive.is_file():
        pytest.skip("fer2013.zip is absent")
    with zipfile.ZipFile(archive) as file:
        file.extractall(tmp_path, [name for name in file.namelist() if "/PrivateTest_" in name])
    command = [sys.executable, "bench/consistency.py", str(model), "--root", str(tmp_path)]
    options = ["--part", "PrivateTest", "--json", str(tmp_path / "said.json")]
    subprocess.run([*command, *options], cwd=REPOSITORY, check=True, timeout=300)
    (said,) = json.loads((tmp_path / "said.json").read_text())
    facts = json.loads((model / "config.json").read_text())["facts"]["metrics"]
    (stored,) = (side for side in facts["fe"] if side["corpus"] == "fer2013")
    assert said["accuracy"] == pytest.approx(stored["war"]["value"], abs=0.003)
    assert said["uar"] == pytest.approx(stored["uar"]["value"], abs=0.003)
    smile = {row["au"]: row["auc"] for row in said["consistency"] if row["linked"] == ["happiness"]}
    assert min(smile[6], smile[12]) >= 0.8
