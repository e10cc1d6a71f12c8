"""The tutorial notebook, executed from top to bottom at its tiny size on a local cluster of its own."""

from __future__ import annotations

from pathlib import Path

import nbformat
import pandas as pd
import pytest
from nbclient import NotebookClient

from ssm_platform.models.registry import Registry
from ssm_platform.runs.recipes import recipe

NOTEBOOK = Path(__file__).resolve().parents[2] / "notebooks" / "tune.ipynb"

pytestmark = [pytest.mark.ray, pytest.mark.timeout(900)]


def test_the_tutorial_runs_and_leaves_what_it_promises(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSM_NOTEBOOK_SIZE", "tiny")
    monkeypatch.setenv("SSM_NOTEBOOK_STORAGE", str(tmp_path))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    monkeypatch.chdir(tmp_path)
    NotebookClient(notebook, timeout=600, kernel_name="python3").execute()

    sweep = tmp_path / "notebook-tiny"
    settings = pd.read_parquet(sweep / "settings.parquet")
    assert settings["finished"].tolist() == [1, 1]
    assert set(settings["model.text.style"]) == {"label", "facs"}
    assert recipe(str(sweep / "best.json")).model.text.style == settings["model.text.style"][0]
    assert len(Registry(tmp_path / "registry").versions()) == 2, "the best trial, and the winner trained for longer"
    shown = [output.data for cell in notebook.cells for output in cell.get("outputs", []) if "data" in output]
    assert sum("image/svg+xml" in data for data in shown) == 2
    assert sum("image/png" in data for data in shown) == 1, "the AU timeline"
