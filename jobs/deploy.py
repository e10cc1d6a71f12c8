"""Serve a model over HTTP: `python jobs/deploy.py [--model ALIAS|FOLDER] [--port N] [--field=value ...]`.

Run again with another model while the service is up, it changes over: new replicas start beside the old ones, and no
request fails. Stop it with Ctrl-C, or with `--detach` leave it on the cluster that `RAY_ADDRESS` names.
"""

from __future__ import annotations

import argparse
import signal
import socket
import sys

from serve.settings import Settings
from ssm_platform.base import format_fields, override, split_assignments

APPLICATION = "ssm"


def parse(arguments: list[str]) -> tuple[argparse.Namespace, Settings]:
    """The command line, and the settings it describes."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        epilog=f"fields (--field=value or --set field=value):\n{format_fields(Settings)}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--model", default="latest", help="folder of a saved model, or an alias or version (latest)")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (127.0.0.1)")
    parser.add_argument("--port", type=int, default=8000, help="port to listen on (8000)")
    parser.add_argument("--detach", action="store_true", help="leave the service on the cluster of RAY_ADDRESS")
    known, fields = parser.parse_known_args(arguments)
    return known, override(Settings(model=known.model), split_assignments(fields))


def deploy(arguments: list[str]) -> None:
    """Start or update the service and wait for Ctrl-C, or leave it running."""
    from ray import serve

    from serve.app import build
    from ssm_platform.cluster import joined

    known, settings = parse(arguments)
    application = build(settings)
    needed = settings.ingress.cpus + settings.video.cpus + settings.inference.cpus
    with joined(cpus=2 * needed, dashboard=False):
        _require_free(known.host, known.port)
        serve.start(http_options={"host": known.host, "port": known.port})
        serve.run(application, name=APPLICATION, route_prefix="/")
        print(f"serving on http://{known.host}:{known.port}/", flush=True)
        if not known.detach:
            signal.signal(signal.SIGTERM, signal.default_int_handler)
            try:
                signal.pause()
            finally:
                serve.shutdown()


def _require_free(host: str, port: int) -> None:
    """ValueError where another program listens there. The proxy of a service that is being changed over may."""
    from ray import serve

    if serve.status().proxies:
        return
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise ValueError(f"{host}:{port}: {error.strerror}; name another with --port or --host") from error


def main() -> None:
    try:
        deploy(sys.argv[1:])
    except ValueError as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        print("stopped")


if __name__ == "__main__":
    main()
