"""Serve a model over HTTP: `python jobs/deploy.py [--model ALIAS|FOLDER] [--port N] [--field=value ...]`.

Run again with another model while the service is up, it changes over and ends: new replicas start beside the old ones,
and no request fails. That needs no address where the first one runs on this machine, by this user and on this port.
Ctrl-C removes the service; `--detach` leaves it on the cluster that `RAY_ADDRESS` names.
"""

from __future__ import annotations

import argparse
import os
import signal
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from serve.settings import Settings
from ssm_platform.base import format_fields, front_door, override, part_path, split_assignments

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
    from ssm_platform.cluster import joined, will_join

    known, settings = parse(arguments)
    if known.detach and not will_join():
        raise ValueError("--detach leaves the service on a cluster, and RAY_ADDRESS names none")
    updating = not will_join() and _join_running(known.port)  # before Ray is imported: it reads the environment then

    from ray import serve

    from serve.app import build

    application = build(settings)
    needed = settings.ingress.cpus + settings.video.cpus + settings.inference.cpus
    with joined(cpus=2 * needed, metrics=True):
        _require_free(known.host, known.port)
        serve.start(http_options={"host": known.host, "port": known.port})
        serve.run(application, name=APPLICATION, route_prefix="/")
        print(f"{'updated' if updating else 'serving on'} http://{known.host}:{known.port}/", flush=True)
        if not known.detach and not updating:
            _serve_until_stopped(known.port)


def _serve_until_stopped(port: int) -> None:
    """Wait for Ctrl-C, then remove our application: others may run on the same cluster."""
    from ray import serve

    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        with _findable(port):
            signal.pause()
    finally:
        serve.delete(APPLICATION)


def _note(port: int) -> Path:
    """Where a running service leaves its cluster's address for the next deploy: beside Ray's own token."""
    return Path.home() / ".ray" / f"ssm-serving-{port}"


@contextmanager
def _findable(port: int) -> Iterator[None]:
    """For the block, the next deploy on this machine finds this service's cluster, where a home can be written."""
    import ray

    note = _note(port)
    with suppress(OSError):
        note.parent.mkdir(mode=0o700, exist_ok=True)
        part = part_path(note)
        part.write_text(str(ray.get_runtime_context().gcs_address))
        part.replace(note)
    try:
        yield
    finally:
        with suppress(OSError):
            note.unlink(missing_ok=True)


def _join_running(port: int) -> bool:
    """Whether a service of ours runs on this machine and port; then its cluster is the one to join."""
    try:
        address = _note(port).read_text()
        host, _, gcs = address.rpartition(":")
        socket.create_connection((host, int(gcs)), timeout=2).close()
    except (OSError, ValueError):  # none was started, or it was killed
        return False
    os.environ["RAY_ADDRESS"] = address
    if (Path.home() / ".ray" / "auth_token").exists():  # a cluster of ours asks for it, a driver sends it when told
        os.environ.setdefault("RAY_AUTH_MODE", "token")
    return True


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
    front_door(main)
