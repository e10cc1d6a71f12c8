"""Batches copied to a GPU while the step before runs, by way of pinned memory; on a CPU there is nothing to do."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import torch

from ssm_platform.train.loop import Batch


def ahead(batches: Iterator[Batch], device: torch.device) -> Iterator[Batch]:
    """The batches in order, on `device`: the next one is read, pinned and copied by a thread on a stream of its own."""
    if device.type != "cuda":
        yield from batches
        return
    side: torch.cuda.Stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
    with ThreadPoolExecutor(max_workers=1, thread_name_prefix="ahead") as pool:
        coming = pool.submit(_copied, batches, side)
        while (found := coming.result()) is not None:
            coming = pool.submit(_copied, batches, side)
            batch, copied = found
            stream = torch.cuda.current_stream(device)
            stream.wait_event(copied)
            for part in (batch.fe, batch.au):
                for tensor in filter(torch.is_tensor, vars(part).values() if part else ()):
                    tensor.record_stream(stream)  # its memory was taken on the other stream
            yield batch


def _copied(batches: Iterator[Batch], side: torch.cuda.Stream) -> tuple[Batch, torch.cuda.Event] | None:
    with torch.cuda.stream(side):  # clips that are made on the GPU are made beside the step, too
        batch = next(batches, None)
        if batch is None:
            return None
        fe = None if batch.fe is None else batch.fe.to(side.device)
        au = None if batch.au is None else batch.au.to(side.device)
        return replace(batch, fe=fe, au=au), side.record_event()
