"""`/metrics`: what Ray's agent on this machine exports, reduced to the service's own and Serve's families."""

from __future__ import annotations

import asyncio
import urllib.error
import urllib.request

import ray

from serve.errors import Refusal

_FAMILIES = ("ray_ssm_", "ray_serve_")
_TIMEOUT_S = 5


async def node_metrics() -> bytes:
    """Metrics of this machine; 503 where Ray exports none."""
    return await asyncio.to_thread(_fetch)


def _fetch() -> bytes:
    here = ray.get_runtime_context().get_node_id()
    node = next(
        node
        for node in ray.nodes()  # type: ignore[no-untyped-call]
        if node["NodeID"] == here
    )
    address = f"http://{node['NodeManagerAddress']}:{node['MetricsExportPort']}/metrics"
    try:
        with urllib.request.urlopen(address, timeout=_TIMEOUT_S) as answer:
            return _ours(answer.read())
    except (urllib.error.URLError, TimeoutError) as error:
        raise Refusal(503, "Ray exports no metrics on this machine", retry_after=10) from error


def _ours(text: bytes) -> bytes:
    """The lines of our families, comments included."""
    kept = []
    for line in text.splitlines(keepends=True):
        words = line.split(b" ", 3)
        name = words[2] if line.startswith(b"#") and len(words) > 2 else words[0]
        if name.startswith(tuple(family.encode() for family in _FAMILIES)):
            kept.append(line)
    return b"".join(kept)
