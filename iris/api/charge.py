"""The price of one picture: set aside before the engine, taken when the picture is handed over."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from iris.accounts.holds import Hold, Refused
from iris.accounts.ledger import Ledger
from iris.accounts.mark import SendByte
from iris.accounts.outcomes import Claim, Outcome
from iris.accounts.usage import Delivery
from iris.api.line import Line
from iris.api.protocol import keeping_back, was_handed_over
from iris.api.record import RequestRecord, record_of
from iris.errors import BackendUnavailable

PATIENCE_S = 5.0  # for the database; what it has not written then it writes later


class Charge:
    """Follows the hold of one request to its end. Whatever is not captured is voided."""

    def __init__(self, ledger: Ledger, hold: Hold, record: RequestRecord) -> None:
        self._ledger = ledger
        self._hold = hold
        self._record = record
        self._is_open = True

    @classmethod
    async def reserve(cls, ledger: Ledger, key_id: str, record: RequestRecord) -> Charge:
        """Set the price of a picture aside, within the key's limits.

        Raises:
            RateLimited, InsufficientQuota, AccountSuspended, Unauthenticated: refused; nothing is
                set aside and nothing counted.
            BackendUnavailable: the ledger cannot be written.
        """
        answer = await ledger.reserve(key_id)
        record.quota = answer.quota
        if isinstance(answer, Refused):
            raise answer.error
        charge = cls(ledger, answer, record)
        record.charge = charge
        return charge

    @property
    def cost_idr(self) -> int:
        return self._hold.amount_idr

    def void(self) -> None:
        """Give the price back, unless it was taken."""
        if self._is_open:
            self._is_open = False
            self._ledger.void(self._hold)

    async def keep(self, delivery: Delivery, claim: Claim, response: Response) -> None:
        """Take the price and keep the reply, in one step: from here on it can be had again.

        Raises:
            BackendUnavailable: it could not be written yet; it will be, and a retry will find it.
        """
        self._is_open = False
        self._record.is_kept = True
        outcome = Outcome(claim, dict(response.headers), bytes(response.body))
        if not await self._capture(delivery, outcome):
            raise BackendUnavailable(
                "The picture is there and cannot be charged at present. Ask again with the same "
                "`Idempotency-Key`: it costs nothing more."
            )

    def note(self, delivery: Delivery, let_go: Callable[[SendByte], None] | None) -> None:
        """Hand the end of the reply over and write that down, in case the process dies now.

        Raises OSError: the system did not take the end, or the disk did not take the note.
        """
        self._ledger.note_delivered(self._hold, delivery, let_go)

    async def capture(self, delivery: Delivery) -> None:
        """Take the price of a picture that was handed over."""
        self._is_open = False
        await self._capture(delivery, None)

    async def _capture(self, delivery: Delivery, outcome: Outcome | None) -> bool:
        """Whether it is written by now; it is written in the end in any case."""
        capture = asyncio.ensure_future(self._ledger.capture(self._hold, delivery, outcome))
        await asyncio.wait({capture}, timeout=PATIENCE_S)
        if capture.done() and capture.result():
            self._record.charged_idr = self._hold.amount_idr
        return capture.done()


class PaidReply:
    """A reply whose price is taken once it has been handed over whole."""

    def __init__(self, response: Response, charge: Charge, delivery: Delivery) -> None:
        self._response = response
        self._charge = charge
        self._delivery = delivery

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        with keeping_back(scope) as line:
            await self._response(scope, receive, send)
            is_whole = await was_handed_over(scope)
            if is_whole and line:
                is_whole = await self._let_go(scope, line)
            elif is_whole:
                with suppress(OSError):  # a full disk; the money is taken in the next step
                    self._charge.note(self._delivery, None)
        if is_whole:
            await self._charge.capture(self._delivery)
        else:
            record_of(scope).client_left = True
            self._charge.void()

    async def _let_go(self, scope: Scope, line: Line) -> bool:
        """Hand the end over as well and note it, as one; whether the system took it."""
        while True:
            try:
                self._charge.note(self._delivery, line.let_go)
            except BlockingIOError:
                await line.until_it_takes_more()
            except ConnectionError:
                return False
            except OSError:  # a full disk; the money is taken in the next step
                line.release()
                return await was_handed_over(scope)
            else:
                return True
