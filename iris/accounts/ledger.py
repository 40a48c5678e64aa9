"""The ledger as the front uses it: every picture's price reserved, then captured or voided."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from concurrent.futures import Future
from functools import partial
from pathlib import Path
from typing import TypeVar, cast

from iris.accounts.db import Database
from iris.accounts.holds import Capture, Hold, Refused, Reserve, Void
from iris.accounts.lease import Lease
from iris.accounts.mark import SendByte
from iris.accounts.outcomes import Claim, Mine, Outcome, Standing, claim_outcome, give_up_outcome
from iris.accounts.posting import Result
from iris.accounts.recovery import Watch, recover
from iris.accounts.till import UNWRITABLE, Till
from iris.accounts.usage import Delivery
from iris.errors import BackendUnavailable

T = TypeVar("T")

DEFAULT_OUTCOME_BYTES = 256 << 20
PATIENCE_S = 12.0  # a little more than one writer waits for another

_log = logging.getLogger("iris")


class Ledger:
    """One for each process that serves pictures. Its methods are for one event loop."""

    def __init__(
        self,
        database: Database,
        home: Path,
        *,
        max_outcome_bytes: int = DEFAULT_OUTCOME_BYTES,
        patience_s: float = PATIENCE_S,
    ) -> None:
        """Resolve what dead processes of this home left open, and take up a lease.

        max_outcome_bytes: of replies kept for Idempotency-Keys, in the whole database.
        patience_s: how long a reservation or a claim waits for its turn and the database.

        Raises:
            ConfigError: no lease can be had in `home`.
        """
        self.database = database
        self._patience_s = patience_s
        recover(database, home)
        self._lease = Lease(home)
        self._till = Till(
            database,
            self._lease,
            max_outcome_bytes=max_outcome_bytes,
            on_tick=Watch(self._lease.id, home),
        )

    async def reserve(self, key_id: str) -> Hold | Refused:
        """Check the key's limits and its account's balance, and set the price of one picture aside.

        Raises:
            BackendUnavailable: it cannot be written, or not in time; then nothing is set aside.
        """
        result = await self._result(self._till.post(Reserve(key_id)), self._void_unwanted)
        return cast(Hold | Refused, result)

    def note_delivered(
        self, hold: Hold, delivery: Delivery, let_go: Callable[[SendByte], None] | None = None
    ) -> None:
        """Write down, cheaply, that the picture was handed over; `capture` has to follow.

        From here on the death of the process does not make the picture free.

        let_go: hands it over for good, by sending its last byte with the function that it is given:
            sent and written down are one thing then.
        """
        self._lease.note(hold.id, delivery, let_go)

    async def capture(self, hold: Hold, delivery: Delivery, outcome: Outcome | None = None) -> bool:
        """Take the price of a delivered picture, and keep its reply where there is an outcome.

        Returns when that is written; it is written also if nobody waits any more. False: the hold
        had been voided, because this process was taken for dead.
        """
        future = self._till.post(Capture(hold.id, delivery, outcome))
        is_captured = await asyncio.shield(asyncio.wrap_future(future)) == "captured"
        if not is_captured:
            _log.warning("a delivered picture is free", extra={"fields": {"hold": hold.id}})
        return is_captured

    def void(self, hold: Hold) -> Future[Result]:
        """Give the price back. Counts for every reservation that is asked for after this call."""
        return self._till.post(Void(hold.id))

    async def claim(self, claim: Claim) -> Standing:
        """Say whether the picture of an Idempotency-Key is to be made, in the making, or there.

        Raises:
            InvalidRequest: the token belongs to another request, or its picture is not kept.
            BackendUnavailable: the database cannot be written, or not in time; then nothing is
                claimed.
        """
        future = self._till.call(
            lambda session, now_ms: claim_outcome(session, claim, self._lease.id, now_ms),
            undo=lambda session, _: give_up_outcome(session, claim),
        )
        return await self._result(future, partial(self._give_up_unwanted, claim))

    def give_up(self, claim: Claim) -> None:
        """The picture of a claim that was `Mine` will not come: let somebody else make it.

        Written some time, as a void is.
        """
        self._till.call(lambda session, _: give_up_outcome(session, claim), is_due=True)

    def close(self) -> None:
        """Write what is left to write, and let the lease go."""
        self._lease.close(is_settled=self._till.close())

    async def _result(self, future: Future[T], unwanted: Callable[[Future[T]], None]) -> T:
        """What the till answers, in time.

        unwanted: called with it where it comes when nobody waits any more.
        """
        try:
            async with asyncio.timeout(self._patience_s):
                return await asyncio.wrap_future(future)
        except (asyncio.CancelledError, TimeoutError) as error:
            future.add_done_callback(unwanted)
            if isinstance(error, TimeoutError):
                raise BackendUnavailable(UNWRITABLE) from error
            raise

    def _void_unwanted(self, future: Future[Result]) -> None:
        is_there = not future.cancelled() and future.exception() is None
        if is_there and isinstance(hold := future.result(), Hold):
            self.void(hold)

    def _give_up_unwanted(self, claim: Claim, future: Future[Standing]) -> None:
        is_there = not future.cancelled() and future.exception() is None
        if is_there and isinstance(future.result(), Mine):
            self.give_up(claim)
