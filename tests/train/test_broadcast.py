"""A state read by one worker is the same at every other: bits, types, shapes and what is not a tensor."""

from __future__ import annotations

import multiprocessing
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from ssm_platform.train.broadcast import broadcast


def state() -> dict[str, Any]:
    """Every kind of thing that a checkpoint holds."""
    generator = torch.Generator().manual_seed(3)
    return {
        "train": {
            "weight": torch.randn(7, 5, generator=generator),
            "turned": torch.randn(4, 6, generator=generator).t(),
            "half": torch.randn(3, generator=generator).bfloat16(),
            "mask": torch.tensor([True, False, True]),
            "step": torch.tensor(12),
            "empty": torch.zeros(0, 4),
            "random": torch.get_rng_state(),
        },
        "position": {"done": 12, "order": {"unread": [3, 4]}, "curves": [{"step": 1.0}], "pair": (1, None)},
    }


def _worker(rank: int, meeting: str, result: str) -> None:
    dist.init_process_group("gloo", init_method=f"file://{meeting}", rank=rank, world_size=2)
    found = broadcast(state() if rank == 0 else None, torch.device("cpu"))
    torch.save(found, f"{result}-{rank}")
    dist.destroy_process_group()


def test_what_the_first_worker_read_is_what_every_worker_has(tmp_path: Path) -> None:
    torch.manual_seed(0)
    context = multiprocessing.get_context("spawn")
    places = str(tmp_path / "meeting"), str(tmp_path / "got")
    workers = [context.Process(target=_worker, args=(rank, *places)) for rank in (0, 1)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(120)
        assert worker.exitcode == 0
    sent, received = (torch.load(tmp_path / f"got-{rank}", weights_only=True) for rank in (0, 1))
    assert sent["position"] == received["position"] == state()["position"]
    for name, tensor in state()["train"].items():
        assert received["train"][name].dtype == tensor.dtype
        assert received["train"][name].shape == tensor.shape
        assert torch.equal(sent["train"][name], received["train"][name])
        assert name == "random" or torch.equal(received["train"][name], tensor)
