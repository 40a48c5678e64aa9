"""What an operation reads does not grow with what was there before it.

Most of them hold the one write lock: what takes one of them long, all others wait for.
"""

from __future__ import annotations

import asyncio
import re
import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import date
from pathlib import Path
from typing import Any, get_args

import pytest
from sqlalchemy import Connection, event, insert, text

from iris.accounts.accounts import set_suspended, top_up
from iris.accounts.db import Database, table_of
from iris.accounts.export import usage_csv
from iris.accounts.holds import Capture, HoldRow, Void, new_hold_id
from iris.accounts.journal import JournalRow, movement
from iris.accounts.keys import KeyRing, create_key, limit_key, revoke_key
from iris.accounts.outcomes import (
    KEPT_MS,
    Claim,
    InTheMaking,
    Mine,
    Outcome,
    OutcomeRow,
    Replay,
    Standing,
    claim_outcome,
    forget_old_outcomes,
    give_up_outcome,
)
from iris.accounts.recovery import Watch, resolve_dead
from iris.accounts.refund import refund
from iris.accounts.usage import GroupBy, Period, UsageRow, sum_usage
from iris.errors import InvalidRequest
from tests.accounts.books import DELIVERY, NOON_MS, Books
from tests.accounts.conftest import new_database_url

ROWS = 5_000  # of each table: more than the steps that an operation takes
GROWING = frozenset({"journal", "holds", "outcomes", "usage"})
# It holds those replies alone whose bodies are there, which are at most so many bytes together.
BOUNDED = "ix_outcomes_live"
DAY_MS = 86_400_000
TODAY = Period(date(2026, 11, 1), date(2026, 11, 1))


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def crowded(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Books]:
    """The books of one key that made, and has open, thousands of pictures."""
    if request.param == "sqlite":
        url = f"sqlite:///{tmp_path_factory.mktemp('crowded') / 'iris.db'}"
    else:
        url = new_database_url(request.getfixturevalue("postgres"))
    database = Database(url)
    books = Books(database, money_idr=10**9)
    _fill(books)
    yield books
    database.close()


def _fill(books: Books) -> None:
    before = NOON_MS - DAY_MS // 2  # also of the last 24 hours
    of_key = {
        "account_id": books.account,
        "key_id": books.key_id,
        "is_test": False,
        "amount_idr": 750,
    }
    ids = [new_hold_id() for _ in range(ROWS)]
    journal: list[dict[str, object]] = []
    for number, hold_id in enumerate(ids, 1):
        at = {"at_ms": before, "hold_id": hold_id, "account_id": books.account, "is_test": False}
        more = {"amount_idr": 750, "key_id": books.key_id}
        journal.append(movement("hold", key_seq=number, **at, **more))  # type: ignore[arg-type]
        end = "void" if number % 3 else "capture"
        journal.append(movement(end, **at, **more))  # type: ignore[arg-type]
    others = {"opened_at_ms": before, "lease_id": "lease_of_others"}
    holds = [{"id": new_hold_id(), **of_key, **others, "key_seq": n} for n in range(ROWS)]
    delivery = {name: getattr(DELIVERY, name) for name in DELIVERY.__slots__}
    usage = [{"hold_id": i, "at_ms": before - 40 * DAY_MS, **of_key, **delivery} for i in ids]
    outcomes = [
        {
            "key_id": books.key_id,
            "token_sha256": secrets.token_hex(32),
            "fingerprint": "f" * 64,
            "created_at_ms": before,
            "lease_id": None,
            "headers": "{}",
            "body_bytes": 0,  # not any more
        }
        for _ in range(ROWS)
    ]
    with books.database.write() as session:
        for row, values in (
            (JournalRow, journal),
            (HoldRow, holds),
            (UsageRow, usage),
            (OutcomeRow, outcomes),
        ):
            session.connection().execute(insert(table_of(row)), values)
        if _is_postgresql(session.connection()):  # as it does itself, some time
            session.execute(text("ANALYZE"))


