"""Refunds: the price of a delivered picture given back by the operator."""

from __future__ import annotations

import time

from sqlalchemy import insert, select, update

from iris.accounts.accounts import (
    MAX_NOTE_CHARACTERS,
    Account,
    BalanceRow,
    check_text,
    find_account,
    shown,
)
from iris.accounts.db import Database, table_of
from iris.accounts.journal import IS_REFUND, IS_RESOLUTION, JournalRow, movement
from iris.errors import InvalidRequest


def refund(database: Database, hold_id: str, note: str | None = None) -> Account:
    """Give the price of a picture back to its account; told again, it changes nothing.

    hold_id: the `picture` of a usage export, the `hold_id` of the journal.

    Raises:
        InvalidRequest: no picture was paid under this id, or the note is too long.
    """
    check_text(note, MAX_NOTE_CHARACTERS, "note")
    with database.write() as session:
        of_hold = select(JournalRow).where(JournalRow.hold_id == hold_id)
        paid = session.scalar(of_hold.where(IS_RESOLUTION))
        if paid is None or paid.kind != "capture":
            raise InvalidRequest(
                f"No picture was paid under {hold_id!r}. `iris ledger show` and the usage export "
                "name them: hold_...",
                param="hold_id",
            )
        if session.scalar(of_hold.where(IS_REFUND)) is None:
            session.execute(
                insert(table_of(JournalRow)),
                movement(
                    "refund",
                    at_ms=int(time.time() * 1000),
                    account_id=paid.account_id,
                    is_test=paid.is_test,
                    amount_idr=paid.amount_idr,
                    hold_id=hold_id,
                    key_id=paid.key_id,
                    note=note,
                ),
            )
            balances = table_of(BalanceRow).c
            session.execute(
                update(table_of(BalanceRow))
                .where(balances.account_id == paid.account_id, balances.is_test == paid.is_test)
                .values(available_idr=balances.available_idr + paid.amount_idr)
            )
        return shown(session, find_account(session, paid.account_id))
