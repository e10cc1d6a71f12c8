"""Commands as the pages print them, for the tests that run them: what a page no longer says cannot be run."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]


def documented(page: str, start: str) -> list[str]:
    """The words of the first command on a page that starts so, without its comment."""
    place = REPOSITORY if page == "README.md" else REPOSITORY / "docs"
    for block in re.findall(r"^```\w*\n(.*?)^```", (place / page).read_text(), re.DOTALL | re.MULTILINE):
        for line in block.replace("\\\n", " ").splitlines():
            if line.removeprefix("$ ").startswith(start):
                return shlex.split(line.removeprefix("$ "), comments=True)
    raise LookupError(f"{page} holds no command that starts with {start!r}")
