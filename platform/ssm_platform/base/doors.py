"""How a command ends: its exit code, and one line where somebody stops it or stops listening."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import NoReturn

DONE, REFUSED, MISUSED, STOPPED = 0, 1, 2, 130
EXIT_CODES = (
    f"exit codes: {DONE} done; {REFUSED} refused, or an input failed; {MISUSED} a command line that is not understood; "
    f"{STOPPED} stopped by Ctrl-C"
)


def front_door(main: Callable[[], int | None]) -> NoReturn:
    """Run a command and leave the process with its code. Ctrl-C is one line; a reader that has gone is no error."""
    try:
        code = main()
        sys.stdout.flush()
        sys.exit(code)
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        sys.exit(STOPPED)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or the interpreter's last flush complains
        sys.exit(DONE)
