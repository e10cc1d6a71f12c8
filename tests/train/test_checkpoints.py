"""Checkpoints after deaths at any moment, on damaged and on absent storage."""

from __future__ import annotations

import errno
import itertools
import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch

from ssm_platform.base.storage import Storage, open_storage
from ssm_platform.train.checkpoints import CheckpointError, Checkpoints, Writer, detached


def state(step: int) -> dict[str, Any]:
    return {"train": {"weight": torch.full((4,), float(step))}, "position": {"done": step, "curves": [{"step": 1.0}]}}


def made(folder: Path, *steps: tuple[int, float | None], keep: int = 2) -> Checkpoints:
    checkpoints = Checkpoints(open_storage(folder), keep)
    for step, score in steps:
        checkpoints.write(state(step), step, "run", score)
    return checkpoints


class Unreliable:
    """Real storage whose writes fail as told: one error, or None, for each write."""

    def __init__(self, storage: Storage, errors: list[OSError | None]) -> None:
        self._storage, self._errors = storage, itertools.chain(errors, itertools.repeat(None))
        self.uri = storage.uri

    def __getattr__(self, name: str) -> Any:
        return getattr(self._storage, name)

    def write(self, key: str, data: bytes) -> None:
        if (error := next(self._errors)) is not None:
            raise error
        self._storage.write(key, data)


def test_what_was_written_is_read_back(tmp_path: Path) -> None:
    found = made(tmp_path, (3, None), (6, 0.5)).resume()
    assert found is not None
    marker, loaded = found
    assert (marker.step, marker.score, marker.fingerprint) == (6, 0.5, "run")
    assert torch.equal(loaded["train"]["weight"], torch.full((4,), 6.0))
    assert loaded["position"] == state(6)["position"]


def test_a_death_before_the_marker_leaves_the_one_before(tmp_path: Path) -> None:
    checkpoints = made(tmp_path, (3, None), (6, None))
    (tmp_path / "checkpoints/step-00000006/complete.json").unlink()
    newest = checkpoints.newest()
    assert newest is not None
    assert newest.step == 3


@pytest.mark.parametrize("damage", [b"", b"\0" * 50, None])
def test_a_damaged_state_is_dropped_and_the_one_before_is_used(tmp_path: Path, damage: bytes | None) -> None:
    checkpoints = made(tmp_path, (3, None), (6, None))
    file = tmp_path / "checkpoints/step-00000006/state.pt"
    if damage is None:
        file.unlink()
    else:
        file.write_bytes(damage)
    first = checkpoints.newest_intact()
    assert first is not None
    assert first.step == 3, "a stream starts where the workers will resume"
    found = checkpoints.resume()
    assert found is not None
    assert found[0].step == 3
    newest = checkpoints.newest()
    assert newest is not None
    assert newest.step == 3  # whoever asks next, asks for the same


def test_a_state_that_cannot_be_read_now_is_not_taken_for_a_damaged_one(tmp_path: Path) -> None:
    made(tmp_path, (3, None), (6, None))

    class Away(Unreliable):
        def as_file(self, key: str) -> Any:
            if key.endswith("00000006/state.pt"):
                raise OSError(errno.EIO, "away")
            return self._storage.as_file(key)

    away = Checkpoints(Away(open_storage(tmp_path), []), deadline=0.1)  # type: ignore[arg-type]
    for look in (away.begin, away.resume):
        with pytest.raises(CheckpointError, match=r"away.*given up") as caught:
            look()
        assert not caught.value.final
    newest = Checkpoints(open_storage(tmp_path)).newest()
    assert newest is not None
    assert newest.step == 6


@pytest.mark.parametrize(
    "damage",
    [b"", b"{", b"\0" * 5, b"\xff{}", b"[6]", b'{"step": 6}']
    + [
        json.dumps({"step": 6, "bytes": 1, "sha256": "", "fingerprint": "run", **wrong}).encode()
        for wrong in ({"step": "x"}, {"step": "6"}, {"score": "high"}, {"attempt": None}, {"unknown": 1})
    ],
)
def test_a_damaged_marker_never_happened(tmp_path: Path, damage: bytes) -> None:
    checkpoints = made(tmp_path, (3, None), (6, None))
    (tmp_path / "checkpoints/step-00000006/complete.json").write_bytes(damage)
    newest = checkpoints.newest()
    assert newest is not None
    assert newest.step == 3


def test_a_state_is_on_the_disk_before_its_marker_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[int] = []
    monkeypatch.setattr(os, "fsync", lambda descriptor: synced.append(os.fstat(descriptor).st_ino))
    made(tmp_path, (3, None))
    folder = tmp_path / "checkpoints/step-00000003"
    assert synced == [(folder / name).stat().st_ino for name in ("state.pt", "complete.json")]


def test_the_best_whose_state_is_damaged_leaves_its_place_to_the_next(tmp_path: Path) -> None:
    checkpoints = made(tmp_path, (1, 0.9), (2, 0.5), (3, 0.7), (4, None), keep=4)
    (tmp_path / "checkpoints/step-00000001/state.pt").write_bytes(b"")
    found = checkpoints.best_intact()
    assert found is not None
    assert found[0].step == 3
    assert torch.equal(found[1]["train"]["weight"], torch.full((4,), 3.0))


def test_nothing_is_loaded_but_tensors_and_plain_values(tmp_path: Path) -> None:
    checkpoints = Checkpoints(open_storage(tmp_path))
    marker = checkpoints.write({"code": Path("/etc")}, 1, "run", None)
    with pytest.raises(Exception, match=r"[Ww]eights.only"):
        checkpoints.load(marker)


