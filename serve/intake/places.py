"""Admission: a place, and room for its bytes, are taken before a body is read, and given back whatever happens.

For one event loop; what does not fit is refused with 503 and a time to come back, nothing waits here.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from serve.errors import busy


class Places:
    """At most `most` at once."""

    def __init__(self, what: str, most: int) -> None:
        self._what, self._most = what, most
        self.taken = 0

    @contextmanager
    def one(self) -> Iterator[None]:
        """A place for the block; 503 where all are taken."""
        if self.taken >= self._most:
            raise busy(f"all {self._most} places for {self._what} are taken")
        self.taken += 1
        try:
            yield
        finally:
            self.taken -= 1


class Budget:
    """At most `most` bytes at once."""

    def __init__(self, what: str, most: int) -> None:
        self._what, self._most = what, most
        self.taken = 0

    @contextmanager
    def reserved(self, size: int) -> Iterator[None]:
        """Room for `size` bytes during the block; 503 where others have it."""
        if self.taken + size > self._most:
            raise busy(f"the {self._what} is in use")
        self.taken += size
        try:
            yield
        finally:
            self.taken -= size
