"""`/metrics`: what Ray exports on all machines of the cluster, reduced to the service's own and Serve's families.

One answer for the whole cluster, so that it is true whichever ingress replica a balancer asks: samples name their
replica, and families that several machines have are joined under one heading.
"""

from __future__ import annotations

import asyncio
import urllib.request
from http.client import HTTPException

import ray

from serve.errors import Refusal

_FAMILIES = (b"ray_ssm_", b"ray_serve_")
_TIMEOUT_S = 5


async def cluster_metrics() -> bytes:
    """Metrics of all machines that answer; 503 where none does."""
    addresses = await asyncio.to_thread(_addresses)
    texts = await asyncio.gather(*(asyncio.to_thread(_fetch, address) for address in addresses))
    found = [text for text in texts if text is not None]
    if not found:
        raise Refusal(503, "Ray exports no metrics here", retry_after=10)
    return joined(found)


def _addresses() -> list[str]:
    nodes = ray.nodes()  # type: ignore[no-untyped-call]
    return [
        f"http://{node['NodeManagerAddress']}:{node['MetricsExportPort']}/metrics" for node in nodes if node["Alive"]
    ]


def _fetch(address: str) -> bytes | None:
    try:
        with urllib.request.urlopen(address, timeout=_TIMEOUT_S) as answer:
            return bytes(answer.read())
    except (OSError, HTTPException):  # nobody there, or somebody who hangs up halfway
        return None


def joined(texts: list[bytes]) -> bytes:
    """The samples of our families from several texts, each family once, its comments first."""
    families: dict[bytes, tuple[list[bytes], dict[bytes, None]]] = {}
    for text in texts:
        family = b""
        for line in text.splitlines():
            if line.startswith(b"# "):
                family = line.split(b" ", 3)[2]
            if not family.startswith(_FAMILIES):
                continue
            comments, samples = families.setdefault(family, ([], {}))
            if not line.startswith(b"#"):
                samples[line] = None
            elif line.split(b" ", 2)[1] not in {known.split(b" ", 2)[1] for known in comments}:
                comments.append(line)
    lines = [line for comments, samples in families.values() for line in (*comments, *samples)]
    return b"".join(line + b"\n" for line in lines)
