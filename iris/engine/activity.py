"""What the engine's threads are at: so that a hang is seen, and shared time is counted once."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass


@dataclass(slots=True, eq=False)
class Section:
    """One stretch of work of one thread."""

    began_at_s: float
    seconds: float = 0.0  # set at its end: its share of the time, see `Activity`


class Activity:
    """Stretches of work that go on side by side.

    While two share the device, each gets half of the time that passes. So what all of them took
    adds up to the time that went by, and the cost model, which adds up costs, predicts that.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._open: set[Section] = set()
        self._shared_s = 0.0  # a clock that runs at 1/n where n sections are open
        self._at_s = time.monotonic()

    @contextmanager
    def section(self) -> Iterator[Section]:
        """Work inside; the section's `seconds` are there when it is left."""
        section = Section(time.monotonic())
        with self._lock:
            self._pass_time()
            began_s = self._shared_s
            self._open.add(section)
        try:
            yield section
        finally:
            with self._lock:
                self._pass_time()
                self._open.remove(section)
                section.seconds = self._shared_s - began_s

    def longest_s(self) -> float:
        """How long the section that is open the longest has been open; 0 without any."""
        with self._lock:
            begun = [section.began_at_s for section in self._open]
        return time.monotonic() - min(begun) if begun else 0.0

    def _pass_time(self) -> None:
        now = time.monotonic()
        self._shared_s += (now - self._at_s) / max(len(self._open), 1)
        self._at_s = now
