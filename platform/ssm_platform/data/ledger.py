"""How often each block of clips was begun: a clip that ends its decoder's process must end the job, not restart it for
ever.

Ray starts a decode process again as often as it dies, and gives it the block it died over again. Counting is done here,
outside of those processes; Ray Data's own bound on tries is among the arguments that it is to lose.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

TRIES = 4
"""Times that a block is begun before it is given up."""


class Ledger:
    """Runs as a Ray actor; plain for tests."""

    def __init__(self) -> None:
        self._begun: Counter[int] = Counter()

    def begin(self, block: int) -> int:
        """Notes a beginning; how many there were."""
        self._begun[block] += 1
        return self._begun[block]

    def end(self, block: int) -> None:
        """Forgets a block that was done."""
        self._begun.pop(block, None)


def ledger() -> Any:
    """The handle of a new one, for the decoders of one stream."""
    import ray

    return ray.remote(Ledger).options(num_cpus=0, max_restarts=-1, max_task_retries=-1).remote()
