"""Importing does nothing to the world, and `ssm` needs no Ray: checked in fresh interpreters."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
SOURCES = {"ssm": "ssm", "ssm_platform": "platform/ssm_platform", "serve": "serve"}

BLOCK = """
import sys
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {blocked!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}} (blocked by the test)", name=name)
sys.meta_path.insert(0, Absent())
"""

QUIET = """
import importlib, os, sys, threading, warnings
warnings.simplefilter("ignore")  # what other packages say of themselves is theirs to mend
warnings.filterwarnings("error", module=r"(ssm|ssm_platform|serve)(\\.|$)")
before = set(os.listdir("."))
for name in {modules!r}:
    importlib.import_module(name)
import torch
assert not torch.cuda.is_initialized(), "importing touched the accelerator"
if "ray" in sys.modules:
    assert not sys.modules["ray"].is_initialized(), "importing started or joined a cluster"
assert set(os.listdir(".")) == before, "importing wrote files"
assert threading.active_count() <= 2, [thread.name for thread in threading.enumerate()]
"""


def modules(package: str) -> list[str]:
    """Every module below `package`, by dotted name."""
    root = REPOSITORY / SOURCES[package]
    files = sorted(root.rglob("*.py"))
    names = [".".join((package, *file.relative_to(root).with_suffix("").parts)) for file in files]
    return [name.removesuffix(".__init__") for name in names]


def run(code: str, folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=240, cwd=folder)


def test_importing_every_module_has_no_effect(tmp_path: Path) -> None:
    names = [name for package in SOURCES for name in modules(package)]
    assert len(names) > 10
    result = run(QUIET.format(modules=names), tmp_path)
    assert result.returncode == 0, result.stderr[-3000:]
    assert result.stdout == ""
    assert result.stderr == ""


def test_ssm_needs_no_ray(tmp_path: Path) -> None:
    blocked = {"ray", "fastapi", "boto3", "pyarrow", "ssm_platform", "serve"}
    code = (
        BLOCK.format(blocked=blocked)
        + f"import importlib\nfor name in {modules('ssm')!r}: importlib.import_module(name)"
    )
    result = run(code, tmp_path)
    assert result.returncode == 0, result.stderr[-3000:]


def test_the_folder_platform_does_not_shadow_the_standard_library(tmp_path: Path) -> None:
    assert not (REPOSITORY / "platform" / "__init__.py").exists()
    assert not (REPOSITORY / "jobs" / "serve.py").exists()
    result = run("import platform, ssm_platform; print(platform.system())", REPOSITORY)
    assert result.stdout.strip() == "Linux", result.stderr
