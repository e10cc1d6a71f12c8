"""Readings of owners' trees, kept beside them: a start lists the tree's files, and reads them only where one changed.

Reading a corpus opens every label file and every video; listing it takes seconds for a million files. What is kept is
named by everything it depends on: reader and options, names, sizes, times and rights of all files, and the readers'
own code.
It lies in `.ssm` below the root, or in the user's cache where the root cannot be written. A kept reading that is torn
or damaged is none.
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
from collections.abc import Iterator
from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import Any

import ssm_platform
from ssm_platform.base import Storage, StorageError, open_storage
from ssm_platform.corpora import read_corpus
from ssm_platform.records import Issue, Manifest, Reading

FOLDER = ".ssm"
_CODE = ("corpora", "records", "media")  # rooms that decide what a reading is


def read(name: str, root: Path, options: dict[str, Any]) -> Reading:
    """What `read_corpus` gives, from what was kept where nothing changed. Raises as it does."""
    key = _key(name, root, options)
    storage = _place(root)
    kept = _kept(storage, key, root)
    if kept is not None:
        return kept
    reading = read_corpus(name, root, **options)
    _keep(storage, key, reading)
    return reading


def _key(name: str, root: Path, options: dict[str, Any]) -> str:
    digest = hashlib.sha256(json.dumps([name, str(root), options, _code()], sort_keys=True).encode())
    for line in _listing(root):
        digest.update(line)
    return f"{name}-{digest.hexdigest()[:32]}"


def _listing(folder: Path, below: str = "", above: frozenset[tuple[int, int]] = frozenset()) -> Iterator[bytes]:
    """Name, size, times (of the rights too) of every file, in order. Hidden folders are not the owner's; a link to a
    folder `above` is not followed.
    """
    try:
        with os.scandir(folder) as found:
            entries = sorted(found, key=lambda entry: entry.name)
    except OSError:
        return
    for entry in entries:
        try:
            facts = entry.stat()
        except OSError:  # a link to nowhere, or to itself
            yield os.fsencode(f"{below}{entry.name}\n")
            continue
        if not stat.S_ISDIR(facts.st_mode):
            times = f"{facts.st_mtime_ns} {facts.st_ctime_ns}"
            yield os.fsencode(f"{below}{entry.name} {facts.st_size} {times}\n")
        elif not entry.name.startswith(".") and (here := (facts.st_dev, facts.st_ino)) not in above:
            yield from _listing(Path(entry.path), f"{below}{entry.name}/", above | {here})


@cache
def _code() -> str:
    """The digest of the code that reads."""
    package = Path(ssm_platform.__file__).parent
    digest = hashlib.sha256()
    for path in sorted(path for room in _CODE for path in (package / room).rglob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()


def _place(root: Path) -> Storage:
    if os.access(root, os.W_OK):
        return open_storage(root / FOLDER)
    caches = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return open_storage(Path(caches) / "ssm" / hashlib.sha256(str(root).encode()).hexdigest()[:16])


def _kept(storage: Storage, key: str, root: Path) -> Reading | None:
    """The reading under `key`; None where there is none, or not a whole one."""
    try:
        about = json.loads(storage.read(f"{key}.json"))
        data = storage.read(f"{key}.parquet")
        if hashlib.sha256(data).hexdigest() != about["sha256"]:
            return None
        issues = [Issue(**issue) for issue in about["issues"]]
        return Reading(Manifest.from_bytes(data, root), issues, int(about["rows"]))
    except (StorageError, ValueError, KeyError, TypeError):
        return None


def _keep(storage: Storage, key: str, reading: Reading) -> None:
    """Keeps a reading in the place of those before it; a place that takes nothing costs time, not the run."""
    data = reading.manifest.to_bytes()
    issues = [asdict(issue) for issue in reading.issues]
    about = {"sha256": hashlib.sha256(data).hexdigest(), "rows": reading.rows, "issues": issues}
    try:
        for old in storage.list(f"{key.rpartition('-')[0]}-"):  # two challenges may lie in one tree
            storage.delete(old)
        storage.write(f"{key}.parquet", data)
        storage.write(f"{key}.json", json.dumps(about).encode())
    except (OSError, StorageError):
        return
