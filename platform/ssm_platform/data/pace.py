"""Keeps Ray Data's scheduler from eating a core while training is slower than decoding, and Ray's advice off a screen.

Ray 2.60's streaming executor goes round its loop without a pause whenever finished blocks wait for room (`ray.wait`
returns at once) or no task is active: measured 85 to 100 % of a core for the whole run, on two cores half of
training. Its callback at the end of each turn is where a turn can be made to last; what is ready is handled all at
once, so throughput stays.

Ray's node process tells every driver, whatever `log_to_driver` says, that many worker processes have been started: four
times the number of cores, which on two cores are eight, fewer than a small sweep has. And where a stream is left before
its end, that it killed the decode processes. What else it tells (memory that runs out, a node that is lost) is shown.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from functools import wraps
from typing import Any, cast

import ray
from ray._private import worker
from ray.data import DataContext, DataIterator
from ray.data._internal.execution.execution_callback import ExecutionCallback

_TURN = 0.1  # seconds; blocks wait in the queues of actors and iterators meanwhile
_ADVICE = ("PYTHON worker processes have been started", "because it was killed by `ray.kill`")


class Pace(ExecutionCallback):
    """Makes every turn of the scheduling loop last at least a tenth of a second."""

    def __init__(self) -> None:
        self._last = 0.0

    def on_execution_step(self, executor: Any) -> None:
        """Sleeps for the rest of the turn."""
        rest = self._last + _TURN - time.monotonic()
        if rest > 0:
            time.sleep(rest)
        self._last = time.monotonic()


def end(shard: DataIterator) -> None:
    """Ends the process that dealt out a stream which everybody has read: Ray Train keeps it to the end of the run, and
    each holds some 200 MB."""
    ray.kill(cast(Any, shard)._coord_actor)


def without_advice() -> None:
    """Drops that line of Ray's in this process from now on."""
    if not hasattr(worker.print_to_stdstream, "__wrapped__"):
        worker.print_to_stdstream = _sifted(worker.print_to_stdstream)


def _sifted(show: Callable[..., None]) -> Callable[..., None]:
    @wraps(show)
    def shown(data: Mapping[str, Any], *args: Any, **kwargs: Any) -> None:
        if not any(advice in str(line) for line in data["lines"] for advice in _ADVICE):
            show(data, *args, **kwargs)

    return shown


def keep_pace() -> None:
    """Registers `Pace` with the current `DataContext`, once, and leaves the screen to the run's own bar."""
    without_advice()
    context = DataContext.get_current()
    context.enable_progress_bars = False
    context.issue_detectors_config.detectors = []  # they compare a process with its pixels and advise on torch's size
    if Pace not in context.custom_execution_callback_classes:
        context.custom_execution_callback_classes.append(Pace)
