"""The folder of a run, on disk or in an object store, as whole files: written atomically, read, listed, deleted."""

from __future__ import annotations

import os
import uuid
from pathlib import Path

from ssm_platform.checkpoints import Store


class LocalFolder:
    """Files below a local folder. A file is written beside its place, flushed to disk, and renamed."""

    def __init__(self, root: Path) -> None:
        self.root = root.absolute()

    def read(self, key: str) -> bytes:
        """The bytes of one file."""
        return (self.root / key).read_bytes()

    def write(self, key: str, data: bytes) -> None:
        """Writes one file whole or not at all."""
        path = self.root / key
        path.parent.mkdir(parents=True, exist_ok=True)
        scratch = path.with_name(f".{path.name}.{uuid.uuid4().hex}.part")
        try:
            with scratch.open("wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            os.replace(scratch, path)
        finally:
            scratch.unlink(missing_ok=True)

    def list(self, prefix: str) -> list[str]:
        """Keys below `prefix`, in order."""
        found = (path for path in (self.root / prefix).rglob("*") if path.is_file())
        return sorted(path.relative_to(self.root).as_posix() for path in found)

    def delete(self, key: str) -> None:
        """Removes one file, and its folder where it was the last."""
        path = self.root / key
        path.unlink(missing_ok=True)
        if path.parent != self.root and path.parent.is_dir() and not any(path.parent.iterdir()):
            path.parent.rmdir()


def open_store(location: str) -> Store:
    """The folder or prefix at `location`."""
    return LocalFolder(Path(location))
