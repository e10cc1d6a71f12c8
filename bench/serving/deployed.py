"""The service as it is deployed: Ray, Serve and its replicas, behind the reverse proxy of `deploy/nginx.conf`."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager

from proxy import proxied
from subjects import APPLICATION

from serve.settings import Settings


@contextmanager
def deployed(settings: Settings, cpus: int = 8) -> Iterator[tuple[str, str]]:
    """The addresses of the proxy and of Serve behind it; everything ends with the block."""
    import ray
    from ray import serve

    from serve.app import build

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    ray.init(
        address="local",
        num_cpus=cpus,
        object_store_memory=256 * 2**20,
        include_dashboard=False,
        log_to_driver=False,
        logging_level="warning",
    )
    try:
        serve.start(http_options={"host": "127.0.0.1", "port": port})
        serve.run(build(settings), name=APPLICATION, route_prefix="/", logging_config={"log_level": "WARNING"})
        with proxied(port) as url:
            yield url, f"http://127.0.0.1:{port}"
    finally:
        serve.shutdown()
        ray.shutdown()
