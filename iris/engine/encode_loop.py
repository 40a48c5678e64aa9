"""The thread that encodes images, of one picture after another, the most urgent first."""

from __future__ import annotations

import time

from iris.engine.conditioning import Conditioner
from iris.engine.loop import Loop
from iris.engine.register import Register


class EncodeLoop(Loop):
    """Makes rows of tickets whose prompts are encoded and whose images are not."""

    def __init__(self, register: Register, conditioner: Conditioner) -> None:
        super().__init__("iris-encode", register)
        self._conditioner = conditioner

    def _turn(self) -> None:
        ticket_id = self._next()
        entry = self._register.get(ticket_id) if ticket_id is not None else None
        if ticket_id is not None and entry is not None and entry.prompt is not None:
            self._register.encoded(ticket_id, self._conditioner.row(entry.job, entry.prompt))

    def _next(self) -> str | None:
        with self._register.changed:
            self._register.changed.wait_for(
                lambda: self._is_stopped or self._most_urgent() is not None, timeout=1.0
            )
            self._register.let_go(time.monotonic())
            return None if self._is_stopped else self._most_urgent()

    def _most_urgent(self) -> str | None:
        work = self._scheduler.next_encode(self._has_prompt, time.monotonic())
        return None if work is None else work.ticket_id

    def _has_prompt(self, ticket_id: str) -> bool:
        entry = self._register.get(ticket_id)
        return entry is not None and entry.prompt is not None
