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
        self._begun: Counter[tuple[str, int]] = Counter()

    def begin(self, stream: str, block: int) -> int:
        """Notes a beginning of a stream's block; how many there were."""
        self._begun[stream, block] += 1
        return self._begun[stream, block]

    def end(self, stream: str, block: int) -> None:
        """Forgets a block that was done."""
        self._begun.pop((stream, block), None)


def ledger() -> Any:
    """The handle of a new one. It stays as long as the driver: Ray does not see the end of a handle that a dataset's
    function holds."""
    import ray

    return ray.remote(Ledger).options(num_cpus=0, max_restarts=-1, max_task_retries=-1).remote()
