"""One recording to write: what its record is called, and what its files are called after."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Recording:
    """One sequence of a lab corpus, or one video of a corpus of valence and arousal."""

    clip: str
    subject: str
    task: str
    frames: int
