"""The requests that are being served right now."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager


class Requests:
    """Of one event loop, each a task of its own."""

    def __init__(self) -> None:
        self._open: set[asyncio.Task[object]] = set()

    @contextmanager
    def one(self) -> Iterator[None]:
        """While the context is open, the current task serves a request."""
        task = asyncio.current_task()
        assert task is not None  # noqa: S101
        self._open.add(task)
        try:
            yield
        finally:
            self._open.discard(task)

    async def finished(self) -> None:
        """Return when all that are open now have ended; those that come meanwhile do not count."""
        if self._open:
            await asyncio.wait(tuple(self._open))
