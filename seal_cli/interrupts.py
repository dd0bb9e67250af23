"""SIGTERM and SIGHUP end a command as Ctrl-C does: what it started is stopped, or is said to continue."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

_SIGNALS = (signal.SIGTERM, signal.SIGHUP)


class Interrupted(KeyboardInterrupt):
    """A signal other than Ctrl-C's asks the command to end; `number` is the signal's."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.number = number


@contextmanager
def interruptible() -> Iterator[None]:
    """Raises Interrupted in the main thread on SIGTERM and SIGHUP. A signal that is ignored (`nohup`) stays ignored."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    taken = [number for number in _SIGNALS if signal.getsignal(number) is not signal.SIG_IGN]
    previous = {number: signal.signal(number, _interrupt) for number in taken}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def _interrupt(number: int, _: FrameType | None) -> None:
    # Often both the process group and its leader's children get it, so it comes twice; the clean-up must not be
    # interrupted by the second one. Ctrl-C still does.
    for again in _SIGNALS:
        signal.signal(again, signal.SIG_IGN)
    if number == signal.SIGHUP:
        _write_nowhere()
    raise Interrupted(number)


def _write_nowhere() -> None:
    """Lets the messages of the clean-up not fail because the terminal is gone."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in (1, 2):
        if _hung_up(stream):
            os.dup2(nowhere, stream)
    os.close(nowhere)


def _hung_up(stream: int) -> bool:
    """Whether the stream is a terminal that is gone: nothing more can be written to it."""
    try:
        os.write(stream, b"")
    except OSError:
        return True
    return False
