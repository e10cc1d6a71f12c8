"""How a driver joins or starts Ray, and what the cluster it got can do.

Inside a submitted job, or where `RAY_ADDRESS` names a cluster, the driver joins it; otherwise it starts a local
cluster of its own, declared just large enough for what the run asks (CPUs are Ray's bookkeeping, not a limit on the
cores), and ends it on leaving. A cluster that is already joined is used as it is and left alone.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

_GIB = 2**30
_STORE_BYTES = (80 * 2**20, 2 * _GIB)


@dataclass(frozen=True)
class ClusterSize:
    """What the joined cluster declares in total."""

    cpus: float
    gpus: float
    nodes: int


@contextmanager
def joined(cpus: float, *, dashboard: bool = True) -> Iterator[ClusterSize]:
    """Joins Ray for the body of a `with`; a local cluster of its own declares at least `cpus` CPUs."""
    import ray

    owned = not ray.is_initialized()
    if owned:
        _start_or_join(cpus, dashboard)
    try:
        yield _measured()
    finally:
        if owned:
            ray.shutdown()


def _measured() -> ClusterSize:
    import ray

    resources: dict[str, float] = ray.cluster_resources()  # type: ignore[no-untyped-call]
    nodes = len(ray.nodes())  # type: ignore[no-untyped-call]
    return ClusterSize(cpus=resources.get("CPU", 0.0), gpus=resources.get("GPU", 0.0), nodes=nodes)


def will_join() -> bool:
    """Whether the driver would join a running cluster rather than start one."""
    return bool(os.environ.get("RAY_ADDRESS"))


def _start_or_join(cpus: float, dashboard: bool) -> None:
    import ray

    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_USAGE_STATS_REPORT_URL", "http://127.0.0.1:9")  # silences the one ping at start
    os.environ.setdefault("RAY_TRAIN_V2_ENABLED", "1")
    os.environ.setdefault("RAY_DATA_LOG_LEVEL", "WARNING")
    if will_join():
        ray.init(address="auto", logging_level=logging.WARNING)
        return
    ray.init(
        address="local",
        num_cpus=max(os.cpu_count() or 1, int(-(-cpus // 1))),
        object_store_memory=_store_bytes(),
        include_dashboard=dashboard,
        logging_level=logging.WARNING,
    )


def _store_bytes() -> int:
    """A fifth of the memory, within bounds: clips in flight are small, and a small machine must stay usable."""
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return int(min(max(total // 5, _STORE_BYTES[0]), _STORE_BYTES[1]))
