"""The section "Add a method" of docs/methods.md, followed step by step in a copy of the sources."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

REPOSITORY = Path(__file__).parents[2]
NAMED = re.compile(r"`((?:ssm|platform)/[\w/]+\.py)`")


def test_the_steps_of_the_page_add_a_method(tmp_path: Path) -> None:
    page = (REPOSITORY / "docs" / "methods.md").read_text()
    section = page[page.index("## Add a method") :]
    for folder in ("ssm", "platform"):
        shutil.copytree(REPOSITORY / folder, tmp_path / folder, ignore=shutil.ignore_patterns("__pycache__"))
    written, check, place = [], "", ""
    for step in re.finditer(r"(?P<words>.*?)```(?P<kind>python|diff)\n(?P<code>.*?)```", section, re.DOTALL):
        named = NAMED.findall(step["words"])
        place = named[-1] if named else place
        if step["kind"] == "diff":
            _insert(tmp_path / place, step["code"])
        elif named:
            assert not (tmp_path / place).exists()
            (tmp_path / place).write_text(step["code"])
        else:
            check = step["code"]
            continue
        written.append(place)
    assert len(written) == 8, written
    path = f"{tmp_path}{os.pathsep}{tmp_path / 'platform'}"
    environment = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
    where = f"import ssm, ssm_platform.runs.config as runs\nassert ssm.__file__.startswith(r'{tmp_path}')\n"
    old = "assert runs._LATER['train.loss.jumps'] == 0.0\n"
    done = subprocess.run(
        [sys.executable, "-c", f"{where}{old}{check}"], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert check


def _insert(path: Path, diff: str) -> None:
    """Puts the lines with a plus behind the lines before them, which the file holds exactly once."""
    lines = diff.splitlines()
    context = "".join(f"{line[1:]}\n" for line in lines if not line.startswith("+"))
    added = "".join(f"{line[1:]}\n" for line in lines if line.startswith("+"))
    text = path.read_text()
    assert text.count(context) == 1, f"{path.name} holds {text.count(context)} times:\n{context}"
    path.write_text(text.replace(context, context + added))
