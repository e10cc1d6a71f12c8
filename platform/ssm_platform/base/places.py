"""Places that everything below takes for granted: a home, a temporary folder short enough for sockets, a user's name.

`ready_places` runs before Ray starts. What it can mend it mends in the environment of this process and its children;
for the rest it says in one line which variable to set. `part_path` names the scratch file of a file to be written.
"""

from __future__ import annotations

import getpass
import hashlib
import os
import tempfile
from pathlib import Path

_SOCKET_BYTES = 107  # the longest path of a socket on Linux
_RAYS_OWN = len("/ray/session_2026-01-01_00-00-00_000000_4194304/sockets/plasma_store")
_SHORT = ("/tmp", "/var/tmp", "/dev/shm")


def ready_places(sockets: bool = True) -> None:
    """ValueError names the variable where a place cannot be mended from here. `sockets`: a cluster is to start here."""
    _ready_user()
    if sockets:
        _ready_temporary()
    _ready_home()


def part_path(path: Path, ending: str = "") -> Path:
    """A hidden name beside `path` for what is not whole yet: short whatever the name, one per process."""
    short = hashlib.blake2b(os.fsencode(path.name), digest_size=6).hexdigest()
    return path.with_name(f".{short}.{os.getpid()}.part{ending}")


def cache_folder() -> Path:
    """Where copies may be kept: `XDG_CACHE_HOME`, else `~/.cache`, else below the temporary folder."""
    named = os.environ.get("XDG_CACHE_HOME")
    home = _home()
    if named:
        return Path(named)
    return home / ".cache" if home is not None and _writable(home) else _private()


def _ready_user() -> None:
    try:
        getpass.getuser()
    except (KeyError, OSError):  # no entry in passwd and no variable: Ray, torch and others ask for a name
        os.environ["USER"] = os.environ["LOGNAME"] = f"uid{os.getuid()}"


def _ready_temporary() -> None:
    """Ray's sockets lie below RAY_TMPDIR, else TMPDIR: a long one (as SLURM gives) is left for a short one."""
    try:
        usual = tempfile.gettempdir()
    except FileNotFoundError as error:
        raise ValueError("no temporary folder can be written: set TMPDIR to one that can") from error
    named = os.environ.get("RAY_TMPDIR")
    if named is not None:
        if not _fits(named) or not _made(Path(named)):
            most = _SOCKET_BYTES - _RAYS_OWN
            raise ValueError(
                f"RAY_TMPDIR={named}: set it to a folder that can be written, of at most {most} characters"
            )
        return
    if _fits(os.environ.get("TMPDIR", usual)) and _writable(Path(os.environ.get("TMPDIR", usual))):
        return
    short = next((place for place in (usual, *_SHORT) if _fits(place) and _writable(Path(place))), None)
    if short is None:
        raise ValueError(f"TMPDIR={usual}: too long for Ray's sockets; set RAY_TMPDIR to a short folder")
    os.environ["RAY_TMPDIR"] = short


def _ready_home() -> None:
    """A home that is not there is replaced; one that cannot be written keeps its role, only caches go elsewhere."""
    home = _home()
    if home is not None and _writable(home):
        return
    place = _private()
    if home is None or not home.is_dir():
        os.environ["HOME"] = str(place)
    for name in ("XDG_CACHE_HOME", "XDG_CONFIG_HOME", "MPLCONFIGDIR", "HF_HOME", "TORCH_HOME"):
        os.environ.setdefault(name, str(place / name.lower()))


def _home() -> Path | None:
    try:
        return Path.home()
    except RuntimeError:
        return None


def _private() -> Path:
    """A folder of this user's own below the temporary one."""
    place = Path(tempfile.gettempdir()) / f"ssm-home-{os.getuid()}"
    try:
        place.mkdir(mode=0o700, exist_ok=True)
    except OSError as error:
        raise ValueError(f"{place}: {error.strerror}; set HOME to a folder that can be written") from error
    if place.stat().st_uid != os.getuid():
        raise ValueError(f"{place}: belongs to another user; set HOME to a folder that can be written")
    return place


def _fits(place: str) -> bool:
    return len(os.fsencode(place)) + _RAYS_OWN <= _SOCKET_BYTES


def _writable(place: Path) -> bool:
    return place.is_dir() and os.access(place, os.W_OK | os.X_OK)


def _made(place: Path) -> bool:
    """Whether a folder can be written once it is made, as Ray makes the one it is told."""
    try:
        place.mkdir(parents=True, exist_ok=True)
    except OSError:
        return False
    return _writable(place)
