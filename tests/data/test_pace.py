"""What we use of Ray that is not promised: in one module, and there, so that another Ray fails here first."""

from __future__ import annotations

import inspect
import re
import time
from pathlib import Path

import pytest
from ray._private import worker
from ray.data import DataContext
from ray.data._internal.execution.execution_callback import ExecutionCallback
from ray.data._internal.iterator.stream_split_iterator import StreamSplitDataIterator

from ssm_platform.data import pace

REPOSITORY = Path(__file__).resolve().parents[2]
PRIVATE = re.compile(
    r"^\s*(?:from|import) ray[\w.]*(?:\._\w+|\.v2\b)|\b(?:custom_execution|issue_detectors|_coord_actor)", re.MULTILINE
)


def test_private_names_of_ray_are_in_one_module() -> None:
    places = [path for folder in ("platform", "serve", "jobs", "bench") for path in (REPOSITORY / folder).rglob("*.py")]
    assert len(places) > 100
    assert [path.name for path in places if PRIVATE.search(path.read_text())] == ["pace.py"]


def test_what_ray_does_not_promise_is_still_there(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "on_execution_step" in vars(ExecutionCallback), "the end of a turn of Ray Data's scheduler"
    context = DataContext.get_current()
    monkeypatch.setattr(context, "custom_execution_callback_classes", [])
    monkeypatch.setattr(context.issue_detectors_config, "detectors", context.issue_detectors_config.detectors)
    monkeypatch.setattr(context, "enable_progress_bars", True)
    monkeypatch.setattr(worker, "print_to_stdstream", worker.print_to_stdstream)
    for _ in range(2):
        pace.keep_pace()
    assert context.custom_execution_callback_classes == [pace.Pace], "once"
    assert context.issue_detectors_config.detectors == []
    assert "self._coord_actor" in inspect.getsource(StreamSplitDataIterator), "whom a worker asks for its part"


def test_advice_is_dropped_and_trouble_is_shown(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker, "print_to_stdstream", worker.print_to_stdstream)  # as it was, afterwards
    pace.without_advice()
    pace.without_advice()
    killed = "Task MapWorker.submit failed. Error: The actor is dead because it was killed by `ray.kill`."
    for line in ("WARNING: 8 PYTHON worker processes have been started on node: 7450", killed, "a node was lost"):
        data = {"lines": [line], "pid": "raylet", "is_err": False, "ip": "127.0.0.1", "job": None}
        worker.print_to_stdstream(data, ignore_prefix=False)
    shown = "".join(capsys.readouterr())
    assert "a node was lost" in shown
    assert "have been started" not in shown
    assert "killed" not in shown


def test_a_turn_lasts_as_long_as_it_is_told_and_no_longer() -> None:
    callback, started = pace.Pace(), time.monotonic()
    for _ in range(4):
        callback.on_execution_step(None)
    assert 3 * pace._TURN <= time.monotonic() - started < 8 * pace._TURN
    time.sleep(2 * pace._TURN)
    late = time.monotonic()
    callback.on_execution_step(None)
    assert time.monotonic() - late < pace._TURN / 2, "a long turn is not made longer"
