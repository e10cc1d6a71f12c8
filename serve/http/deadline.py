"""A request's time limit, as a block: `async with until(deadline)`."""

from __future__ import annotations

import asyncio
from typing import Any

from serve.errors import Refusal


class until:
    """`async with until(deadline)`: 504 where the block is not done by then."""

    def __init__(self, deadline: float) -> None:
        self._timeout = asyncio.timeout_at(deadline)

    async def __aenter__(self) -> None:
        await self._timeout.__aenter__()

    async def __aexit__(self, kind: Any, error: Any, at: Any) -> None:
        try:
            await self._timeout.__aexit__(kind, error, at)
        except TimeoutError:
            raise Refusal(504, "the time limit of a request was reached") from None
