"""Complete training states on storage: written asynchronously, marked when whole, found again after any death.

A checkpoint is `checkpoints/step-00000120/` with `state.pt` (tensors and plain containers, loaded weights-only)
and, written last, `complete.json` (size, SHA-256, step, score, attempt). What has no marker never happened; what has a
marker but another size or digest is passed over for the one before. Every start of a group of workers is an attempt:
`begin` decides once where it goes on and leaves `checkpoints/attempts/NUMBER-STEP`. What a worker of an earlier attempt
writes past that step after all (it was taken for dead) never happened either. One checkpoint is in the air at most: the
loop waits rather than piling up copies. Kept: the newest few and the best. Knows no model and no Ray; storage errors
are retried until a deadline, then raised.
"""

from __future__ import annotations

import errno
import hashlib
import json
import logging
import math
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, TypeVar, cast

import torch
from pydantic import ConfigDict, TypeAdapter, ValidationError

from ssm_platform.base import MissingKey, Storage, StorageError

T = TypeVar("T")
LOG = logging.getLogger(__name__)

_FOLDER = "checkpoints"
_MARKER = "complete.json"
_STATE = "state.pt"
_ATTEMPTS = f"{_FOLDER}/attempts/"
_FREE_SPACE = "free space or change storage; the last complete checkpoint is kept"
_ROOM = 1 << 20  # bytes; a disk with less is full
_FIRST_PAUSE = 0.5
_LONGEST_PAUSE = 10.0


class CheckpointError(ValueError):
    """A checkpoint that cannot be written or does not belong to this run; names where and why.

    `final`: waiting cannot help, as it may where storage is only away.
    """

    def __init__(self, message: str, final: bool = True) -> None:
        super().__init__(message)
        self.final = final


class DamagedCheckpoint(CheckpointError):
    """A marker without the state that it names."""


@dataclass(frozen=True)
class Marker:
    """What `complete.json` says of its checkpoint."""

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid", strict=True)

    step: int
    bytes: int
    sha256: str
    fingerprint: str
    score: float | None = None
    attempt: int = 0

    @property
    def folder(self) -> str:
        """The checkpoint's folder below the run's; no two attempts write into one."""
        return f"{_FOLDER}/step-{self.step:08d}" + (f"-attempt-{self.attempt}" if self.attempt else "")


_MARKERS = TypeAdapter(Marker)


@dataclass(frozen=True)
class Attempt:
    """One start of a group of workers, and the checkpoint that all of them go on from."""

    number: int
    start: Marker | None

    @property
    def first(self) -> int:
        """The first step it trains."""
        return self.start.step if self.start else 0


@dataclass(frozen=True)
class _Found:
    """One look at the storage: keys of checkpoints, the first step of each attempt, complete checkpoints."""

    keys: list[str]
    attempts: dict[int, int]
    complete: list[Marker]


