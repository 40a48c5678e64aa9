"""The statements of the posting of a batch: each is compiled once and runs once a batch."""

from __future__ import annotations

from sqlalchemy import bindparam, delete, insert, select, update

from iris.accounts.accounts import AccountRow, BalanceRow
from iris.accounts.db import table_of
from iris.accounts.holds import HoldRow
from iris.accounts.journal import IS_HOLD, IS_RESOLUTION, JournalRow
from iris.accounts.keys import KeyRow
from iris.accounts.limits import CounterRow
from iris.accounts.usage import UsageRow

# the number of the first hold of a key's window
_FIRST_IN_WINDOW = (
    select(JournalRow.key_seq)
    .where(
        IS_HOLD,
        JournalRow.key_id == KeyRow.id,
        JournalRow.at_ms > bindparam("since"),
        JournalRow.at_ms <= bindparam("until"),  # later ones: the clock was set back since
        # When their time comes, their numbers are old: a full minute is of the last ones alone.
        JournalRow.key_seq > CounterRow.admitted - KeyRow.rpm,
    )
    .order_by(JournalRow.at_ms, JournalRow.key_seq)
    .limit(1)
    .correlate(KeyRow, CounterRow)
    .scalar_subquery()
    .label("first_in_window")
)
SELECT_KEYS = (
    select(
        KeyRow.id,
        KeyRow.account_id,
        KeyRow.is_test,
        KeyRow.revoked_at,
        KeyRow.rpm,
        KeyRow.rpd,
        KeyRow.max_in_flight,
        KeyRow.monthly_cap_idr,
        AccountRow.state,
        BalanceRow.available_idr,
        BalanceRow.held_idr,
        CounterRow.day,
        CounterRow.day_after,
        CounterRow.day_count,
        CounterRow.month,
        CounterRow.month_after,
        CounterRow.month_idr,
        CounterRow.in_flight,
        CounterRow.admitted,
        CounterRow.last_admitted_ms,
        _FIRST_IN_WINDOW,
    )
    .join(AccountRow, AccountRow.id == KeyRow.account_id)
    .join(
        BalanceRow,
        (BalanceRow.account_id == KeyRow.account_id) & (BalanceRow.is_test == KeyRow.is_test),
    )
    .join(CounterRow, CounterRow.key_id == KeyRow.id)
    .where(KeyRow.id.in_(bindparam("ids", expanding=True)))
)
SELECT_HOLDS = select(
    HoldRow.id,
    HoldRow.account_id,
    HoldRow.key_id,
    HoldRow.is_test,
    HoldRow.amount_idr,
    HoldRow.key_seq,
).where(HoldRow.id.in_(bindparam("ids", expanding=True)))
SELECT_RESOLVED = select(JournalRow.hold_id, JournalRow.kind).where(
    IS_RESOLUTION, JournalRow.hold_id.in_(bindparam("ids", expanding=True))
)
COUNTERS = table_of(CounterRow)
UPDATE_COUNTERS = (
    update(COUNTERS)
    .where(COUNTERS.c.key_id == bindparam("key"))
    .values(
        {
            name: bindparam(f"new_{name}")
            for name in (
                "day",
                "day_after",
                "day_count",
                "month",
                "month_after",
                "month_idr",
                "in_flight",
                "admitted",
                "last_admitted_ms",
            )
        }
    )
)
BALANCES = table_of(BalanceRow)
UPDATE_BALANCES = (
    update(BALANCES)
    .where(BALANCES.c.account_id == bindparam("account"), BALANCES.c.is_test == bindparam("test"))
    .values(available_idr=bindparam("available"), held_idr=bindparam("held"))
)
DELETE_HOLDS = delete(table_of(HoldRow)).where(
    table_of(HoldRow).c.id.in_(bindparam("ids", expanding=True))
)


SELECT_NUMBERED = select(JournalRow.at_ms).where(
    IS_HOLD,
    JournalRow.key_id == bindparam("key"),
    JournalRow.at_ms > bindparam("since"),
    JournalRow.key_seq == bindparam("number"),
)

INSERT_HOLDS = insert(table_of(HoldRow))
INSERT_JOURNAL = insert(table_of(JournalRow))
INSERT_USAGE = insert(table_of(UsageRow))
