"""The process that forks a child for each upload or camera: `python -m serve.decoding.forker FD`, started by `Sandbox`.

It has imported what decoding needs and holds nothing else: no threads, no model, no token, no environment. A job
comes over the control socket with two descriptors: where the child writes, and where its end is told. When the replica
closes that second one, the child is killed; when the replica dies, everything here is.
"""

from __future__ import annotations

import gc
import json
import os
import selectors
import signal
import socket
import sys
from contextlib import suppress
from typing import Any

import cv2
import numpy as np

from serve.decoding import child
from serve.decoding.messages import ANY_JOB
from ssm_platform.faces import FaceSettings
from ssm_platform.faces.tracker import track

_MOST_JOB = 2**18
_FILES = 4096  # descriptors of other uploads that a child must not keep


class Forker:
    """The loop: jobs in, children out, their ends told."""

    def __init__(self, control: socket.socket) -> None:
        self._control = control
        self._children: set[int] = set()  # by pidfd
        self._selector = selectors.DefaultSelector()
        self._selector.register(control, selectors.EVENT_READ, self._job)

    def run(self) -> None:
        """Until the replica is gone."""
        while True:
            for key, _ in self._selector.select():
                key.data()

    def _job(self) -> None:
        text, files, *_ = socket.recv_fds(self._control, _MOST_JOB, 2)
        if not text:
            self._leave()
        if not files:  # a question whether we are there
            self._control.send(text)
            return
        out, told = files
        pid = os.fork()
        if pid == 0:
            self._become(text, out)
        os.close(out)
        process = os.pidfd_open(pid)
        self._children.add(process)
        self._selector.register(process, selectors.EVENT_READ, lambda: self._ended(pid, process, told))
        self._selector.register(told, selectors.EVENT_READ, lambda: self._unwanted(process, told))

    def _become(self, text: bytes, out: int) -> None:
        """In the child."""
        code = 1
        try:
            os.closerange(3, out)
            os.closerange(out + 1, out + _FILES)
            child.work(ANY_JOB.validate_json(text), socket.socket(fileno=out))
            code = 0
        except BrokenPipeError:  # nobody listens any more
            code = 0
        finally:
            if code and (error := sys.exception()) is not None:
                print(f"decoding failed: {type(error).__name__}: {error}", file=sys.stderr, flush=True)
            os._exit(code)

    def _unwanted(self, process: int, told: int) -> None:
        """The replica closed its end."""
        self._selector.unregister(told)
        signal.pidfd_send_signal(process, signal.SIGKILL)

    def _ended(self, pid: int, process: int, told: int) -> None:
        _, status, usage = os.wait4(pid, 0)
        facts = {"code": os.waitstatus_to_exitcode(status), "cpu_s": usage.ru_utime + usage.ru_stime}
        self._selector.unregister(process)
        self._children.remove(process)
        if told in self._selector.get_map():
            self._selector.unregister(told)
        with suppress(BrokenPipeError):  # the replica gave the upload up
            os.write(told, json.dumps(facts).encode())
        os.close(process)
        os.close(told)

    def _leave(self) -> None:
        """The replica is gone: kill all children and end."""
        for process in self._children:
            signal.pidfd_send_signal(process, signal.SIGKILL)
        os._exit(0)


def warm() -> None:
    """Load what every child needs, so that it is shared between them."""

    class Frame:
        image: Any = np.zeros((64, 64, 3), np.uint8)

    cv2.setNumThreads(1)  # a pool of threads would not live on in a child, which would wait for it for ever
    list(track([Frame()], FaceSettings(detector="haar")))  # jobs come with theirs: nothing is fetched here
    gc.collect()
    gc.freeze()


def main() -> None:
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    control = socket.socket(fileno=int(sys.argv[1]))
    warm()
    assert len(os.listdir("/proc/self/task")) == 1, "a process with threads cannot be forked safely"
    Forker(control).run()


if __name__ == "__main__":
    main()
