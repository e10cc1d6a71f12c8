"""The progress of a run: rank 0 tells a small actor where it is, the driver draws one bar with rate and ETA.

Where nobody looks at a screen, as with `python jobs/train.py 2> log`, it writes a plain line once a minute instead.

A bar drawn by a worker would reach the driver line by line with a prefix; an actor without CPUs costs nothing and
survives worker restarts. Losing it loses only the bar, never the run. What workers have to say (a clip that cannot be
read) comes the same way, above the bar: their own screens, full of Ray's remarks, are not shown.
"""

from __future__ import annotations

import logging
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from typing import Any

from ssm_platform.base import has_screen

_INTERVAL = 0.5
_LINE = 60.0  # seconds from one line of a log to the next
_SAID = 200
_OURS = ("ssm", "ssm_platform")
_PATIENCE = 5.0  # seconds that one look at the board may take, and that the end waits for the last one


@dataclass(frozen=True)
class Position:
    """Where a run is, and a short note (loss, last validation) to show behind the bar."""

    step: int
    total: int
    note: str = ""
    said: tuple[str, ...] = ()  # by the workers, from the beginning


class Board:
    """Holds the newest position; runs as a Ray actor."""

    def __init__(self) -> None:
        self._position: Position | None = None
        self._said: list[str] = []

    def say(self, text: str) -> None:
        """Takes a worker's warning; the same text once, a few hundred at most."""
        if text not in self._said and len(self._said) < _SAID:
            self._said.append(text)

    def put(self, position: Position) -> None:
        """Replaces the position."""
        self._position = position

    def get(self) -> Position | None:
        """The newest position, None before the first."""
        return self._position and replace(self._position, said=tuple(self._said))


class Herald(logging.Handler):
    """Brings warnings of our own from a worker to the board."""

    def __init__(self, board: Any) -> None:
        super().__init__(logging.WARNING)
        self._board = board

    def emit(self, record: logging.LogRecord) -> None:
        """Sends it and does not wait."""
        self._board.say.remote(record.getMessage())


@contextmanager
def heralded(board: Any | None) -> Iterator[None]:
    """Warnings of our packages reach `board` for the body of a `with`."""
    if board is None:
        yield
        return
    handler = Herald(board)
    for name in _OURS:
        logging.getLogger(name).addHandler(handler)
    try:
        yield
    finally:
        for name in _OURS:
            logging.getLogger(name).removeHandler(handler)


class Reporter:
    """The worker's side: sends at most a few positions a second and never waits."""

    def __init__(self, board: Any | None) -> None:
        self._board = board
        self._last = 0.0

    def __call__(self, step: int, total: int, note: str) -> None:
        """Tells the board; drops what comes too soon after the last, except the end."""
        now = time.monotonic()
        if self._board is None or (now - self._last < _INTERVAL and step < total):
            return
        self._last = now
        self._board.put.remote(Position(step, total, note))


@contextmanager
def shown(title: str) -> Iterator[Any]:
    """Yields the board's actor handle and draws the bar until the block ends. Needs a joined cluster."""
    import ray

    board: Any = ray.remote(Board).options(num_cpus=0).remote()
    done = threading.Event()
    thread = threading.Thread(target=_draw, args=(title, board, done), name="progress", daemon=True)
    thread.start()
    try:
        yield board
    finally:
        done.set()
        thread.join(timeout=_PATIENCE)
        ray.kill(board)


def _draw(title: str, board: Any, done: threading.Event) -> None:
    import ray

    with closing(_Bar(title) if has_screen() else _Lines(title)) as progress:
        while True:
            finished = done.wait(_INTERVAL)
            try:
                position = ray.get(board.get.remote(), timeout=_PATIENCE)
            except ray.exceptions.GetTimeoutError:
                position = None  # a slow moment: the next look may find more
            except ray.exceptions.RayError:
                return  # the cluster is going down; the run itself reports why
            if position is not None:
                progress.show(position)
            if finished:
                return


class _Bar:
    """One line of a screen, drawn over itself."""

    def __init__(self, title: str) -> None:
        from tqdm import tqdm

        self._bar: Any = tqdm(desc=title, unit="step", dynamic_ncols=True, mininterval=_INTERVAL)
        self._said = 0

    def show(self, position: Position) -> None:
        """Draws it; what was said stands above."""
        bar = self._bar
        for text in position.said[self._said :]:
            bar.write(text, file=bar.fp)
        self._said = len(position.said)
        if bar.total is None:  # first sight: a resumed run starts at its step, and what was done before is no rate
            bar.reset(total=position.total)
            bar.initial = position.step
        bar.n = position.step
        bar.set_postfix_str(position.note, refresh=False)
        bar.refresh()

    def close(self) -> None:
        """Leaves the bar as it is."""
        self._bar.close()


class _Lines:
    """Lines of a log: the position once a minute and at the end, and at once what was said."""

    def __init__(self, title: str) -> None:
        self._title, self._said = title, 0
        self._first: tuple[int, float] | None = None  # the step at first sight, from which the rate counts, and when
        self._written = -_LINE
        self._newest: Position | None = None  # where it is not written yet

    def show(self, position: Position) -> None:
        """Writes it if a line is due."""
        now = time.monotonic()
        for text in position.said[self._said :]:
            self._write(text)
        self._said = len(position.said)
        self._first = self._first or (position.step, now)
        self._newest = position
        if now - self._written >= _LINE:
            self._written = now
            self._write(self._line(position, *self._first))

    def close(self) -> None:
        """Writes the last position."""
        if self._newest and self._first:
            self._write(self._line(self._newest, *self._first))

    def _line(self, position: Position, first: int, since: float) -> str:
        from tqdm import tqdm

        self._newest = None
        line: str = tqdm.format_meter(
            position.step,
            position.total,
            time.monotonic() - since,
            prefix=self._title,
            unit="step",
            initial=first,
            postfix=position.note,
            bar_format="{desc}: {n_fmt}/{total_fmt} [{elapsed}<{remaining}, {rate_fmt}{postfix}]",
        )
        return line

    def _write(self, text: str) -> None:
        print(text, file=sys.stderr, flush=True)
