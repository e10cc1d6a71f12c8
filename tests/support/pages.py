"""Commands as the pages print them, for the tests that run them: what a page no longer says cannot be run."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

DOCS = Path(__file__).resolve().parents[2] / "docs"


def documented(page: str, start: str) -> list[str]:
    """The words of the first command on a page that starts so, without its comment."""
    for block in re.findall(r"^```\w*\n(.*?)^```", (DOCS / page).read_text(), re.DOTALL | re.MULTILINE):
        for line in block.replace("\\\n", " ").splitlines():
            if line.startswith(start):
                return shlex.split(line, comments=True)
    raise LookupError(f"docs/{page} holds no command that starts with {start!r}")