def reserve(books: Books, _: Path) -> None:
    books.admitted()


def refuse(books: Books, _: Path) -> None:
    books.later(60)
    books.admitted()
    limit_key(books.database, books.key_id, rpm=1)
    refused = books.refused()
    limit_key(books.database, books.key_id, rpm=10**6)
    assert refused.error.code == "rpm_exceeded"


def capture(books: Books, _: Path) -> None:
    hold = books.admitted()
    assert [books.capture(hold) for _ in range(2)] == ["captured"] * 2


def void(books: Books, _: Path) -> None:
    hold = books.admitted()
    assert [books.void(hold) for _ in range(2)] == ["voided"] * 2


def undo(books: Books, _: Path) -> None:
    """Of a reservation of which nobody knows whether it was written."""
    assert books.post(Void(new_hold_id())) == ["unknown"]


def new_claim(books: Books) -> Claim:
    return Claim(books.key_id, secrets.token_hex(16), "f" * 64)


def stands(books: Books, claim: Claim) -> Standing:
    with books.database.write() as session:
        return claim_outcome(session, claim, books.lease_id, books.now_ms)


def kept(books: Books, claim: Claim, body: bytes = b"x") -> None:
    assert isinstance(stands(books, claim), Mine)
    outcome = Outcome(claim, {}, body)
    assert books.post(Capture(books.admitted().id, DELIVERY, outcome)) == ["captured"]


def keep(books: Books, _: Path) -> None:
    """Replies of which the last one is one too many."""
    claims = [new_claim(books) for _ in range(3)]
    for claim in claims:
        books.later(1)
        kept(books, claim, b"x" * 400_000)
    with pytest.raises(InvalidRequest, match="no longer kept"):
        stands(books, claims[0])


def replay(books: Books, _: Path) -> None:
    claim = new_claim(books)
    kept(books, claim)
    assert isinstance(stands(books, claim), Replay)


def give_up(books: Books, _: Path) -> None:
    claim = new_claim(books)
    stands(books, claim)
    assert isinstance(stands(books, claim), InTheMaking)
    with books.database.write() as session:
        give_up_outcome(session, claim)
    assert isinstance(stands(books, claim), Mine)


def expire(books: Books, _: Path) -> None:
    claims = [new_claim(books) for _ in range(2)]
    books.later(-KEPT_MS / 1000)
    for claim in claims:
        kept(books, claim)
    books.later(KEPT_MS / 1000)
    assert isinstance(stands(books, claims[0]), Mine)
    with books.database.write() as session:
        forget_old_outcomes(session, books.now_ms)
        assert session.get(OutcomeRow, (books.key_id, claims[1].token_sha256)) is None


def resolve(books: Books, _: Path) -> None:
    lease_id, books.lease_id = books.lease_id, "lease_of_the_dead"
    delivered = books.admitted()
    books.admitted()
    stands(books, new_claim(books))
    with books.database.write() as session:
        dead = resolve_dead(session, books.lease_id, {delivered.id: DELIVERY}, books.now_ms)
    assert dead == 2
    books.lease_id = lease_id


def tend(books: Books, home: Path) -> None:
    Watch("lease_of_the_watch", home)(books.database, books.now_ms)


def authenticate(books: Books, _: Path) -> None:
    asyncio.run(KeyRing(books.database).authenticate(books.secret))


def administer(books: Books, _: Path) -> None:
    for is_suspended in (True, False):
        set_suspended(books.database, "shop", is_suspended)
    key, _secret = create_key(books.database, "web", is_test=True)
    limit_key(books.database, key.id, rpd=7)
    revoke_key(books.database, key.id)


def pay_in(books: Books, _: Path) -> None:
    reference = secrets.token_hex(8)
    for _ in range(2):
        top_up(books.database, books.account, 750, reference=reference)


