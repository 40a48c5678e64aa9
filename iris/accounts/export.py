"""Tables for spreadsheets: every picture of an account, every row of the journal.

They are read in pages, each in a transaction of its own: whoever reads an export may take all the
time of the world, and holds no connection meanwhile. What is later than the newest row of the
beginning is left out.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from heapq import merge
from operator import attrgetter
from typing import Any

from sqlalchemy import Column, Row, Select, func, select, tuple_
from sqlalchemy.orm import Session

from iris.accounts.accounts import find_account
from iris.accounts.db import Database, table_of
from iris.accounts.journal import JournalRow
from iris.accounts.usage import Period, UsageRow

USAGE_COLUMNS = (
    "time",
    "picture",
    "key",
    "ledger",
    "route",
    "style",
    "size",
    "num_steps",
    "input_text_tokens",
    "input_image_tokens",
    "output_image_tokens",
    "user",
    "cost_idr",
)
PAGE_ROWS = 1_000
_FORMULA = ("=", "+", "-", "@", "\t", "\r")  # with which a cell would be calculated


def usage_csv(
    database: Database, account_id: str, *, is_test: bool, period: Period
) -> Iterator[str]:
    """A line for every picture, the oldest first, and a head; made as it is read."""
    rows = (
        (
            _time(row.at_ms),
            row.hold_id,
            row.key_id,
            "test" if row.is_test else "live",
            row.route,
            row.style,
            row.size,
            row.num_steps,
            row.input_text_tokens,
            row.input_image_tokens,
            row.output_image_tokens,
            row.user_tag or "",
            row.amount_idr,
        )
        for row in _deliveries(database, account_id, is_test, period)
    )
    return _lines(USAGE_COLUMNS, rows)


def journal_rows(database: Database, account: str | None = None) -> Iterator[dict[str, object]]:
    """The rows of the journal, of one account or of all, in the order of their writing.

    Raises:
        InvalidRequest: there is no account of this name or id.
    """
    columns = table_of(JournalRow).c
    with database.read() as session:
        last = session.scalar(select(func.max(columns.id))) or 0
        asked = _journal(session, account).where(columns.id <= last)
    # the index of an account has its ledgers one after the other
    parts = (
        [asked] if account is None else [asked.where(columns.is_test == t) for t in (False, True)]
    )
    pages = (_paged(database, part, (columns.id,), (0,)) for part in parts)
    for row in merge(*pages, key=attrgetter("id")):
        yield {"time": _time(row.at_ms), **row._mapping}


def last_rows(database: Database, account: str | None, count: int) -> list[dict[str, object]]:
    """The last rows of the journal, of one account or of all, the newest one last.

    Raises:
        InvalidRequest: there is no account of this name or id.
    """
    with database.read() as session:
        asked = _journal(session, account).order_by(JournalRow.id.desc()).limit(max(0, count))
        rows = session.execute(asked).mappings().all()
    return [{"time": _time(row["at_ms"]), **row} for row in reversed(rows)]


def journal_csv(database: Database, account: str | None = None) -> Iterator[str]:
    """The whole journal as lines of a table. Raises as `journal_rows`."""
    columns = ("time", *(column.name for column in table_of(JournalRow).columns))
    rows = (
        tuple("" if row[name] is None else row[name] for name in columns)
        for row in journal_rows(database, account)
    )
    return _lines(columns, rows)


def _journal(session: Session, account: str | None) -> Select[Any]:
    asked = select(table_of(JournalRow))
    if account is None:
        return asked
    return asked.where(JournalRow.account_id == find_account(session, account).id)


def _deliveries(
    database: Database, account_id: str, is_test: bool, period: Period
) -> Iterator[Row[Any]]:
    begin_ms, end_ms = period.bounds_ms
    columns = table_of(UsageRow).c
    asked = select(table_of(UsageRow)).where(
        columns.account_id == account_id, columns.is_test == is_test, columns.at_ms < end_ms
    )
    with database.read() as session:
        last_ms = session.scalar(asked.with_only_columns(func.max(columns.at_ms))) or 0
    asked = asked.where(columns.at_ms <= last_ms)
    yield from _paged(database, asked, (columns.at_ms, columns.hold_id), (begin_ms, ""))


def _paged(
    database: Database, asked: Select[Any], key: tuple[Column[Any], ...], after: tuple[Any, ...]
) -> Iterator[Row[Any]]:
    """The rows that come after this key, which no two share, in its order."""
    asked = asked.order_by(*key).limit(PAGE_ROWS)
    while True:
        with database.read() as session:
            rows = session.execute(asked.where(tuple_(*key) > after)).all()
        yield from rows
        if len(rows) < PAGE_ROWS:
            return
        after = tuple(getattr(rows[-1], column.name) for column in key)


def _lines(head: tuple[str, ...], rows: Iterable[tuple[object, ...]]) -> Iterator[str]:
    buffer = io.StringIO()
    writer = csv.writer(buffer)
    writer.writerow(head)
    yield _taken(buffer)
    for row in rows:
        writer.writerow([_harmless(cell) for cell in row])
        yield _taken(buffer)


def _taken(buffer: io.StringIO) -> str:
    line = buffer.getvalue()
    buffer.seek(0)
    buffer.truncate()
    return line


def _harmless(cell: object) -> object:
    """A text of a client's must not become a formula in the operator's spreadsheet."""
    return f"'{cell}" if isinstance(cell, str) and cell.startswith(_FORMULA) else cell


def _time(at_ms: int) -> str:
    return datetime.fromtimestamp(at_ms / 1000, UTC).isoformat(timespec="milliseconds")
