"""Whatever is changed behind the ledger's back is found, and the row is named."""

from __future__ import annotations

import pytest
from sqlalchemy import text

from iris.accounts.accounts import create_account
from iris.accounts.db import Database
from iris.accounts.refund import refund
from iris.accounts.verify import GUARDED, INVARIANTS, MONTHS, verify
from tests.accounts.books import Books

_TRIGGERS = {
    "sqlite": ("DROP TRIGGER journal_no_update", "DROP TRIGGER journal_no_delete"),
    "postgresql": ("DROP TRIGGER journal_append_only ON journal",),
}
# what takes a guard out of force, and the guard; one after the other
_UNGUARDING = {
    "sqlite": (
        ("DROP TRIGGER journal_no_update", "journal_no_update"),
        ("DROP TRIGGER journal_no_delete", "journal_no_delete"),
    ),
    "postgresql": (
        ("ALTER TABLE journal DISABLE TRIGGER journal_append_only", "journal_append_only"),
        ("DROP TRIGGER journal_append_only ON journal", "journal_append_only"),
    ),
    "both": tuple(
        (f"DROP INDEX {name}", name)
        for name in (
            "uq_journal_hold",
            "uq_journal_resolution",
            "uq_journal_refund",
            "uq_journal_reference",
        )
    ),
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
    "UPDATE journal SET key_seq = 1 WHERE kind = 'hold' AND key_seq = 2": (
        "every key's holds are numbered without a gap"
    ),
    "UPDATE journal SET key_seq = 0 WHERE kind = 'hold' AND key_seq = 1": (
        "every key's holds are numbered without a gap"
    ),
    "UPDATE keys SET is_test = NOT is_test": (
        "every hold is of the account and the ledger of its key"
    ),
    "UPDATE keys SET account_id = (SELECT id FROM accounts WHERE name = 'another')": (
        "every hold is of the account and the ledger of its key"
    ),
    "UPDATE balances SET available_idr = available_idr + 1": (
        "every balance is the sum of its journal"
    ),
    "DELETE FROM balances WHERE is_test": "every account has a balance on each ledger",
    "DELETE FROM holds": "every hold without a resolution is open",
    "UPDATE holds SET amount_idr = 1": (
        "every open hold is in the journal, as it is, without a resolution"
    ),
    "UPDATE holds SET opened_at_ms = opened_at_ms + 1": (
        "every open hold was opened when the journal says"
    ),
    "DELETE FROM counters": "every key has counters",
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
    "UPDATE usage SET at_ms = at_ms - 86400000": "every usage record has the time of its capture",
}


def prepared(database: Database) -> Books:
    """One picture paid, one voided, one in the making; and an account that has nothing."""
    books = Books(database, money_idr=5_000)
    create_account(database, "another")
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


@pytest.mark.parametrize("key", ["'key_another'", "NULL"])
def test_a_refund_to_another_key_than_paid_is_found(either: Database, key: str) -> None:
    """All sums are right, and one row of a journal by key is not."""
    books = Books(either, money_idr=5_000)
    for _ in range(2):
        books.capture(books.admitted())
    with either.read() as session:
        right, wrong = session.scalars(text("SELECT hold_id FROM usage")).all()
    refund(either, right)
    books.check()
    with either.write() as session:
        session.execute(
            text(
                "INSERT INTO journal (at_ms, is_test, account_id, kind, debit, credit, amount_idr,"  # noqa: S608
                " hold_id, key_id) SELECT at_ms, is_test, account_id, 'refund', 'revenue',"
                f" 'available', amount_idr, hold_id, {key} FROM journal"
                " WHERE kind = 'capture' AND hold_id = :wrong"
            ),
            {"wrong": wrong},
        )
        session.execute(
            text("UPDATE balances SET available_idr = available_idr + 750 WHERE NOT is_test")
        )
    (breach,) = verify(either).breaches
    assert breach.invariant == "every refund is of the key that paid"
    assert wrong in breach.row


def test_whatever_guards_the_journal_is_missed_by_its_name(either: Database) -> None:
    missing = set()
    with either.read() as session:
        kind = session.connection().dialect.name
    for statement, name in (*_UNGUARDING[kind], *_UNGUARDING["both"]):
        with either.write() as session:
            session.execute(text(statement))
        missing.add(f"missing={name}")
        breaches = verify(either).breaches
        assert {breach.invariant for breach in breaches} == {GUARDED}
        assert {breach.row for breach in breaches} == missing
    with either.write() as session:  # of the right name, and refuses nothing
        session.execute(text("CREATE INDEX uq_journal_refund ON journal (hold_id)"))
    assert {breach.row for breach in verify(either).breaches} == missing


def test_every_invariant_is_put_to_the_test() -> None:
    tried = {
        *TAMPERING.values(),
        "every row moves a positive amount between the books of its kind",
        "every hold is resolved once at most",
        "every refund gives back a captured picture, once, and no more than its price",
        "every refund is of the key that paid",
    }
    # that a hold is made once is a unique index on both databases, which no update can pass
    assert set(INVARIANTS) - tried == {"every hold is made once"}
