"""Whatever is changed behind the ledger's back is found, and the row is named."""

from __future__ import annotations

import pytest
from sqlalchemy import text

from iris.accounts.db import Database
from iris.accounts.verify import INVARIANTS, MONTHS, verify
from tests.accounts.books import Books

_TRIGGERS = {
    "sqlite": ("DROP TRIGGER journal_no_update", "DROP TRIGGER journal_no_delete"),
    "postgresql": ("DROP TRIGGER journal_append_only ON journal",),
}
# what is done to the database -> an invariant that it breaks
TAMPERING = {
    "UPDATE journal SET amount_idr = 1 WHERE kind = 'capture'": (
        "every capture and every void resolves an earlier hold, whole"
    ),
    "DELETE FROM journal WHERE kind = 'hold'": (
        "every capture and every void resolves an earlier hold, whole"
    ),
    "DELETE FROM journal WHERE kind = 'void'": "every hold without a resolution is open",
    "DELETE FROM journal WHERE kind = 'top_up'": "no balance was ever negative",
    "DELETE FROM journal WHERE kind = 'capture'": "every usage record was captured",
    "UPDATE journal SET key_seq = 9 WHERE kind = 'hold'": (
        "every key's holds are numbered without a gap"
    ),
    "UPDATE balances SET available_idr = available_idr + 1": (
        "every balance is the sum of its journal"
    ),
    "DELETE FROM balances WHERE is_test": "every account has a balance on each ledger",
    "DELETE FROM holds": "every hold without a resolution is open",
    "UPDATE holds SET amount_idr = 1": (
        "every open hold is in the journal, as it is, without a resolution"
    ),
    "UPDATE counters SET in_flight = 7": "every key counts the holds that it has open",
    "UPDATE counters SET day_count = day_count - 1": "every key counts the pictures of its day",
    "UPDATE counters SET day_after = 1": "every key counts the pictures of its day",
    "UPDATE counters SET month_idr = 0": "every key counts the money of its month",
    "UPDATE counters SET month_after = admitted, month_idr = 0": "every key's month holds its day",
    "UPDATE counters SET day = day - 2": (
        "every hold that counts for a day was made on it or the day before"
    ),
    "UPDATE counters SET month = month - 1": MONTHS,
    "UPDATE counters SET last_admitted_ms = 1": "every key knows when its last hold was made",
    "DELETE FROM usage": "every capture has its usage record, as it is",
    "UPDATE usage SET amount_idr = 1": "every capture has its usage record, as it is",
}


def prepared(database: Database) -> Books:
    """One picture paid, one voided, one in the making."""
    books = Books(database, money_idr=5_000)
    books.capture(books.admitted())
    books.void(books.admitted())
    books.admitted()
    books.check()
    with database.write() as session:
        for statement in _TRIGGERS[session.connection().dialect.name]:
            session.execute(text(statement))
    return books


@pytest.mark.parametrize("statement", TAMPERING)
def test_tampering_is_found(either: Database, statement: str) -> None:
    prepared(either)
    with either.write() as session:
        session.execute(text(statement))
    found = {breach.invariant: breach.row for breach in verify(either).breaches}
    assert TAMPERING[statement] in found
    assert "=" in found[TAMPERING[statement]]


@pytest.mark.parametrize(
    ("values", "invariant"),
    [
        (
            "kind, 'available', 'revenue', amount_idr, 'hold_x'",
            "every row moves a positive amount between the books of its kind",
        ),
        ("kind, debit, credit, amount_idr, hold_id", "every hold is resolved once at most"),
    ],
)
def test_a_row_that_the_database_itself_refuses_is_found_where_it_was_let_in(
    values: str, invariant: str, database: Database
) -> None:
    """SQLite can be told to check nothing; then the rows speak for themselves."""
    prepared(database)
    with database.write() as session:
        for statement in (
            "PRAGMA ignore_check_constraints = ON",
            "DROP INDEX uq_journal_resolution",
            "INSERT INTO journal (at_ms, is_test, account_id, key_id, kind, debit, credit,"  # noqa: S608
            " amount_idr, hold_id) SELECT at_ms, is_test, account_id, key_id, "
            + values
            + " FROM journal WHERE kind = 'capture'",
        ):
            session.execute(text(statement))
    assert invariant in {breach.invariant for breach in verify(database).breaches}


def test_a_refund_of_nothing_is_found(either: Database) -> None:
    prepared(either)
    with either.write() as session:
        session.execute(
            text(
                "INSERT INTO journal (at_ms, is_test, account_id, kind, debit, credit, amount_idr,"
                " hold_id) SELECT at_ms, is_test, account_id, 'refund', 'revenue', 'available',"
                " amount_idr, hold_id FROM journal WHERE kind = 'void'"
            )
        )
    told = "every refund gives back a captured picture, once, and no more than its price"
    assert told in {breach.invariant for breach in verify(either).breaches}


def test_every_invariant_is_put_to_the_test() -> None:
    tried = {
        *TAMPERING.values(),
        "every row moves a positive amount between the books of its kind",
        "every hold is resolved once at most",
        "every refund gives back a captured picture, once, and no more than its price",
    }
    # that a hold is made once is a unique index on both databases, which no update can pass
    assert set(INVARIANTS) - tried == {"every hold is made once"}
