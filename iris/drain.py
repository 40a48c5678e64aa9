"""Between being told to end and ending: what has begun is finished first, and answers are given."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Awaitable, Callable
from types import FrameType
from typing import Any


class Drain:
    """Puts off the end that a signal asks a server for until `finish` returns.

    A server that is told to end stops to listen at once. Its connections would then be left
    unanswered, because BentoML's arbiter, and not the server, owns the socket. So the server hears
    of the signal only when everything is done, and until then answers whoever comes.
    """

    def __init__(self, finish: Callable[[], Awaitable[None]]) -> None:
        """finish: let nothing new begin, and wait, within bounds, for what has begun."""
        self._finish = finish
        self._server_ends: dict[int, Any] = {}
        self._task: asyncio.Task[None] | None = None
        self._is_told = False

    def install(self) -> None:
        """Take SIGINT and SIGTERM over from the server, whose handlers are there when it starts.

        Call it in the main thread, with the server's event loop running.
        """
        loop = asyncio.get_running_loop()

        def told(number: int, _: FrameType | None) -> None:
            if not self._is_told:
                self._is_told = True
                loop.call_soon_threadsafe(self._begin, number)
            elif number == signal.SIGINT:  # somebody does not want to wait
                self._end(number)

        for number in (signal.SIGINT, signal.SIGTERM):
            self._server_ends[number] = signal.signal(number, told)

    def _begin(self, number: int) -> None:
        self._task = asyncio.ensure_future(self._run(number))  # held, or it could be collected

    async def _run(self, number: int) -> None:
        try:
            await self._finish()
        finally:
            self._end(number)

    def _end(self, number: int) -> None:
        handler = self._server_ends[number]
        if callable(handler):
            handler(number, None)