class Checkpoints:
    """The checkpoints of one run. One attempt at a time writes."""

    def __init__(self, storage: Storage, keep: int = 2, deadline: float = 120.0) -> None:
        self._storage, self._keep, self._deadline = storage, keep, deadline

    def complete(self) -> list[Marker]:
        """Every complete checkpoint, oldest first."""
        return self._look().complete

    def newest(self) -> Marker | None:
        """The newest complete checkpoint, None before the first."""
        return max(self.complete(), key=lambda marker: marker.step, default=None)

    def best(self) -> Marker | None:
        """The one with the greatest score (the earliest of equals), None where none has a score. nan is no score."""
        return _best(self.complete())

    def begin(self) -> Attempt:
        """Decides where a new attempt goes on: at the newest intact checkpoint. Fences off the attempts before it."""
        start = self.newest_intact()
        attempt = Attempt(max(self._look().attempts, default=-1) + 1, start)
        key = f"{_ATTEMPTS}{attempt.number:06d}-{attempt.first:08d}"
        self._retried(f"write {key}", lambda: self._storage.write(key, b""))
        if (folder := self._beside()) is not None:
            for left in folder.glob(".*.part"):  # by a process that was killed; as large as a state
                left.unlink(missing_ok=True)
        return attempt

    def newest_intact(self) -> Marker | None:
        """The newest checkpoint whose state is the one it names, whose bytes it reads. Deletes nothing."""
        found = self._first_intact(reversed(self.complete()), lambda _: None)
        return found and found[0]

    def best_intact(self) -> tuple[Marker, dict[str, Any]] | None:
        """As `best`, among those whose state is the one they name; with its state. Deletes nothing."""
        return self._first_intact(_ranked(self.complete()), _read_state)

    def resume(self) -> tuple[Marker, dict[str, Any]] | None:
        """The newest intact checkpoint with its state; the markers of damaged ones are deleted."""
        for marker in reversed(self.complete()):
            try:
                return marker, self.load(marker)
            except DamagedCheckpoint as error:
                LOG.warning("%s; going on from the checkpoint before", error)
                self._delete(f"{marker.folder}/{_MARKER}")
        return None

    def load(self, marker: Marker) -> dict[str, Any]:
        """The state behind `marker`, on the CPU; raises `DamagedCheckpoint` where the bytes are not those it names."""
        return self._checked(marker, _read_state)

    def write(
        self, state: dict[str, Any], step: int, fingerprint: str, score: float | None, attempt: int = 0
    ) -> Marker:
        """Stores `state` (on the CPU) as the checkpoint of `step`, then deletes what is no longer kept.

        CheckpointError where a newer attempt has begun: the marker is not written then.
        """
        with tempfile.NamedTemporaryFile(dir=self._beside(), prefix=".", suffix=".part", delete=False) as scratch:
            path = Path(scratch.name)
        try:
            marker = _saved(state, path, Marker(step, 0, "", fingerprint, score, attempt))
            key = f"{marker.folder}/{_STATE}"
            self._retried(f"write {key}", lambda: self._storage.write_file(key, path))
        finally:
            path.unlink(missing_ok=True)
        self._refuse_fenced(attempt)
        key, content = f"{marker.folder}/{_MARKER}", json.dumps(asdict(marker)).encode()
        self._retried(f"write {key}", lambda: self._storage.write(key, content))
        self.prune()
        return marker

    def prune(self) -> None:
        """Deletes what is neither among the newest nor the best, markers first; incomplete older ones too."""
        found = self._look()
        best = _best(found.complete)
        kept = {marker.folder for marker in [*found.complete[-self._keep :], *([best] if best else [])]}
        newest = found.complete[-1].step if found.complete else -1
        for key in sorted(found.keys, key=lambda key: not key.endswith(_MARKER)):
            step, folder = _step_of(key), key.rpartition("/")[0]
            if step is not None and folder not in kept and step < newest:
                self._delete(key)

    def _look(self) -> _Found:
        """What there is, by one listing and a read of each marker; what fenced attempts wrote is left out."""
        keys = self._retried("list checkpoints", lambda: self._storage.list(f"{_FOLDER}/"))
        pairs = [key.removeprefix(_ATTEMPTS).partition("-") for key in keys if key.startswith(_ATTEMPTS)]
        attempts = {int(number): int(step) for number, _, step in pairs if number.isdigit() and step.isdigit()}
        markers = (self._marker(key) for key in keys if key.endswith(f"/{_MARKER}"))
        complete = [marker for marker in markers if marker and not _is_fenced(marker, attempts)]
        return _Found(keys, attempts, sorted(complete, key=lambda marker: (marker.step, marker.attempt)))

    def _refuse_fenced(self, attempt: int) -> None:
        if (newer := max(self._look().attempts, default=attempt)) > attempt:
            raise CheckpointError(f"attempt {attempt} of {self._storage.uri} is over: attempt {newer} has taken over")

    def _beside(self) -> Path | None:
        """Where a state is written before it is stored: beside its place, so that storing a file is a rename."""
        if "://" in self._storage.uri:
            return None
        folder = Path(self._storage.uri) / _FOLDER
        self._retried(f"make {folder}", lambda: folder.mkdir(parents=True, exist_ok=True))
        return folder

    def _first_intact(self, markers: Iterable[Marker], action: Callable[[Path], T]) -> tuple[Marker, T] | None:
        """The first of them that is intact, with what `action` made of the file of its state."""
        for marker in markers:
            try:
                return marker, self._checked(marker, action)
            except DamagedCheckpoint as error:
                LOG.warning("%s; taking another checkpoint", error)
        return None

    def _checked(self, marker: Marker, action: Callable[[Path], T]) -> T:
        """`action` on the file of a state whose size and digest are those of its marker."""
        key = f"{marker.folder}/{_STATE}"

        def attempt() -> T:
            with self._storage.as_file(key) as path:
                size, digest = path.stat().st_size, _digest(path)
                if size != marker.bytes or digest != marker.sha256:
                    raise DamagedCheckpoint(f"{key}: {size} bytes, not the {marker.bytes} that its marker names")
                return action(path)

        try:
            return cast(T, self._retried(f"read {key}", attempt))
        except CheckpointError as error:
            if isinstance(error.__cause__, MissingKey):
                raise DamagedCheckpoint(str(error)) from error
            raise

    def _delete(self, key: str) -> None:
        self._retried(f"delete {key}", lambda: self._storage.delete(key))

    def _marker(self, key: str) -> Marker | None:
        try:
            return _MARKERS.validate_json(self._retried(f"read {key}", lambda: self._storage.read(key)))
        except ValidationError as error:
            LOG.warning("%s is not a checkpoint marker (%s); passed over", key, error)
            return None

    def _retried(self, what: str, action: Any) -> Any:
        """`action()`, again after growing pauses while storage is away; a full disk is not waited for."""
        end = time.monotonic() + self._deadline
        pause = _FIRST_PAUSE
        while True:
            try:
                return action()
            except (OSError, StorageError) as error:
                final = _is_final(error)
                if final or time.monotonic() + pause > end:
                    raise CheckpointError(f"cannot {what}: {error}; {self._advice(error)}", final) from error
                LOG.warning("cannot %s: %s; again in %.1f s", what, error, pause)
            time.sleep(pause)
            pause = min(2 * pause, _LONGEST_PAUSE)

    def _advice(self, error: Exception) -> str:
        if is_full(error):
            return _FREE_SPACE
        return f"given up (checkpoint.deadline={self._deadline:g} s); the last complete checkpoint is kept"