def test_where_an_attempt_goes_on_is_decided_once_and_a_late_writer_is_fenced_off(tmp_path: Path) -> None:
    """A dying worker's checkpoint between two looks gave workers another start than their stream."""
    checkpoints = made(tmp_path, (3, None), (6, None))
    left = tmp_path / "checkpoints" / ".x.part"
    left.write_bytes(b"of a process that was killed")
    first = checkpoints.begin()
    assert not left.exists()
    assert (first.number, first.first) == (0, 6)
    assert checkpoints.write(state(9), 9, "run", None, attempt=0).step == 9
    second = Checkpoints(open_storage(tmp_path)).begin()
    assert (second.number, second.first) == (1, 9)
    with pytest.raises(CheckpointError, match=r"attempt 0 of .* is over: attempt 1 has taken over"):
        checkpoints.write(state(12), 12, "run", 0.9, attempt=0)
    (tmp_path / "checkpoints/step-00000012/complete.json").write_text(
        json.dumps({"step": 12, "bytes": 1, "sha256": "", "fingerprint": "run", "score": 0.9, "attempt": 0})
    )  # it was between the check and the marker when the second attempt began
    assert checkpoints.newest() == checkpoints.begin().start == second.start
    mine = checkpoints.write(state(12), 12, "run", None, attempt=2)
    assert checkpoints.newest() == mine
    assert checkpoints.best() is None
    assert torch.equal(checkpoints.load(mine)["train"]["weight"], torch.full((4,), 12.0))


def test_a_marker_of_an_earlier_version_is_a_checkpoint_of_the_first_attempt(tmp_path: Path) -> None:
    checkpoints = made(tmp_path, (6, 0.5))
    path = tmp_path / "checkpoints/step-00000006/complete.json"
    told = {name: value for name, value in json.loads(path.read_text()).items() if name != "attempt"}
    path.write_text(json.dumps(told))
    attempt = checkpoints.begin()
    assert (attempt.number, attempt.first) == (0, 6)


def test_the_newest_and_the_best_are_kept(tmp_path: Path) -> None:
    checkpoints = made(tmp_path, (1, 0.3), (2, 0.9), (3, 0.9), (4, 0.1), (5, None), (6, None))
    assert [marker.step for marker in checkpoints.complete()] == [2, 5, 6]
    best = checkpoints.best()
    assert best is not None
    assert best.step == 2
    assert sorted(path.name for path in (tmp_path / "checkpoints").iterdir() if any(path.iterdir())) == [
        "step-00000002",
        "step-00000005",
        "step-00000006",
    ]


def test_a_score_that_is_nan_is_none(tmp_path: Path) -> None:
    checkpoints = made(tmp_path, (1, float("nan")), (2, 0.4), (3, 0.6), (4, 0.5), (5, None), (6, None))
    best = checkpoints.best()
    assert best is not None
    assert best.step == 3
    assert [marker.step for marker in checkpoints.complete()] == [3, 5, 6]
    assert made(tmp_path / "other", (1, float("nan"))).best() is None


def test_storage_that_comes_back_within_the_deadline_costs_nothing(tmp_path: Path) -> None:
    away = Unreliable(open_storage(tmp_path), [OSError(errno.EIO, "away")])
    assert Checkpoints(away, deadline=30).write(state(1), 1, "run", None).step == 1  # type: ignore[arg-type]
    assert Checkpoints(open_storage(tmp_path)).newest() is not None


def test_storage_that_stays_away_ends_the_run_after_the_deadline_and_keeps_the_last_good_one(tmp_path: Path) -> None:
    made(tmp_path, (1, None))
    away = Unreliable(open_storage(tmp_path), [OSError(errno.EIO, "away")] * 9)
    with pytest.raises(CheckpointError, match=r"away.*checkpoint\.deadline=0.6.*kept"):
        Checkpoints(away, deadline=0.6).write(state(2), 2, "run", None)  # type: ignore[arg-type]
    newest = Checkpoints(open_storage(tmp_path)).newest()
    assert newest is not None
    assert newest.step == 1


def test_a_full_disk_is_told_at_once(tmp_path: Path) -> None:
    full = Unreliable(open_storage(tmp_path), [OSError(errno.ENOSPC, "No space left on device")])
    with pytest.raises(CheckpointError, match="free space or change storage") as caught:
        Checkpoints(full, deadline=3600).write(state(1), 1, "run", None)  # type: ignore[arg-type]
    assert caught.value.final


def test_the_writer_hands_over_a_copy_and_raises_what_went_wrong(tmp_path: Path) -> None:
    weight = torch.zeros(3)
    writer = Writer(Checkpoints(open_storage(tmp_path)), "run")
    writer.submit({"weight": weight}, 1, None)
    weight += 1
    writer.close()
    found = Checkpoints(open_storage(tmp_path)).resume()
    assert found is not None
    assert torch.equal(found[1]["weight"], torch.zeros(3))

    full = Unreliable(open_storage(tmp_path), [OSError(errno.ENOSPC, "full")])
    failing = Writer(Checkpoints(full), "run")  # type: ignore[arg-type]
    failing.submit({"weight": weight}, 2, None)
    with pytest.raises(CheckpointError, match="full"):
        failing.submit({"weight": weight}, 3, None)
    failing.close()


def test_detached_follows_containers() -> None:
    tensor = torch.ones(2)
    copy = detached({"a": [tensor, (tensor, 1)], "b": None})
    tensor += 1
    assert torch.equal(copy["a"][0], torch.ones(2))
    assert torch.equal(copy["a"][1][0], torch.ones(2))
    assert copy["b"] is None
