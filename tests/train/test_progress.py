"""The progress bar: rate and ETA, from where a resumed run starts, and a slow moment does not end it."""

from __future__ import annotations

import io
import logging
import threading
from types import SimpleNamespace
from typing import Any

import pytest
import ray
import ray.exceptions
import tqdm

from ssm_platform.train import progress
from ssm_platform.train.progress import Board, Position, Reporter, heralded


class Screen(io.StringIO):
    """What the bar wrote, line by line."""

    @property
    def states(self) -> list[str]:
        return [line.strip() for line in self.getvalue().replace("\n", "\r").split("\r") if line.strip()]


class Answers:
    """A board at the boundary to Ray: each look gets the next answer; the last one ends the run."""

    def __init__(self, answers: list[Any], done: threading.Event) -> None:
        self._answers, self._done, self.get = iter(answers), done, self

    def remote(self) -> Any:
        answer = next(self._answers, None)
        if answer is None:
            self._done.set()
        return answer


def take(answer: Any, timeout: float) -> Any:
    if isinstance(answer, Exception):
        raise answer
    return answer


@pytest.fixture
def screen(monkeypatch: pytest.MonkeyPatch) -> Screen:
    """Draws onto a screen of its own, as often as it looks."""
    screen, bar = Screen(), tqdm.tqdm
    monkeypatch.setattr(tqdm, "tqdm", lambda **options: bar(**{**options, "file": screen, "ncols": 120}))
    monkeypatch.setattr(progress, "has_screen", lambda: True)
    monkeypatch.setattr(progress, "_INTERVAL", 0.01)
    monkeypatch.setattr(ray, "get", take)
    return screen


def drawn(screen: Screen, *answers: Any) -> list[str]:
    done = threading.Event()
    progress._draw("run", Answers(list(answers), done), done)
    return screen.states


def test_the_bar_shows_step_note_rate_and_time_left(screen: Screen) -> None:
    state = drawn(screen, Position(0, 40), Position(10, 40, "loss 1.234"))[-1]
    assert "10/40" in state
    assert "25%" in state
    assert "step/s" in state or "s/step" in state
    assert "loss 1.234" in state
    assert "?" not in state.partition("[")[2]  # an ETA, not its absence


def test_a_resumed_run_is_not_credited_with_what_was_done_before(screen: Screen) -> None:
    states = drawn(screen, Position(1000, 2000), Position(1001, 2000))
    assert "1001/2000" in states[-1]
    assert not any("1000/2000" in state and "?" not in state for state in states)  # nothing done yet, so no rate


def test_a_slow_moment_does_not_end_the_bar(screen: Screen) -> None:
    slow = ray.exceptions.GetTimeoutError("slow")
    assert "20/40" in drawn(screen, Position(10, 40), slow, Position(20, 40))[-1]


def test_a_cluster_that_goes_down_ends_the_bar_and_nothing_else(screen: Screen) -> None:
    gone = ray.exceptions.RayActorError()
    assert "10/40" in drawn(screen, Position(10, 40), gone, Position(20, 40))[-1]


def test_what_workers_say_stands_above_the_bar_once(screen: Screen) -> None:
    board = Board()

    class Remote:
        def remote(self, text: str) -> None:
            board.say(text)

    with heralded(type("Handle", (), {"say": Remote()})()):
        for text in ("clip a is black", "clip a is black", "clip b is black"):
            logging.getLogger("ssm_platform.train.worker").warning(text)
        logging.getLogger("ray.data").warning("a remark of Ray's")
    logging.getLogger("ssm_platform.train.worker").warning("after the end")
    board.put(Position(1, 4))
    first = board.get()
    board.say("clip c is black")
    states = drawn(screen, first, board.get())
    assert [state for state in states if "black" in state] == [f"clip {name} is black" for name in "abc"]
    assert not any("remark" in state or "after" in state for state in states)


def test_a_log_gets_lines_now_and_then(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """One when it begins, one a minute, the last one; what workers say at once, each once, and nothing drawn over."""
    clock = iter(range(0, 1000, 20))  # seconds, at each look
    monkeypatch.setattr(progress, "time", SimpleNamespace(monotonic=lambda: next(clock) / 2))
    monkeypatch.setattr(ray, "get", take)
    monkeypatch.setattr(progress, "_INTERVAL", 0.01)
    said = ("clip a is black",)
    positions = [Position(100 + step, 200, f"loss 0.{step}", said if step > 1 else ()) for step in range(1, 10)]
    done = threading.Event()
    progress._draw("run", Answers(positions, done), done)
    written = capsys.readouterr().err
    assert "\r" not in written
    lines = written.splitlines()
    assert lines.pop(1) == "clip a is black"
    assert [line.split()[1] for line in lines] == ["101/200", "106/200", "109/200"]
    assert all("loss 0." in line for line in lines)
    assert "step/s" in lines[-1] or "s/step" in lines[-1]  # of what this run did: the first hundred were done before
    assert lines[0].count("?") == 2


def test_reporter_sends_few_positions_and_always_the_last() -> None:
    board, sent = Board(), []

    class Remote:
        def remote(self, position: Position) -> None:
            sent.append(position.step)
            board.put(position)

    reporter = Reporter(type("Handle", (), {"put": Remote()})())
    for step in range(1, 101):
        reporter(step, 100, "")
    assert sent == [1, 100]
    assert board.get() == Position(100, 100)
    Reporter(None)(1, 100, "")  # a run without a bar


@pytest.mark.ray
def test_it_is_drawn_from_what_a_worker_sends(ray_cluster: None, capsys: pytest.CaptureFixture[str]) -> None:
    with progress.shown("mine") as board:
        ray.get(board.put.remote(Position(3, 4, "loss 0.5")))
    error = capsys.readouterr().err
    assert "mine" in error
    assert "3/4" in error
    assert "loss 0.5" in error
