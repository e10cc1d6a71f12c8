"""The model registry: immutable models under aliases, in a folder or below an `s3://` prefix.

    models/<version>/...        the files of a saved model, never changed once `complete.json` lists their digests
    aliases/<alias>             one line: the version that the alias means today

A version is named after its run and its content, so publishing the same model twice is one version. A model is
visible when `complete.json` is there and not before; an alias is one small object, replaced whole. What `resolve`
returns is checked against the digests: a damaged or half-copied model is refused, never served.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import tempfile
from contextlib import suppress
from pathlib import Path, PurePosixPath

from ssm_platform.base import MissingKey, Storage, cache_folder, open_storage

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
_COMPLETE = "complete.json"


class RegistryError(ValueError):
    """A model that is not there, not whole, or a name that cannot be one."""


class Registry:
    """Models and aliases below `uri`. `cache` is where models of remote storage are copied to before they are used."""

    def __init__(self, uri: str | Path, cache: Path | None = None) -> None:
        self._storage: Storage = open_storage(uri)
        self._cache = cache or cache_folder() / "ssm-platform" / "models"

    def publish(self, folder: Path, run: str, aliases: tuple[str, ...] = ("latest",)) -> str:
        """Copy a saved model in and point `aliases` at it; returns the version. RegistryError for no model."""
        for name in (run, *aliases):
            _checked(name)
        files = {str(PurePosixPath(*path.relative_to(folder).parts)): path for path in _files(folder)}
        if "config.json" not in files or "model.safetensors" not in files:
            raise RegistryError(f"{folder}: not a saved model: it lacks config.json or model.safetensors")
        digests = {key: _digest(path.read_bytes()) for key, path in sorted(files.items())}
        version = f"{run}-{_digest(json.dumps(digests).encode())[:12]}"
        if not self._holds(version, digests):
            for key, path in files.items():
                data = path.read_bytes()
                if _digest(data) != digests[key]:
                    raise RegistryError(f"{path}: was replaced while it was published; publish it again")
                self._storage.write(f"models/{version}/{key}", data)
            self._storage.write(f"models/{version}/{_COMPLETE}", json.dumps(digests, indent=1).encode())
        for alias in aliases:
            self.point(alias, version)
        return version

    def point(self, alias: str, version: str) -> None:
        """Make `alias` mean `version` from now on. RegistryError where there is no such version."""
        self._digests(version)
        self._storage.write(f"aliases/{_checked(alias)}", version.encode())

    def versions(self) -> list[str]:
        """All complete versions, by name."""
        keys = self._storage.list("models/")
        return sorted(key.split("/")[1] for key in keys if key.count("/") == 2 and key.endswith(f"/{_COMPLETE}"))

    def aliases(self) -> dict[str, str]:
        """What each alias means."""
        return {key.split("/")[1]: self._meaning(key) for key in self._storage.list("aliases/")}

    def version(self, name: str) -> str:
        """The version that an alias (or a version's own name) means. RegistryError says what there is instead."""
        _checked(name)
        try:
            return self._meaning(f"aliases/{name}")
        except MissingKey:
            pass
        if self._storage.exists(f"models/{name}/{_COMPLETE}"):
            return name
        known = ", ".join([*self.aliases(), *self.versions()]) or "nothing yet"
        raise RegistryError(f"{self._storage.uri}: no model or alias {name!r}; there is: {known}")

    def resolve(self, name: str) -> Path:
        """A local folder with the model of that alias or version, whole and checked."""
        version = self.version(name)
        digests = self._digests(version)
        local = Path(self._storage.uri) / "models" / version
        if local.is_dir():
            _verify(local, digests)
            return local
        target = self._cache / version
        if not target.is_dir():
            self._fetch(version, digests, target)
        _verify(target, digests)
        return target

    def _fetch(self, version: str, digests: dict[str, str], target: Path) -> None:
        target.parent.mkdir(parents=True, exist_ok=True)
        scratch = Path(tempfile.mkdtemp(dir=target.parent, prefix=f".{version}."))
        try:
            for key in digests:
                path = scratch / key
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(self._storage.read(f"models/{version}/{key}"))
            _verify(scratch, digests)
            with suppress(OSError):  # another process may have been first; both copies are the same
                scratch.rename(target)
        finally:
            shutil.rmtree(scratch, ignore_errors=True)

    def _meaning(self, key: str) -> str:
        try:
            return self._storage.read(key).decode().strip()
        except UnicodeDecodeError as error:
            raise RegistryError(f"{self._storage.uri}/{key}: not the name of a version") from error

    def _holds(self, version: str, digests: dict[str, str]) -> bool:
        """Whether the version is there, whole and undamaged."""
        try:
            return self._digests(version) == digests and all(
                _digest(self._storage.read(f"models/{version}/{key}")) == digest for key, digest in digests.items()
            )
        except (MissingKey, RegistryError):
            return False

    def _digests(self, version: str) -> dict[str, str]:
        try:
            found = json.loads(self._storage.read(f"models/{_checked(version)}/{_COMPLETE}"))
        except MissingKey as error:
            raise RegistryError(f"{self._storage.uri}: no complete model {version!r}") from error
        except ValueError as error:
            raise RegistryError(f"{self._storage.uri}/models/{version}/{_COMPLETE}: not JSON: {error}") from error
        if not isinstance(found, dict) or not all(_inside(key) for key in found):
            raise RegistryError(f"{self._storage.uri}: models/{version}/{_COMPLETE} lists files outside the model")
        return {str(key): str(digest) for key, digest in found.items()}


def _files(folder: Path) -> list[Path]:
    if not folder.is_dir():
        raise RegistryError(f"{folder}: no such folder")
    return [path for path in folder.rglob("*") if path.is_file()]


def _verify(folder: Path, digests: dict[str, str]) -> None:
    for key, digest in digests.items():
        path = folder / key
        if not path.is_file():
            raise RegistryError(f"{path}: the file is missing, the model is not whole")
        if _digest(path.read_bytes()) != digest:
            raise RegistryError(f"{path}: the file was changed after the model was published")


def _checked(name: str) -> str:
    if not _NAME.fullmatch(name):
        raise RegistryError(f"{name!r} cannot name a model or alias: letters, digits, '.', '_' and '-', at most 128")
    return name


def _inside(key: str) -> bool:
    parts = PurePosixPath(key).parts
    return bool(parts) and not key.startswith("/") and ".." not in parts


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
