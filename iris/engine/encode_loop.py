"""The thread that encodes images, of one picture after another, the most urgent first."""

from __future__ import annotations

import time

from iris.engine.conditioning import Conditioner
from iris.engine.loop import Loop
from iris.engine.register import Register
from iris.engine.ticket import Entry


class EncodeLoop(Loop):
    """Makes rows of tickets whose prompts are encoded and whose images are not."""

    def __init__(self, register: Register, conditioner: Conditioner) -> None:
        super().__init__("iris-encode", register)
        self._conditioner = conditioner

    def _turn(self) -> None:
        found = self._next()
        if found is not None:
            ticket_id, entry = found
            prompt = entry.prompt
            if prompt is not None:
                self._register.encoded(ticket_id, self._conditioner.row(entry.job, prompt))

    def _next(self) -> tuple[str, Entry] | None:
        with self._register.changed:
            self._register.changed.wait_for(
                lambda: self._is_stopped or self._most_urgent() is not None, timeout=1.0
            )
            return None if self._is_stopped else self._most_urgent()

    def _most_urgent(self) -> tuple[str, Entry] | None:
        for work in self._scheduler.to_encode(time.monotonic()):
            entry = self._register.get(work.ticket_id)
            if entry is not None and entry.prompt is not None:
                return work.ticket_id, entry
        return None