class Writer:
    """Writes checkpoints in a thread, one in the air at most; what goes wrong there is raised at the next call here."""

    def __init__(self, checkpoints: Checkpoints, fingerprint: str, attempt: int = 0) -> None:
        self._checkpoints, self._fingerprint, self._attempt = checkpoints, fingerprint, attempt
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="checkpoints")
        self._in_air: Future[Marker] | None = None

    def submit(self, state: dict[str, Any], step: int, score: float | None) -> None:
        """Copies `state` to the CPU and hands it over; waits while an earlier one is still being written."""
        copy = detached(state)
        self._land()
        self._in_air = self._thread.submit(self._checkpoints.write, copy, step, self._fingerprint, score, self._attempt)

    def close(self) -> None:
        """Waits for what was handed over and raises what went wrong."""
        try:
            self._land()
        finally:
            self._thread.shutdown()

    def _land(self) -> None:
        in_air, self._in_air = self._in_air, None
        if in_air is not None:
            in_air.result()


def detached(value: Any) -> Any:
    """A copy on the CPU that later steps cannot change; nested dicts, lists and tuples are followed."""
    if isinstance(value, torch.Tensor):
        return value.detach().to("cpu", copy=True)
    if isinstance(value, dict):
        return {key: detached(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(detached(item) for item in value)
    return value


def is_full(error: Exception) -> bool:
    """Whether a disk without room, or a used up quota, is behind `error`."""
    cause = error.__cause__ or error
    return isinstance(cause, OSError) and cause.errno in (errno.ENOSPC, errno.EDQUOT)


def _is_final(error: Exception) -> bool:
    """Whether waiting cannot help: a full disk, a missing key, no permission."""
    return is_full(error) or isinstance(error, MissingKey) or isinstance(error.__cause__ or error, PermissionError)


def _saved(state: dict[str, Any], path: Path, marker: Marker) -> Marker:
    """Writes `state` to a file, and to the disk before any marker names it; the marker with its size and digest."""
    try:
        torch.save(state, path)
        with path.open("rb") as file:
            os.fsync(file.fileno())
        size, digest = path.stat().st_size, _digest(path)
    except (OSError, RuntimeError) as error:  # torch says of a full disk that its file writer failed
        out_of_room = shutil.disk_usage(path.parent).free < _ROOM
        cause = OSError(errno.ENOSPC, "No space left on device") if out_of_room else error
        raise CheckpointError(f"cannot write {path}: {cause}; {_FREE_SPACE}", final=out_of_room) from cause
    return replace(marker, bytes=size, sha256=digest)


def _read_state(path: Path) -> dict[str, Any]:
    state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    return state


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _best(complete: list[Marker]) -> Marker | None:
    return next(iter(_ranked(complete)), None)


def _ranked(complete: list[Marker]) -> list[Marker]:
    """Those with a score, from the greatest on; the earliest of equals first."""
    scored = [marker for marker in complete if marker.score is not None and not math.isnan(marker.score)]
    return sorted(scored, key=lambda marker: (-(marker.score or 0.0), marker.step))


def _is_fenced(marker: Marker, attempts: dict[int, int]) -> bool:
    """Whether a later attempt began before this step, without this checkpoint."""
    return any(number > marker.attempt and first < marker.step for number, first in attempts.items())


def _step_of(key: str) -> int | None:
    name = key.split("/")[1] if key.count("/") >= 2 else ""
    digits = name.removeprefix("step-").partition("-")[0]
    return int(digits) if name.startswith("step-") and digits.isdigit() else None
