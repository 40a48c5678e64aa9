"""Exports: whole, in order, of one moment, and nobody waits for whoever reads them."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator

import pytest
from sqlalchemy import select

from iris.accounts import export
from iris.accounts.accounts import create_account, top_up
from iris.accounts.db import Database
from iris.accounts.export import journal_csv, usage_csv
from iris.accounts.holds import Hold, Reserve
from iris.accounts.journal import JournalRow
from iris.accounts.usage import Period, UsageRow
from tests.accounts.books import Books

NOVEMBER = Period.parse("2026-11-01", "2026-11-30")
Export = Callable[[Books], Iterator[str]]
EXPORTS: list[Export] = [
    lambda books: usage_csv(books.database, books.account, is_test=False, period=NOVEMBER),
    lambda books: journal_csv(books.database, "shop"),
    lambda books: journal_csv(books.database),
]


def opened(database: Database) -> Books:
    """Two accounts; one has both kinds of money, and pictures of the same millisecond."""
    books = Books(database, money_idr=10**6)
    create_account(database, "other")
    for _ in range(3):
        sold(books)
        top_up(database, "shop", 5, is_test=True)
        top_up(database, "other", 5)
        books.later(0.001)
    return books


def sold(books: Books) -> None:
    """Four pictures at once."""
    for hold in books.post(*[Reserve(books.key_id)] * 4):
        assert isinstance(hold, Hold)
        books.capture(hold)


def column(lines: Iterator[str], name: str) -> list[str]:
    return [row[name] for row in csv.DictReader(lines)]


@pytest.mark.parametrize("page_rows", [1, 2, 3, 4, 12, 1_000])
def test_an_export_has_every_row_once_and_in_order_however_long_its_pages_are(
    either: Database, monkeypatch: pytest.MonkeyPatch, page_rows: int
) -> None:
    books = opened(either)
    pictures = select(UsageRow.hold_id).order_by(UsageRow.at_ms, UsageRow.hold_id)
    rows = select(JournalRow.id).order_by(JournalRow.id)
    with either.read() as session:
        all_pictures = list(session.scalars(pictures))
        of_shop = list(session.scalars(rows.where(JournalRow.account_id == books.account)))
        of_all = list(session.scalars(rows))
    assert len(all_pictures) == 12
    whole = ["".join(make(books)) for make in EXPORTS]
    monkeypatch.setattr(export, "PAGE_ROWS", page_rows)
    usage, shop, everybody = (make(books) for make in EXPORTS)
    assert column(usage, "picture") == all_pictures
    assert column(shop, "id") == [str(number) for number in of_shop]
    assert column(everybody, "id") == [str(number) for number in of_all]
    assert ["".join(make(books)) for make in EXPORTS] == whole


@pytest.mark.parametrize("make", EXPORTS)
def test_whoever_does_not_read_on_keeps_no_connection(
    either: Database, monkeypatch: pytest.MonkeyPatch, make: Export
) -> None:
    monkeypatch.setattr(export, "PAGE_ROWS", 3, raising=False)
    lines = make(opened(either))
    for _ in range(6):  # the head, and some of the second page
        next(lines)
    assert either._engine.pool.checkedout() == 0  # type: ignore[attr-defined]


@pytest.mark.parametrize("make", EXPORTS)
def test_what_comes_while_an_export_is_read_is_left_out(
    either: Database, monkeypatch: pytest.MonkeyPatch, make: Export
) -> None:
    monkeypatch.setattr(export, "PAGE_ROWS", 3)
    books = opened(either)
    before = list(make(books))
    lines = make(books)
    begun = [next(lines), next(lines)]
    sold(books)
    top_up(either, "shop", 5)
    assert begun + list(lines) == before