def give_back(books: Books, _: Path) -> None:
    paid, voided = books.admitted(), books.admitted()
    books.capture(paid)
    books.void(voided)
    for _ in range(2):
        refund(books.database, paid.id)
    for nothing in (voided.id, new_hold_id()):
        with pytest.raises(InvalidRequest):
            refund(books.database, nothing)


def account_for(books: Books, _: Path) -> None:
    books.capture(books.admitted())
    for group_by in get_args(GroupBy):
        sum_usage(books.database, books.account, is_test=False, period=TODAY, group_by=group_by)
    list(usage_csv(books.database, books.account, is_test=False, period=TODAY))


Operation = Callable[[Books, Path], None]
OPERATIONS: tuple[Operation, ...] = (
    reserve,
    refuse,
    capture,
    void,
    undo,
    keep,
    replay,
    give_up,
    expire,
    resolve,
    authenticate,
    administer,
    pay_in,
    give_back,
    account_for,
)


@pytest.mark.parametrize("operation", [*OPERATIONS, tend])
def test_no_operation_reads_the_whole_of_a_table_that_grows(
    crowded: Books, tmp_path: Path, operation: Operation
) -> None:
    database = crowded.database
    with _statements(database) as ran:
        operation(crowded, tmp_path)
    # All open holds are looked at to find those whose process is lost; limits keep them few.
    growing = GROWING - {"holds"} if operation is tend else GROWING
    with database.read() as session:
        for statement, parameters in ran:
            assert _scanned(session.connection(), statement, parameters) & growing == set(), (
                statement
            )


@pytest.mark.parametrize("crowded", ["sqlite"], indirect=True)
@pytest.mark.parametrize("operation", OPERATIONS)
def test_no_operation_takes_a_step_for_every_row_that_was_there(
    crowded: Books, tmp_path: Path, operation: Operation
) -> None:
    """A walk along an index that most rows are in is no scan, and takes as long."""
    steps = 0

    def count() -> None:
        nonlocal steps
        steps += 10

    def watch(connection: Any, *_: object) -> None:
        connection.set_progress_handler(count, 10)

    event.listen(crowded.database._engine, "checkout", watch)
    try:
        operation(crowded, tmp_path)
    finally:
        event.remove(crowded.database._engine, "checkout", watch)
    assert 0 < steps < ROWS


@contextmanager
def _statements(database: Database) -> Iterator[list[tuple[str, Any]]]:
    """What is run meanwhile, with the values of its first row."""
    ran: list[tuple[str, Any]] = []

    def note(_: object, __: object, statement: str, parameters: Any, *more: Any) -> None:
        if statement.startswith(("SELECT", "INSERT", "UPDATE", "DELETE")):
            ran.append((statement, parameters[0] if more[-1] else parameters))

    event.listen(database._engine, "before_cursor_execute", note)
    try:
        yield ran
    finally:
        event.remove(database._engine, "before_cursor_execute", note)


def _scanned(connection: Connection, statement: str, parameters: Any) -> set[str]:
    """The tables that are read from end to end."""
    if _is_postgresql(connection):
        (plans,) = connection.exec_driver_sql(
            f"EXPLAIN (FORMAT JSON) {statement}", parameters
        ).scalars()
        return set(_scanned_by(plans[0]["Plan"]))
    plan = connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", parameters)
    lines = [row.detail for row in plan if BOUNDED not in row.detail]
    return {found[1] for line in lines if (found := re.match(r"SCAN (\w+)", line))}


def _scanned_by(node: dict[str, Any]) -> Iterator[str]:
    is_whole = "Scan" in node["Node Type"] and not node.keys() & {"Index Cond", "Recheck Cond"}
    if is_whole and "Relation Name" in node and node.get("Index Name") != BOUNDED:
        yield node["Relation Name"]
    for part in node.get("Plans", ()):
        yield from _scanned_by(part)


def _is_postgresql(connection: Connection) -> bool:
    return connection.dialect.name == "postgresql"
