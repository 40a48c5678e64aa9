"""The one thread that writes: its order, its batches, and what it cannot write."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future
from pathlib import Path

import pytest
from sqlalchemy import text
from sqlalchemy.orm import Session

from iris.accounts.db import Database
from iris.accounts.holds import Capture, Hold, Reserve, Void
from iris.accounts.lease import FOLDER, Lease
from iris.accounts.recovery import recover
from iris.accounts.till import RETRY_S, Till
from iris.errors import BackendUnavailable, InvalidRequest
from tests.accounts.books import DELIVERY, Books
from tests.accounts.flaky import Flaky


@pytest.fixture
def lease(tmp_path: Path) -> Lease:
    return Lease(tmp_path)


@pytest.fixture
def till(either: Database, lease: Lease) -> Iterator[Till]:
    till = Till(either, lease)
    yield till
    lease.close(is_settled=till.close())


def hold_up(till: Till) -> tuple[threading.Event, Future[None]]:
    """Keep the thread busy until the event is set: what comes meanwhile is one batch."""
    go, begun = threading.Event(), threading.Event()

    def wait(_: Session, __: int) -> None:
        begun.set()
        assert go.wait(20)

    future = till.call(wait)
    assert begun.wait(20)
    return go, future


def test_what_waits_together_is_written_together_and_in_order(either: Database, till: Till) -> None:
    books = Books(either, money_idr=750 * 3)
    go, _ = hold_up(till)
    futures = [till.post(Reserve(books.key_id)) for _ in range(5)]
    go.set()
    results = [future.result(20) for future in futures]
    assert [isinstance(result, Hold) for result in results] == [True] * 3 + [False] * 2
    with either.read() as session:
        times = set(session.scalars(text("SELECT at_ms FROM journal WHERE kind = 'hold'")))
    assert len(times) == 1  # one batch has one time


def test_a_void_counts_for_the_reservation_that_is_asked_for_after_it(
    either: Database, till: Till
) -> None:
    books = Books(either, money_idr=750)
    hold = till.post(Reserve(books.key_id)).result(20)
    assert isinstance(hold, Hold)
    till.post(Void(hold.id))
    assert isinstance(till.post(Reserve(books.key_id)).result(20), Hold)


def test_a_reservation_that_nobody_waits_for_any_more_is_not_made(
    either: Database, till: Till
) -> None:
    books = Books(either, money_idr=750)
    go, _ = hold_up(till)
    assert till.post(Reserve(books.key_id)).cancel()
    go.set()
    till.call(lambda session, _: None).result(20)
    assert books.balance() == (750, 0)


def test_one_call_that_fails_undoes_itself_and_nothing_else(either: Database, till: Till) -> None:
    books = Books(either, money_idr=750)

    def refuse(session: Session, _: int) -> None:
        session.execute(text("UPDATE accounts SET name = 'gone'"))
        raise InvalidRequest("no")

    def crash(session: Session, _: int) -> None:
        raise ZeroDivisionError

    go, _ = hold_up(till)
    refused, reserved = till.call(refuse), till.post(Reserve(books.key_id))
    crashed = till.call(crash)
    go.set()
    with pytest.raises(InvalidRequest):
        refused.result(20)
    with pytest.raises(BackendUnavailable):
        crashed.result(20)
    assert isinstance(reserved.result(20), Hold)
    with either.read() as session:
        assert session.scalar(text("SELECT count(*) FROM accounts WHERE name = 'gone'")) == 0


def test_what_could_not_be_written_is_written_when_the_database_is_back(
    either_url: str, lease: Lease
) -> None:
    database = Flaky(either_url)
    till = Till(database, lease)
    books = Books(database, money_idr=1_500)
    delivered, failed = (till.post(Reserve(books.key_id)).result(20) for _ in range(2))
    assert isinstance(delivered, Hold)
    assert isinstance(failed, Hold)
    database.is_away = True
    with pytest.raises(BackendUnavailable):
        till.post(Reserve(books.key_id)).result(20)
    captured = till.post(Capture(delivered.id, DELIVERY))
    voided = till.post(Void(failed.id))
    time.sleep(2.5 * RETRY_S)
    assert not captured.done()
    assert not voided.done()
    database.is_away = False
    assert captured.result(20) == "captured"
    assert voided.result(20) == "voided"
    assert books.balance() == (750, 0)
    lease.close(is_settled=till.close())
    books.check()
    database.close()


def test_a_reservation_that_was_written_though_nobody_was_told_is_given_back(
    either_url: str, lease: Lease
) -> None:
    """The connection breaks after the commit: nobody knows whether it was written."""
    database = Flaky(either_url)
    books = Books(database, money_idr=750)
    till = Till(database, lease)
    database.is_mute = True
    with pytest.raises(BackendUnavailable):
        till.post(Reserve(books.key_id)).result(20)
    database.is_mute = False
    deadline = time.monotonic() + 10
    while books.balance() != (750, 0) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert books.balance() == (750, 0)
    lease.close(is_settled=till.close())
    books.check()
    database.close()


def test_what_is_not_written_at_the_end_is_left_to_the_next_start(
    either_url: str, lease: Lease, tmp_path: Path
) -> None:
    database = Flaky(either_url)
    till = Till(database, lease)
    books = Books(database, money_idr=750)
    hold = till.post(Reserve(books.key_id)).result(20)
    assert isinstance(hold, Hold)
    lease.note(hold.id, DELIVERY)
    database.is_away = True
    till.post(Capture(hold.id, DELIVERY))
    is_settled = till.close()
    assert is_settled is False
    lease.close(is_settled=is_settled)
    assert [path.name for path in (tmp_path / FOLDER).iterdir()] == [lease.id]
    database.close()
    reopened = Database(either_url)
    assert recover(reopened, tmp_path) == 1
    books.database = reopened
    assert books.balance() == (0, 0)
    books.check()
    reopened.close()


def test_what_is_due_while_the_last_is_written_is_written_too(
    either: Database, lease: Lease
) -> None:
    till = Till(either, lease)
    books = Books(either, money_idr=750)
    go, _ = hold_up(till)
    reserved = till.post(Reserve(books.key_id))
    reserved.add_done_callback(lambda future: till.post(Void(future.result().id)))
    closing = threading.Thread(target=till.close)
    closing.start()
    while till._orders.qsize() < 2:  # the reservation, and the end
        time.sleep(0.01)
    go.set()
    closing.join()
    assert books.balance() == (750, 0)
    lease.close(is_settled=True)


def test_after_the_end_nothing_new_begins(either: Database, lease: Lease) -> None:
    till = Till(either, lease)
    books = Books(either, money_idr=750)
    assert till.close()
    with pytest.raises(BackendUnavailable):
        till.post(Reserve(books.key_id)).result(20)
    lease.close(is_settled=True)


def test_tending_that_fails_does_not_stop_the_till(either: Database, lease: Lease) -> None:
    def fail(database: Database, now_ms: int) -> None:
        raise ZeroDivisionError

    till = Till(either, lease, tick_s=0.05, on_tick=fail)
    books = Books(either, money_idr=750)
    time.sleep(0.2)
    assert isinstance(till.post(Reserve(books.key_id)).result(20), Hold)
    lease.close(is_settled=till.close())
