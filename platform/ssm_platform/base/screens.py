"""Who reads standard error: a screen, where a bar is drawn over itself, or a log, which wants plain lines."""

from __future__ import annotations

import sys


def has_screen() -> bool:
    """True at a terminal and in a notebook, whose output redraws a line too but is no terminal."""
    return sys.stderr.isatty() or type(sys.stderr).__module__.partition(".")[0] == "ipykernel"
