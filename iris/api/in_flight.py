"""How many requests of a key have their images decoded at once: no more than it may have in flight.

The ledger counts a request when its price is held, which is after its images were decoded. Until
then it is counted here.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager

from iris.accounts.away import AWAY
from iris.accounts.db import Database
from iris.accounts.keys import max_in_flight
from iris.errors import BackendUnavailable, RateLimited

_RETRY_AFTER_S = 1.0
_PATIENCE_S = 10.0  # how long a look-up may take
_LOOK_UPS = 2  # at once


class InFlight:
    """The places of all keys in one front.

    Limits are looked up in threads of their own: those that a database keeps waiting are missed
    nowhere else.
    """

    def __init__(self) -> None:
        self._taken: Counter[str] = Counter()  # places, by key
        self._threads = ThreadPoolExecutor(_LOOK_UPS, thread_name_prefix="iris-limits")

    @asynccontextmanager
    async def place(self, key_id: str, database: Database) -> AsyncIterator[None]:
        """Have a place of the key's while the context is open.

        Raises:
            RateLimited: the key has as many as it may have.
            BackendUnavailable: its limit cannot be read, or not in time.
        """
        if self._taken[key_id]:  # one is within every limit
            limit = await self._limit(key_id, database)
            if self._taken[key_id] >= limit:
                raise RateLimited(
                    f"This key may have {limit} requests in flight, and the images of so many are "
                    "being decoded. Send it again when one of them is done.",
                    code="concurrency_exceeded",
                    retry_after_s=_RETRY_AFTER_S,
                )
        self._taken[key_id] += 1
        try:
            yield
        finally:
            self._taken[key_id] -= 1
            if not self._taken[key_id]:
                del self._taken[key_id]

    async def _limit(self, key_id: str, database: Database) -> int:
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(_PATIENCE_S) as patience:
                return await loop.run_in_executor(self._threads, max_in_flight, database, key_id)
        except AWAY as error:
            raise _unreadable() from error
        except TimeoutError as error:
            if not patience.expired():
                raise
            raise _unreadable() from error


def _unreadable() -> BackendUnavailable:
    return BackendUnavailable("The key's limits cannot be read at present. Try again.")
