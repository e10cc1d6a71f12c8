"""What cannot be read says path and reason, in every process."""

from __future__ import annotations

from pathlib import Path


class UnreadableVideo(ValueError):
    """A video or image file that cannot be read; the message carries path and reason."""

    def __init__(self, path: str | Path, reason: str) -> None:
        super().__init__(f"{path}: {reason}")
        self.path = str(path)
        self.reason = reason

    def __reduce__(self) -> tuple[type[UnreadableVideo], tuple[str, str]]:
        return type(self), (self.path, self.reason)
