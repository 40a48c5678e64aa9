"""Which replies are kept, and for how long."""

from __future__ import annotations

from sqlalchemy import Connection, event, func, select

from iris.accounts.db import Database
from iris.accounts.holds import Capture
from iris.accounts.outcomes import (
    KEPT_MS,
    Claim,
    Outcome,
    OutcomeBodyRow,
    OutcomeRow,
    claim_outcome,
    drop_oldest_bodies,
    forget_old_outcomes,
)
from tests.accounts.books import DELIVERY, Books


def claimed(books: Books, token: str) -> Claim:
    claim = Claim(books.key_id, token, "f" * 64)
    with books.database.write() as session:
        claim_outcome(session, claim, books.lease_id, books.now_ms)
    return claim


def delivery_of(books: Books, token: str, num_bytes: int = 1) -> Capture:
    outcome = Outcome(claimed(books, token), {}, b"x" * num_bytes)
    return Capture(books.admitted().id, DELIVERY, outcome)


def known(books: Books, *tokens: str) -> tuple[list[str], list[str]]:
    """Of these tokens, those that anything is known of, and those whose reply is there."""
    with books.database.read() as session:
        rows, bodies = (
            set(session.scalars(select(row.token_sha256))) for row in (OutcomeRow, OutcomeBodyRow)
        )
        assert session.scalar(select(func.count()).where(OutcomeRow.body_bytes > 0)) == len(bodies)
    hashes = {token: Claim(books.key_id, token, "").token_sha256 for token in tokens}
    return [t for t in tokens if hashes[t] in rows], [t for t in tokens if hashes[t] in bodies]


def test_after_a_day_all_of_a_reply_is_removed_and_nothing_of_another_one(either: Database) -> None:
    books = Books(either, money_idr=10**6)
    tokens = ("dropped", "old", "in the making", "young")
    books.post(delivery_of(books, "dropped"))
    with either.write() as session:
        drop_oldest_bodies(session, 0)
    books.post(delivery_of(books, "old"))
    claimed(books, "in the making")
    books.later(0.001)
    books.post(delivery_of(books, "young"))
    assert known(books, *tokens) == ([*tokens], ["old", "young"])
    with either.write() as session:
        forget_old_outcomes(session, books.now_ms + KEPT_MS - 1)
    assert known(books, *tokens) == (["in the making", "young"], ["young"])


def test_of_too_many_replies_the_oldest_lose_their_bodies(either: Database) -> None:
    books = Books(either, money_idr=10**6)
    tokens = [str(number) for number in range(5)]
    for token in tokens:
        books.post(delivery_of(books, token, 300_000))  # of which three have room
        books.later(1)
    assert known(books, *tokens) == (tokens, tokens[2:])


def test_what_the_replies_take_is_summed_once_for_a_batch_of_them(either: Database) -> None:
    books = Books(either, money_idr=10**6)
    books.post(delivery_of(books, "earlier", 300_000))
    books.later(1)
    batch = [delivery_of(books, str(number), 300_000) for number in range(3)]
    sums = 0

    def count(_: Connection, __: object, statement: str, *more: object) -> None:
        nonlocal sums
        sums += "sum(" in statement

    event.listen(either._engine, "before_cursor_execute", count)
    books.post(*batch)
    assert sums == 1
    assert known(books, "earlier", "0", "1", "2")[1] == ["0", "1", "2"]
