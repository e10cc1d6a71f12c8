"""Complete training states on storage: written asynchronously, marked when whole, found again after any death.

A checkpoint is `checkpoints/step-00000120/` with `state.pt` (tensors and plain containers, loaded weights-only)
and, written last, `complete.json` (size, SHA-256, step, score). What has no marker never happened; what has a
marker but another size or digest is passed over for the one before. One checkpoint is in the air at most: the loop
waits rather than piling up copies. Kept: the newest few and the best. Knows no model and no Ray; storage errors are
retried until a deadline, then raised.
"""

from __future__ import annotations

import errno
import hashlib
import io
import json
import logging
import math
import time
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import torch

from ssm_platform.base import MissingKey, Storage, StorageError

LOG = logging.getLogger(__name__)

_FOLDER = "checkpoints"
_MARKER = "complete.json"
_STATE = "state.pt"
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

    step: int
    bytes: int
    sha256: str
    fingerprint: str
    score: float | None = None

    @property
    def folder(self) -> str:
        """The checkpoint's folder below the run's."""
        return _folder(self.step)


class Checkpoints:
    """The checkpoints of one run. Only one process may write."""

    def __init__(self, storage: Storage, keep: int = 2, deadline: float = 120.0) -> None:
        self._storage, self._keep, self._deadline = storage, keep, deadline

    def complete(self) -> list[Marker]:
        """Every complete checkpoint, oldest first."""
        markers = []
        for key in self._retried("list checkpoints", lambda: self._storage.list(_FOLDER)):
            if key.endswith(f"/{_MARKER}"):
                markers.append(self._marker(key))
        return sorted((marker for marker in markers if marker), key=lambda marker: marker.step)

    def newest(self) -> Marker | None:
        """The newest complete checkpoint, None before the first."""
        return max(self.complete(), key=lambda marker: marker.step, default=None)

    def best(self) -> Marker | None:
        """The one with the greatest score (the earliest of equals), None where none has a score. nan is no score."""
        scored = [marker for marker in self.complete() if marker.score is not None and not math.isnan(marker.score)]
        return max(scored, key=lambda marker: (marker.score or 0.0, -marker.step), default=None)

    def newest_intact(self) -> Marker | None:
        """The newest checkpoint whose state is the one it names: where `resume` goes on. Deletes nothing."""
        for marker in reversed(self.complete()):
            try:
                self._read(marker)
            except DamagedCheckpoint:
                continue
            return marker
        return None

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
        data = io.BytesIO(self._read(marker))
        state: dict[str, Any] = torch.load(data, map_location="cpu", weights_only=True)
        return state

    def write(self, state: dict[str, Any], step: int, fingerprint: str, score: float | None) -> Marker:
        """Writes the state, then its marker, then drops what is neither new nor best."""
        buffer = io.BytesIO()
        torch.save(state, buffer)
        data = buffer.getvalue()
        marker = Marker(step, len(data), hashlib.sha256(data).hexdigest(), fingerprint, score)
        for name, content in ((_STATE, data), (_MARKER, json.dumps(asdict(marker)).encode())):
            key = f"{marker.folder}/{name}"
            self._retried(f"write {key}", partial(self._storage.write, key, content))
        self.prune()
        return marker

    def prune(self) -> None:
        """Deletes what is neither among the newest nor the best, markers first; incomplete older ones too."""
        complete = self.complete()
        best = self.best()
        kept = {marker.step for marker in complete[-self._keep :]} | ({best.step} if best else set())
        newest = complete[-1].step if complete else -1
        keys = self._retried("list checkpoints", lambda: self._storage.list(_FOLDER))
        for key in sorted(keys, key=lambda key: not key.endswith(_MARKER)):
            step = _step_of(key)
            if step is not None and step not in kept and step < newest:
                self._delete(key)

    def _read(self, marker: Marker) -> bytes:
        key = f"{marker.folder}/{_STATE}"
        try:
            data: bytes = self._retried(f"read {key}", lambda: self._storage.read(key))
        except CheckpointError as error:
            if isinstance(error.__cause__, MissingKey):
                raise DamagedCheckpoint(str(error)) from error
            raise
        if len(data) != marker.bytes or hashlib.sha256(data).hexdigest() != marker.sha256:
            raise DamagedCheckpoint(f"{key}: {len(data)} bytes, not the {marker.bytes} that its marker names")
        return data

    def _delete(self, key: str) -> None:
        self._retried(f"delete {key}", lambda: self._storage.delete(key))

    def _marker(self, key: str) -> Marker | None:
        try:
            return Marker(**json.loads(self._retried(f"read {key}", lambda: self._storage.read(key))))
        except (json.JSONDecodeError, TypeError) as error:
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
            return "free space or change storage; the last complete checkpoint is kept"
        return f"given up (checkpoint.deadline={self._deadline:g} s); the last complete checkpoint is kept"


class Writer:
    """Writes checkpoints in a thread, one in the air at most; what goes wrong there is raised at the next call here."""

    def __init__(self, checkpoints: Checkpoints, fingerprint: str) -> None:
        self._checkpoints, self._fingerprint = checkpoints, fingerprint
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="checkpoints")
        self._in_air: Future[Marker] | None = None

    def submit(self, state: dict[str, Any], step: int, score: float | None) -> None:
        """Copies `state` to the CPU and hands it over; waits while an earlier one is still being written."""
        copy = detached(state)
        self._land()
        self._in_air = self._thread.submit(self._checkpoints.write, copy, step, self._fingerprint, score)

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


def _folder(step: int) -> str:
    return f"{_FOLDER}/step-{step:08d}"


def _step_of(key: str) -> int | None:
    name = key.split("/")[1] if key.count("/") >= 2 else ""
    digits = name.removeprefix("step-")
    return int(digits) if name.startswith("step-") and digits.isdigit() else None
