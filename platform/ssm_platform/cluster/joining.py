"""How a driver joins or starts Ray, and what the cluster it got can do.

Inside a submitted job, or where `RAY_ADDRESS` names a cluster, the driver joins it; otherwise it starts a local
cluster of its own, declared just large enough for what the run asks (CPUs are Ray's bookkeeping, not a limit on the
cores), and ends it on leaving. A cluster that is already joined is used as it is and left alone.
"""

from __future__ import annotations

import logging
import os
import platform
import re
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from ssm_platform.base import ready_places
from ssm_platform.cluster.allocator import GIVES_BACK

_GIB = 2**30
_STORE_BYTES = (80 * 2**20, 2 * _GIB)
_SETTINGS = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_USAGE_STATS_REPORT_URL": "http://127.0.0.1:9",  # silences the one ping at start
    "RAY_TRAIN_V2_ENABLED": "1",
    "RAY_DATA_LOG_LEVEL": "WARNING",
}
_OWN_SETTINGS = {
    "RAY_worker_niceness": "0",  # as the user's own; at Ray's 15 any busy process beside a run slowed it ten-fold
    "OMP_WAIT_POLICY": "passive",  # a thread that spins at a barrier takes the core that the one it waits for needs
}
"""Of a cluster of our own. All of them may be set from outside."""
_UNWATCHED = {"RAY_enable_metrics_collection": "0"}
"""Of one that exports nothing: collecting what nobody reads took a twentieth of a core."""
_NOBODY = "no cluster answers there: start one with `ray start --head`, or unset RAY_ADDRESS to start one of our own"
_CLUSTERS_VERSION = re.compile(r"started with:\s+Ray: (?P<ray>\S+)\s+Python: (?P<python>\S+)")


class ClusterError(ValueError):
    """The cluster of `RAY_ADDRESS` cannot be joined; the message says how to mend it."""


@dataclass(frozen=True)
class Node:
    """What one node declares."""

    cpus: float
    gpus: float


@dataclass(frozen=True)
class ClusterSize:
    """What the nodes of the joined cluster declare: a worker or a decode process fits on one of them or nowhere."""

    each: tuple[Node, ...]

    @property
    def cpus(self) -> float:
        """CPUs of all nodes together."""
        return sum(node.cpus for node in self.each)

    @property
    def gpus(self) -> float:
        """GPUs of all nodes together."""
        return sum(node.gpus for node in self.each)

    @property
    def largest(self) -> float:
        """CPUs of the node that has most."""
        return max((node.cpus for node in self.each), default=0.0)

    def room(self, cpus: float, gpus: float = 0.0) -> int:
        """How many processes of that size fit, node by node, as Ray Train's elastic policy counts them."""
        return int(sum(min(node.cpus // cpus, node.gpus // gpus if gpus else node.cpus // cpus) for node in self.each))


@contextmanager
def joined(cpus: float, *, store_bytes: int = 0, metrics: bool = False) -> Iterator[ClusterSize]:
    """Joins Ray for the body of a `with`; a local cluster of its own declares at least `cpus` CPUs and, for clips in
    flight, at least `store_bytes` of memory. It has no dashboard, whose ten processes take longer to start than Ray.
    `metrics`: it exports Ray's figures and gives memory back, as serving wants.
    """
    ready_places(sockets=not will_join())
    import ray

    owned = not ray.is_initialized()
    if owned:
        _start_or_join(cpus, store_bytes, metrics)
    try:
        yield _measured()
    finally:
        if owned:
            ray.shutdown()


def _measured() -> ClusterSize:
    import ray

    nodes: list[dict[str, Any]] = ray.nodes()  # type: ignore[no-untyped-call]
    alive = [node["Resources"] for node in nodes if node["Alive"]]
    return ClusterSize(tuple(Node(one.get("CPU", 0.0), one.get("GPU", 0.0)) for one in alive))


def will_join() -> bool:
    """Whether the driver would use a running cluster, or has joined one, rather than start its own."""
    ray = sys.modules.get("ray")  # not imported: nobody has joined
    return bool(os.environ.get("RAY_ADDRESS")) or (ray is not None and ray.is_initialized())


def _start_or_join(cpus: float, store_bytes: int, metrics: bool) -> None:
    import ray

    own = _OWN_SETTINGS | (GIVES_BACK if metrics else _UNWATCHED)
    for name, value in (_SETTINGS if will_join() else _SETTINGS | own).items():
        os.environ.setdefault(name, value)
    if will_join():
        _join()
        return
    ray.init(
        address="local",
        num_cpus=max(os.cpu_count() or 1, int(-(-cpus // 1))),
        object_store_memory=max(store_bytes, _store_bytes()),
        include_dashboard=False,
        logging_level=logging.ERROR,
        log_to_driver=False,  # what our workers have to say comes by other ways (`train.progress`); the rest is Ray's
    )


def _join() -> None:
    import ray
    from ray.exceptions import RayError

    address = os.environ["RAY_ADDRESS"]
    if not _answers(address):
        raise ClusterError(f"RAY_ADDRESS={address}: {_NOBODY}")
    try:
        ray.init(address="auto", logging_level=logging.WARNING, log_to_driver=False)
    except (ConnectionError, RuntimeError, RayError) as error:
        raise ClusterError(f"RAY_ADDRESS={address}: {_mend(error)}") from error


def _answers(address: str) -> bool:
    """Whether somebody listens at `host:port`; Ray itself ends the process where nobody does. Other forms: yes."""
    host, _, port = address.rpartition(":")
    if not host or not port.isdigit():
        return True
    try:
        socket.create_connection((host, int(port)), timeout=10).close()
    except OSError:
        return False
    return True


def _mend(error: BaseException) -> str:
    """One line for what `ray.init` met: a refused token, another version, or else Ray's own."""
    from ray import __version__ as ours

    met = ""
    cause: BaseException | None = error
    while cause is not None:
        met, cause = f"{met}\n{cause!r}\n{cause}", cause.__cause__
    if "AuthenticationError" in met:  # sometimes only as the text of another error
        return (
            "the cluster does not take our token: copy ~/.ray/auth_token from its head to ~/.ray/auth_token here, "
            "or name a file with it in RAY_AUTH_TOKEN_PATH"
        )
    if found := _CLUSTERS_VERSION.search(met):
        return (
            f"the cluster runs Ray {found['ray']} on Python {found['python']}, we are Ray {ours} on Python "
            f"{platform.python_version()}: install the same here, or unset RAY_ADDRESS to start one of our own"
        )
    reason = str(error).strip().splitlines() or [type(error).__name__]
    return f"{reason[0]}; if the cluster is gone, start one with `ray start --head`, or unset RAY_ADDRESS"


def _store_bytes() -> int:
    """A fifth of the memory, within bounds, where nobody needs more: a small machine must stay usable."""
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return int(min(max(total // 5, _STORE_BYTES[0]), _STORE_BYTES[1]))
