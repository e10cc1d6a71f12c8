"""An upload on its way to a video replica: by path on the same machine, by a stream of pieces from another one."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from serve.intake import Spool

_PIECE = 4 * 2**20
_PIECES_AHEAD = 4


@dataclass(frozen=True)
class Upload:
    """Files in the spool of an ingress replica."""

    node: str
    paths: tuple[str, ...]
    size: int = 0  # bytes in all

    @classmethod
    def here(cls, paths: list[Path]) -> Upload:
        """Files on this machine."""
        size = sum(path.stat().st_size for path in paths)
        return cls(ray.get_runtime_context().get_node_id(), tuple(map(str, paths)), size)


@asynccontextmanager
async def at_hand(upload: Upload, spool: Spool) -> AsyncIterator[list[Path]]:
    """The files as paths on this machine, for as long as the block runs."""
    if upload.node == ray.get_runtime_context().get_node_id():
        yield [Path(path) for path in upload.paths]
        return
    with spool.request(upload.size) as folder:
        yield [await _fetch(upload.node, path, folder / str(number)) for number, path in enumerate(upload.paths)]


async def _fetch(node: str, source: str, target: Path) -> Path:
    strategy = NodeAffinitySchedulingStrategy(node, soft=False)
    reader: Any = ray.remote(_pieces).options(
        num_cpus=0,
        num_returns="streaming",
        scheduling_strategy=strategy,
        _generator_backpressure_num_objects=_PIECES_AHEAD,
    )
    with target.open("wb") as file:
        async for piece in reader.remote(source):
            await asyncio.to_thread(file.write, await piece)
    return target


def _pieces(path: str) -> Iterator[bytes]:
    with open(path, "rb") as file:
        while piece := file.read(_PIECE):
            yield piece
