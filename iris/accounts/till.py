"""The till: one thread that writes all that one process has to write about money.

What arrives while it writes waits and is then written together, so under load one commit to the
disk serves many pictures. What a full disk or a lost database kept from being written is tried
again as long as the process lives; what it does not live to see, the next one finds.
"""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any, TypeVar

from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from iris.accounts.clock import Clock
from iris.accounts.db import Database
from iris.accounts.holds import Entry, Reserve, Void, new_hold_id
from iris.accounts.lease import Lease
from iris.accounts.posting import Result, post
from iris.errors import BackendUnavailable, IrisError

T = TypeVar("T")
Call = Callable[[Session, int], Any]  # gets the time in unix milliseconds

MAX_BATCH = 128
RETRY_S = 1.0
UNWRITABLE = "The ledger cannot be written at present. Nothing was charged; please try again."

_log = logging.getLogger("iris")


@dataclass(slots=True)
class _Order:
    """One thing to write and who waits for it."""

    what: Entry | Call
    hold_id: str = ""
    is_due: bool = False  # must be written some time, whatever happens now
    undo: Entry | Call | None = None  # due where nobody knows whether this was written
    future: Future[Any] = field(default_factory=Future)


class Till:
    """Safe to call from every thread and event loop of the process."""

    def __init__(
        self,
        database: Database,
        lease: Lease,
        *,
        clock: Clock | None = None,
        max_outcome_bytes: int = 256 << 20,
        tick_s: float = 5.0,
        on_tick: Callable[[Database, int], None] | None = None,
    ) -> None:
        """on_tick: called with the time when the thread starts and every `tick_s`."""
        self._database = database
        self._lease = lease
        self._clock = clock or Clock()
        self._max_outcome_bytes = max_outcome_bytes
        self._tick_s = tick_s
        self._on_tick = on_tick
        self._orders: queue.SimpleQueue[_Order | None] = queue.SimpleQueue()
        self._unwritten: list[_Order] = []  # what is due, to be tried again
        self._is_closing = False
        self._thread = threading.Thread(target=self._run, name="iris-till", daemon=True)
        self._thread.start()

    def post(self, entry: Entry) -> Future[Result]:
        """Write an entry. A reservation gets the id of a new hold.

        The future of a reservation fails with BackendUnavailable when it cannot be written; that of
        a resolution is done when it is written, however long that takes.
        """
        if isinstance(entry, Reserve):
            hold_id = new_hold_id()
            return self._put(_Order(entry, hold_id, undo=Void(hold_id)))
        return self._put(_Order(entry, entry.hold_id, is_due=True))

    def call(
        self, what: Callable[[Session, int], T], *, is_due: bool = False, undo: Call | None = None
    ) -> Future[T]:
        """Run something in a transaction, at its turn; it gets the session and the time.

        The future has its result once that is committed, or its exception.

        is_due: it is tried until it is written, as a resolution is. undo: is due where this fails,
            since it may be written all the same.
        """
        return self._put(_Order(what, is_due=is_due, undo=undo))

    def close(self) -> bool:
        """Write what is waiting and stop; whether everything could be written."""
        self._is_closing = True
        self._orders.put(None)
        self._thread.join()
        return not self._unwritten

    def _put(self, order: _Order) -> Future[Any]:
        if self._is_closing and not order.is_due:
            order.future.set_exception(
                BackendUnavailable("The service is stopping. Try again in a while.")
            )
        else:
            self._orders.put(order)
        return order.future

    def _run(self) -> None:
        tick_at = time.monotonic()
        retry_at = 0.0
        while True:
            if (now := time.monotonic()) >= tick_at:
                self._tick()
                tick_at = now + self._tick_s
            if self._unwritten and now >= retry_at:
                unwritten, self._unwritten = self._unwritten, []
                self._write(unwritten)
                retry_at = time.monotonic() + RETRY_S
            wait_s = max(0.0, min(tick_at, retry_at if self._unwritten else tick_at) - now)
            orders, is_last = self._next(wait_s)
            if orders:
                self._write(orders)
            if is_last:
                while late := self._next(0.0)[0]:  # what nobody waited for is undone
                    self._write(late)
                if self._unwritten:  # a last time
                    unwritten, self._unwritten = self._unwritten, []
                    self._write(unwritten)
                return

    def _next(self, wait_s: float) -> tuple[list[_Order], bool]:
        """What waits, at least one if it comes in time; whether the end was reached."""
        orders: list[_Order] = []
        try:
            order = self._orders.get(timeout=wait_s) if wait_s > 0 else self._orders.get_nowait()
            while order is not None:
                orders.append(order)
                if len(orders) == MAX_BATCH:
                    return orders, False
                order = self._orders.get_nowait()
        except queue.Empty:
            return orders, False
        return orders, True

    def _write(self, orders: list[_Order]) -> None:
        waiting = [o for o in orders if o.is_due or o.future.set_running_or_notify_cancel()]
        if not waiting:
            return
        try:
            answers = self._transact(waiting)
        except SQLAlchemyError as error:
            self._fail(waiting, error)
            return
        except Exception as error:
            if len(waiting) == 1:
                self._fail(waiting, error)
                return
            for order in waiting:  # which one of them is it
                self._write_alone(order)
            return
        for order, answer in zip(waiting, answers, strict=True):
            if order.is_due:
                self._lease.forget(order.hold_id)
            _answer(order.future, answer)

    def _write_alone(self, order: _Order) -> None:
        try:
            (answer,) = self._transact([order])
        except Exception as error:
            self._fail([order], error)
            return
        if order.is_due:
            self._lease.forget(order.hold_id)
        _answer(order.future, answer)

    def _transact(self, orders: Sequence[_Order]) -> list[Any]:
        now_ms = self._clock.now_ms()
        entries = [(o.hold_id, o.what) for o in orders if isinstance(o.what, Entry)]
        with self._database.write() as session:
            posted = iter(
                post(
                    session,
                    entries,
                    now_ms=now_ms,
                    lease_id=self._lease.id,
                    max_outcome_bytes=self._max_outcome_bytes,
                )
            )
            return [
                next(posted) if isinstance(o.what, Entry) else _run_call(o.what, session, now_ms)
                for o in orders
            ]

    def _fail(self, orders: list[_Order], error: Exception) -> None:
        """Tell who waits; what is due is tried again, and nobody is told of it."""
        _log.error(
            "the ledger could not be written",
            extra={"fields": {"exception": _name(error), "orders": len(orders)}},
        )
        for order in orders:
            if order.is_due:
                self._unwritten.append(order)
                continue
            if order.undo is not None:
                # It may be written all the same, when the answer to the commit was lost.
                self._unwritten.append(_Order(order.undo, order.hold_id, is_due=True))
            told = error if isinstance(error, IrisError) else BackendUnavailable(UNWRITABLE)
            told.__cause__ = None if told is error else error
            _answer(order.future, told)

    def _tick(self) -> None:
        if self._on_tick is None:
            return
        try:
            self._on_tick(self._database, self._clock.now_ms())
        except Exception as error:  # the next one may do better, and money must go on meanwhile
            _log.error(
                "the ledger could not be tended", extra={"fields": {"exception": _name(error)}}
            )


def _run_call(call: Call, session: Session, now_ms: int) -> Any:
    """One call among others: an error it raises is its own, and undoes nothing but itself."""
    try:
        with session.begin_nested():
            return call(session, now_ms)
    except IrisError as error:
        return error


def _answer(future: Future[Any], answer: Any) -> None:
    if future.cancelled():
        return
    if isinstance(answer, Exception):
        future.set_exception(answer)
    else:
        future.set_result(answer)


def _name(error: Exception) -> str:
    cause = getattr(error, "orig", None) or error
    return f"{type(cause).__module__}.{type(cause).__qualname__}"
