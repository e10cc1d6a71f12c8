"""Checkpoints in an object store, also on a day when the server misbehaves."""

from __future__ import annotations

import pytest
import torch
from faulty_s3 import Faulty

from ssm_platform.base.storage import StorageSettings, open_storage
from ssm_platform.train.checkpoints import CheckpointError, Checkpoints

STATE = {"weight": torch.arange(5.0)}


def quick(uri: str, deadline: float = 20) -> Checkpoints:
    return Checkpoints(
        open_storage(uri, StorageSettings(deadline_s=deadline, backoff_s=0.01, timeout_s=2)), 1, deadline
    )


def test_checkpoints_live_in_a_bucket(bucket: str) -> None:
    checkpoints = quick(f"{bucket}/runs/one")
    for step in (1, 2, 3):
        checkpoints.write(STATE, step, "run", score=-step)
    assert [marker.step for marker in checkpoints.complete()] == [1, 3]  # the best and the newest
    found = checkpoints.resume()
    assert found is not None
    assert torch.equal(found[1]["weight"], STATE["weight"])


@pytest.mark.parametrize("fault", ["error500", "dropped"])
def test_a_server_that_fails_for_a_while_costs_nothing(faulty: Faulty, fault: str) -> None:
    checkpoints = quick(f"{faulty.uri}/run")
    checkpoints.write(STATE, 1, "run", None)
    faulty.schedule(*[fault] * 3)
    checkpoints.write(STATE, 2, "run", None)
    faulty.schedule(*[fault] * 3)
    found = checkpoints.resume()
    assert found is not None
    assert found[0].step == 2


def test_a_server_that_stays_away_ends_in_an_error_that_keeps_the_last_good_one(faulty: Faulty) -> None:
    checkpoints = quick(f"{faulty.uri}/run", deadline=0.5)
    checkpoints.write(STATE, 1, "run", None)
    faulty.schedule(*["error500"] * 50)
    with pytest.raises(CheckpointError, match=r"last complete checkpoint is kept"):
        checkpoints.write(STATE, 2, "run", None)
