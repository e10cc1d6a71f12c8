"""Which errors end a run at once, and how Ray Train is brought to let it end.

Ray Train starts its workers again after any exception, `scale.max_failures` times. What the same steps would meet
again (a loss that diverged, a full disk, too many clips that cannot be read) is raised as `RunEnded`, and a hook in
Ray Train's controller ends the run at the first worker that raises it. That also ends peers that wait for this worker
in a collective: had it returned its error instead, they would wait until the collective's own deadline, half an hour.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ray.train import UserCallback

from ssm_platform.base import MissingKey, StorageError
from ssm_platform.train.checkpoints import CheckpointError, is_full


class RunEnded(ValueError):
    """A run that would end the same way however often it is started again; the message says why."""


def may_pass(error: ValueError | OSError) -> bool:
    """Whether a restart may help: what is away comes back; what is wrong with data, settings or a full disk stays."""
    if isinstance(error, OSError):
        return not is_full(error)
    if isinstance(error, CheckpointError):
        return not error.final
    return isinstance(error, StorageError) and not isinstance(error, MissingKey)


class EndAtOnce(UserCallback):
    """Ray Train's hook: runs in its controller when workers have raised."""

    def after_exception(self, run_context: Any, worker_exceptions: Mapping[int, Exception]) -> None:
        """Raises a `RunEnded` among the exceptions: what a hook raises is not tried again."""
        for error in worker_exceptions.values():
            if isinstance(error, RunEnded):
                raise error
