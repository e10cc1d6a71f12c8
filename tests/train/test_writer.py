"""Checkpoints are written behind the training's back: one in the air, and nobody waits for it but the next."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest
import torch

from ssm_platform.base.storage import Storage, open_storage
from ssm_platform.train.checkpoints import Checkpoints, Writer


class Gated:
    """Real storage whose writes begin when the gate is opened."""

    def __init__(self, storage: Storage) -> None:
        self._storage, self.uri = storage, storage.uri
        self.reached, self.gate = threading.Event(), threading.Event()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._storage, name)

    def write(self, key: str, data: bytes) -> None:
        self.reached.set()
        assert self.gate.wait(30)
        self._storage.write(key, data)


@pytest.fixture
def storage(tmp_path: Path) -> Gated:
    return Gated(open_storage(tmp_path))


def steps(storage: Gated) -> list[int]:
    return [marker.step for marker in Checkpoints(open_storage(storage.uri)).complete()]


def test_submit_returns_while_the_write_goes_on(storage: Gated) -> None:
    writer = Writer(Checkpoints(storage), "run")  # type: ignore[arg-type]
    writer.submit({"weight": torch.ones(2)}, 1, None)
    assert storage.reached.wait(30)
    assert steps(storage) == []  # the write has begun and not ended, and here we are
    storage.gate.set()
    writer.close()
    assert steps(storage) == [1]


def test_a_second_one_waits_for_the_first(storage: Gated) -> None:
    writer = Writer(Checkpoints(storage), "run")  # type: ignore[arg-type]
    writer.submit({"weight": torch.ones(2)}, 1, None)
    second = threading.Thread(target=writer.submit, args=({"weight": torch.ones(2)}, 2, None))
    second.start()
    second.join(0.3)
    assert second.is_alive()
    storage.gate.set()
    second.join(30)
    assert 1 in steps(storage)
    writer.close()
    assert steps(storage) == [1, 2]
