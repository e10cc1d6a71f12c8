"""A place for one frame: the newest. What was not taken when the next one came is dropped, so nothing piles up.

For one event loop, one who puts and one who takes.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass


@dataclass(frozen=True)
class Frame:
    """An encoded frame: its number among all that came, its seconds since the first, and when it came (loop's time)."""

    number: int
    timestamp: float
    came: float
    data: bytes


class Newest:
    """`put` never waits; `take` waits for the next frame, and gives None when no more will come."""

    def __init__(self) -> None:
        self._frame: Frame | None = None
        self._error: Exception | None = None
        self._changed = asyncio.Event()
        self.ended = False
        self.dropped = 0

    def put(self, frame: Frame) -> None:
        """The newest frame."""
        self.dropped += self._frame is not None
        self._frame = frame
        self._changed.set()

    def end(self, error: Exception | None = None) -> None:
        """No more will come; `error` is what `take` raises then."""
        self.ended, self._error = True, error
        self._changed.set()

    async def take(self) -> Frame | None:
        """The newest frame that was not taken yet."""
        while True:
            if self._error is not None:
                raise self._error
            if self.ended:
                return None
            if self._frame is not None:
                frame, self._frame = self._frame, None
                return frame
            self._changed.clear()
            await self._changed.wait()
