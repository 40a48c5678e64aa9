"""Notices an engine that hangs or is broken: only a new process can take its device back."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

from iris.engine.activity import Activity

_log = logging.getLogger("iris.engine")


class Watchdog:
    """Calls `on_hang` once if a stretch of work takes longer than `stall_s`.

    And if the engine is broken, which keeps nobody waiting: everything fails at once.
    """

    def __init__(
        self,
        activity: Activity,
        stall_s: float,
        on_hang: Callable[[], None],
        is_broken: Callable[[], bool] = lambda: False,
    ) -> None:
        self._activity = activity
        self._stall_s = stall_s
        self._on_hang = on_hang
        self._is_broken = is_broken
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="iris-watchdog", daemon=True)

    @property
    def is_stalled(self) -> bool:
        """Whether something takes too long right now."""
        return self._activity.longest_s() > self._stall_s

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stopped.set()

    def _run(self) -> None:
        while not self._stopped.wait(min(1.0, self._stall_s / 4)):
            if self.is_stalled:
                _log.critical("the device has hung for %.0f s", self._activity.longest_s())
            elif self._is_broken():
                _log.critical("the engine is broken: one picture after another fails")
            else:
                continue
            self._on_hang()
            return
