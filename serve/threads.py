"""Work in a thread that a cancelled caller waits for."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import Any, TypeVar

T = TypeVar("T")


async def in_thread(call: Callable[..., T], *arguments: Any) -> T:
    """`asyncio.to_thread` for what is closed or removed afterwards: a cancelled caller waits for the thread, however
    often it is cancelled. A closed descriptor's number may be another connection's a moment later.
    """
    working = asyncio.ensure_future(asyncio.to_thread(call, *arguments))
    try:
        return await asyncio.shield(working)
    finally:
        while not working.done():
            with suppress(asyncio.CancelledError):  # the first one is on its way already
                await asyncio.wait([working])
