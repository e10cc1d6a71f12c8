"""Where a run lies, as one value: its folder, the storage there, its checkpoints; and what workers are handed of it."""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from ssm.interface import FaceCrop
from ssm_platform.base import Storage, StorageSettings, open_storage
from ssm_platform.records import Manifest
from ssm_platform.runs import RunConfig
from ssm_platform.train.checkpoints import Checkpoints


@dataclass(frozen=True)
class RunPlace:
    """The place of a run, opened as patiently as the run is to be."""

    folder: str  # absolute or an s3:// prefix
    keep: int  # checkpoints
    deadline: float  # seconds that storage may be away

    @classmethod
    def of(cls, config: RunConfig) -> Self:
        """`storage/name`, absolute."""
        storage = config.storage if "://" in config.storage else str(Path(config.storage).absolute())
        return cls.at(f"{storage.rstrip('/')}/{config.name}", config)

    @classmethod
    def at(cls, folder: str, config: RunConfig) -> Self:
        """The place `folder`, of a run with that config."""
        return cls(folder, config.checkpoint.keep, config.checkpoint.deadline)

    @property
    def remote(self) -> bool:
        """Whether it is an object store."""
        return "://" in self.folder

    @property
    def storage(self) -> Storage:
        """What lies there, by key."""
        return open_storage(self.folder, StorageSettings(deadline_s=self.deadline))

    @property
    def checkpoints(self) -> Checkpoints:
        """The checkpoints of the run."""
        return Checkpoints(self.storage, self.keep, self.deadline)

    def events(self, fingerprint: str) -> Path:
        """Where a process may write event files: the run's folder, or a local one where that is an object store.

        The same one after a restart on this machine, and no other run's or user's: what lies there is uploaded whole.
        """
        if not self.remote:
            return Path(self.folder)
        digest = hashlib.sha256(f"{self.folder}/{fingerprint}".encode()).hexdigest()[:16]
        return Path(tempfile.gettempdir()) / f"ssm-{os.getuid()}" / digest


@dataclass(frozen=True)
class Job:
    """What the driver hands to every worker."""

    config: RunConfig
    folder: str  # of the run, absolute or an s3:// prefix
    fingerprint: str  # of mathematics and data together
    total: int  # steps
    validation: Sequence[Manifest]
    crop: FaceCrop | None = None  # what the clips are cut out by, as far as it is known
    start: str | None = None  # digest of the weights of `init_from`
    board: Any = None  # the progress bar's actor

    @property
    def place(self) -> RunPlace:
        """Where the run lies."""
        return RunPlace.at(self.folder, self.config)
