"""A thread of the engine that does one thing after another until it is stopped."""

from __future__ import annotations

import logging
import threading
import time
from abc import ABC, abstractmethod

from iris.engine.register import Register, without_text
from iris.engine.scheduler import Stage
from iris.jobs import Failure

_log = logging.getLogger("iris.engine")


class Loop(ABC):
    """Turns, each on whatever the register's scheduler has for it."""

    def __init__(self, name: str, register: Register) -> None:
        self._register = register
        self._scheduler = register.scheduler
        self._is_stopped = False
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    @property
    def is_alive(self) -> bool:
        return self._thread.is_alive()

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Return when the turn that is under way is done."""
        with self._register.changed:
            self._is_stopped = True
            self._register.changed.notify_all()
        if self._thread.is_alive():
            self._thread.join()

    def _may_run(self, stage: Stage) -> bool:
        """Whether there is something to do that nobody more urgent is to be spared from."""
        return self._scheduler.may_run(stage, time.monotonic())

    @abstractmethod
    def _turn(self) -> None:
        """Wait for something to do, or to be stopped, and do it."""

    def _run(self) -> None:
        try:
            while not self._is_stopped:
                self._turn()
        except Exception as error:
            # A bug of ours, not of one picture: nobody may wait for a thread that is gone.
            _log.critical("%s ended", self._thread.name, exc_info=without_text(error))
            self._register.fail_all(Failure("backend_error", "The picture could not be made."))
