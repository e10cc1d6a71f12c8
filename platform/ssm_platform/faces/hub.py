"""The network files that face detection and recognition use, from the hub or its cache, each known by its digest.

`find` looks into the hub's cache, then asks the hub, unless it is switched off, for a bounded time. What is found is
used only if it is the file this version knows: a file of another digest is refused by name, whoever put it there.
"""

from __future__ import annotations

import hashlib
import threading
from dataclasses import dataclass
from pathlib import Path

WAIT_S = 30.0
"""Longest wait for the hub."""


class NoModel(ValueError):
    """The file is not to be had; says why and what to do."""


@dataclass(frozen=True)
class HubFile:
    """One file of a repository of the hub."""

    repository: str
    name: str
    sha256: str
    setting: str  # the field of `FaceSettings` that a file of one's own goes into

    @property
    def mend(self) -> str:
        """What a person may do."""
        fetch = f"hf download {self.repository} {self.name}"
        return f"fetch it once while online ({fetch}), or name a file of your own ({self.setting})"


YUNET = HubFile(
    "opencv/face_detection_yunet",
    "face_detection_yunet_2023mar.onnx",
    "8f2383e4dd3cfbb4553ea8718107fc0423210dc964f9f4280604804ed2552fa4",
    "detection.model",
)
SFACE = HubFile(
    "opencv/face_recognition_sface",
    "face_recognition_sface_2021dec.onnx",
    "0ba9fbfa01b5270c96627c4ef784da859931e02f04419c829e83484087c34e79",
    "detection.embedding",
)


def find(file: HubFile) -> Path:
    """The file in the hub's cache, fetched where it is absent or stale there. NoModel where it is not to be had."""
    from huggingface_hub import try_to_load_from_cache

    cached = try_to_load_from_cache(file.repository, file.name)
    stale = isinstance(cached, str) and digest(Path(cached)) != file.sha256
    if isinstance(cached, str) and not stale:
        return Path(cached)
    try:
        path = _fetched(file, force=stale)
    except NoModel as error:
        held = f"{cached}: not the file this version knows (SHA-256 {digest(Path(str(cached)))}); " if stale else ""
        raise NoModel(f"{held}{error}") from error
    if digest(path) != file.sha256:
        raise NoModel(
            f"{path}: the hub gave a file with SHA-256 {digest(path)}, this version knows {file.sha256}: not used; "
            f"{file.mend}"
        )
    return path


def digest(path: Path) -> str:
    """SHA-256 of a file. ValueError where it cannot be read."""
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        raise NoModel(f"{path}: {error.strerror or error}") from error


def _fetched(file: HubFile, force: bool) -> Path:
    """Ask the hub, no longer than `WAIT_S`; in a thread, since a connection may hang in name resolution alone."""
    from huggingface_hub import constants, hf_hub_download

    if constants.HF_HUB_OFFLINE:
        raise NoModel(f"the hub is switched off (HF_HUB_OFFLINE): {file.mend}")
    got: list[str | BaseException] = []

    def ask() -> None:
        try:
            got.append(hf_hub_download(file.repository, file.name, force_download=force, etag_timeout=WAIT_S / 3))
        except BaseException as error:  # noqa: BLE001 told to the caller, who gives it words
            got.append(error)

    thread = threading.Thread(target=ask, name=f"fetch {file.name}", daemon=True)
    thread.start()
    thread.join(WAIT_S)
    answer = got[0] if got else TimeoutError(f"no answer within {WAIT_S:g} s")
    if isinstance(answer, BaseException):
        raise NoModel(f"the hub cannot be reached ({str(answer).splitlines()[0]}): {file.mend}") from answer
    return Path(answer)
