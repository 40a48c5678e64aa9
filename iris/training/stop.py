"""Being told to end: SIGTERM, and SIGHUP of a terminal that is closed, are as Ctrl-C."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

_SIGNALS = (signal.SIGTERM, signal.SIGHUP)


@contextmanager
def stopped_as_by_hand() -> Iterator[None]:
    """Raise KeyboardInterrupt in the main thread at the first of these signals.

    What the process ignores, as SIGHUP under nohup, it goes on ignoring.
    """
    if threading.current_thread() is not threading.main_thread():  # only that one may
        yield
        return

    def stop(number: int, frame: FrameType | None) -> None:
        for number in before:  # a second one would break off what is saved because of the first
            signal.signal(number, signal.SIG_IGN)
        raise KeyboardInterrupt

    before = {
        number: handler
        for number in _SIGNALS
        if (handler := signal.getsignal(number)) not in (signal.SIG_IGN, None)
    }
    try:
        for number in before:
            signal.signal(number, stop)
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
