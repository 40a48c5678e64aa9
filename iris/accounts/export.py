"""Tables for spreadsheets: every picture of an account, every row of the journal."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Select, select
from sqlalchemy.orm import Session

from iris.accounts.accounts import find_account
from iris.accounts.db import Database, table_of
from iris.accounts.journal import JournalRow
from iris.accounts.usage import Period, each_delivery

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
        for row in each_delivery(database, account_id, is_test=is_test, period=period)
    )
    return _lines(USAGE_COLUMNS, rows)


def journal_rows(database: Database, account: str | None = None) -> Iterator[dict[str, object]]:
    """The rows of the journal, of one account or of all, in the order of their writing.

    Raises:
        InvalidRequest: there is no account of this name or id.
    """
    with database.read() as session:
        asked = _journal(session, account).order_by(JournalRow.id)
        for row in session.execute(asked.execution_options(yield_per=1000)).mappings():
            yield {"time": _time(row["at_ms"]), **row}


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
