"""Posts a batch of entries in one transaction: reserved, captured or voided, each by the rules.

All that the rules need is read once, decided in memory, and written once, so a batch of many
costs the database little more than a batch of one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from sqlalchemy import Connection, Row
from sqlalchemy.orm import Session

from iris.accounts.holds import Capture, Entry, Hold, Refused, Reserve, Void
from iris.accounts.journal import PRICE_IDR, movement
from iris.accounts.keys import SUSPENDED, UNAUTHENTICATED
from iris.accounts.limits import SKEW_MS, WINDOW_MS, Counters, Limits
from iris.accounts.outcomes import drop_oldest_bodies, keep_outcome
from iris.accounts.statements import (
    DELETE_HOLDS,
    INSERT_HOLDS,
    INSERT_JOURNAL,
    INSERT_USAGE,
    SELECT_HOLDS,
    SELECT_KEYS,
    SELECT_NUMBERED,
    SELECT_RESOLVED,
    UPDATE_BALANCES,
    UPDATE_COUNTERS,
)
from iris.errors import AccountSuspended, InsufficientQuota, RateLimited, Unauthenticated

Result = Hold | Refused | Literal["captured", "voided", "unknown"]


@dataclass(slots=True)
class _Purse:
    """A balance while it is changed. Several keys share one."""

    available_idr: int
    held_idr: int


@dataclass(slots=True)
class _Key:
    """A key while its entries are posted."""

    row: Row[Any]
    counters: Counters
    purse: _Purse
    now_ms: int  # what is written down as the time


@dataclass(slots=True)
class _Batch:
    """What is read before and written after the decisions."""

    keys: dict[str, _Key] = field(default_factory=dict)
    purses: dict[tuple[str, bool], _Purse] = field(default_factory=dict)
    movements: list[dict[str, object]] = field(default_factory=list)
    opened: list[dict[str, object]] = field(default_factory=list)
    closed: list[str] = field(default_factory=list)
    usage: list[dict[str, object]] = field(default_factory=list)


def post(
    session: Session,
    entries: Sequence[tuple[str, Entry]],
    *,
    now_ms: int,
    lease_id: str,
    max_outcome_bytes: int,
) -> list[Result]:
    """Post entries, each with the id of its hold; resolutions first, then reservations in order.

    The session holds the write lock. Posting a resolution again changes nothing and says how the
    hold was resolved; `unknown` is a hold that never was.
    """
    batch = _Batch()
    connection = session.connection()  # a session would add to every statement
    resolved = [hold_id for hold_id, entry in entries if not isinstance(entry, Reserve)]
    holds = {row.id: row for row in _rows(connection, SELECT_HOLDS, resolved)}
    asked = [entry.key_id for _, entry in entries if isinstance(entry, Reserve)]
    _read_keys(connection, batch, {*asked, *(row.key_id for row in holds.values())}, now_ms)
    results: dict[int, Result] = {}
    late: list[int] = []
    is_kept = False
    for index, (hold_id, entry) in enumerate(entries):
        if isinstance(entry, Reserve):
            continue
        hold = holds.pop(hold_id, None)
        if hold is None:
            late.append(index)
            continue
        results[index] = _resolve(batch, hold, entry, now_ms)
        if isinstance(entry, Capture) and entry.outcome is not None:
            keep_outcome(session, entry.outcome, now_ms)
            is_kept = True
    if is_kept:  # once, since it sums what is there
        drop_oldest_bodies(session, max_outcome_bytes)
    for index, (hold_id, entry) in enumerate(entries):
        if isinstance(entry, Reserve):
            results[index] = _reserve(connection, batch, hold_id, entry, lease_id)
    _write(connection, batch)
    if late:
        how: dict[str, Result] = {
            row.hold_id: "captured" if row.kind == "capture" else "voided"
            for row in _rows(connection, SELECT_RESOLVED, [entries[index][0] for index in late])
        }
        for index in late:
            results[index] = how.get(entries[index][0], "unknown")
    return [results[index] for index in range(len(entries))]


def _rows(
    connection: Connection,
    statement: Any,
    ids: Sequence[str],
    more: Mapping[str, object] | None = None,
) -> Sequence[Row[Any]]:
    return connection.execute(statement, {"ids": list(ids), **(more or {})}).all() if ids else ()


def _run(connection: Connection, statement: Any, rows: list[dict[str, object]]) -> None:
    # a list of one is prepared by the driver as if it were many
    connection.execute(statement, rows[0] if len(rows) == 1 else rows)


def _read_keys(connection: Connection, batch: _Batch, ids: set[str], now_ms: int) -> None:
    window = {"since": now_ms - WINDOW_MS, "until": now_ms + SKEW_MS}
    for row in _rows(connection, SELECT_KEYS, sorted(ids), window):
        purse = batch.purses.setdefault(
            (row.account_id, row.is_test), _Purse(row.available_idr, row.held_idr)
        )
        limits = Limits(
            rpm=row.rpm,
            rpd=row.rpd,
            max_in_flight=row.max_in_flight,
            monthly_cap_idr=row.monthly_cap_idr,
        )
        counters = Counters(
            row.id,
            limits,
            row.day,
            row.day_after,
            row.day_count,
            row.month,
            row.month_after,
            row.month_idr,
            row.in_flight,
            row.admitted,
            row.last_admitted_ms,
            row.first_in_window,
        )
        batch.keys[row.id] = _Key(row, counters, purse, counters.turn(now_ms))


def _resolve(
    batch: _Batch, hold: Row[Any], entry: Capture | Void, now_ms: int
) -> Literal["captured", "voided"]:
    key = batch.keys[hold.key_id]
    is_void = isinstance(entry, Void)
    key.purse.held_idr -= hold.amount_idr
    if is_void:
        key.purse.available_idr += hold.amount_idr
    key.counters.release(hold.key_seq, hold.amount_idr, is_void=is_void)
    batch.closed.append(hold.id)
    batch.movements.append(
        movement(
            "void" if is_void else "capture",
            at_ms=now_ms,
            account_id=hold.account_id,
            is_test=hold.is_test,
            amount_idr=hold.amount_idr,
            hold_id=hold.id,
            key_id=hold.key_id,
        )
    )
    if isinstance(entry, Capture):
        batch.usage.append(_usage(hold, entry, now_ms))
    return "voided" if is_void else "captured"


def _usage(hold: Row[Any], capture: Capture, now_ms: int) -> dict[str, object]:
    return {
        "hold_id": hold.id,
        "at_ms": now_ms,
        "account_id": hold.account_id,
        "key_id": hold.key_id,
        "is_test": hold.is_test,
        "amount_idr": hold.amount_idr,
        **asdict(capture.delivery),
    }


def _reserve(
    connection: Connection, batch: _Batch, hold_id: str, entry: Reserve, lease_id: str
) -> Hold | Refused:
    key = batch.keys.get(entry.key_id)
    if key is None or key.row.revoked_at is not None:
        return Refused(Unauthenticated(UNAUTHENTICATED))
    if key.row.state != "active":
        return Refused(AccountSuspended(SUSPENDED))
    at_ms, counters = key.now_ms, key.counters
    error = counters.refusal(at_ms, PRICE_IDR)
    if error is not None:
        if isinstance(error, RateLimited) and error.retry_after_s is None:
            error.retry_after_s = _wait_s(connection, counters, at_ms)
        return Refused(error, counters.quota(at_ms))
    if key.purse.available_idr < PRICE_IDR:
        error = InsufficientQuota(
            f"The balance of this account is Rp{key.purse.available_idr:,}, and a picture costs "
            f"Rp{PRICE_IDR:,}. Top it up."
        )
        return Refused(error, counters.quota(at_ms))
    key.purse.available_idr -= PRICE_IDR
    key.purse.held_idr += PRICE_IDR
    counters.admit(at_ms, PRICE_IDR)
    where = {
        "account_id": key.row.account_id,
        "key_id": entry.key_id,
        "is_test": key.row.is_test,
        "amount_idr": PRICE_IDR,
    }
    batch.opened.append(
        {
            "id": hold_id,
            **where,
            "opened_at_ms": at_ms,
            "key_seq": counters.admitted,
            "lease_id": lease_id,
        }
    )
    batch.movements.append(
        movement("hold", at_ms=at_ms, hold_id=hold_id, key_seq=counters.admitted, **where)
    )
    return Hold(hold_id, PRICE_IDR, counters.quota(at_ms))


def _wait_s(connection: Connection, counters: Counters, at_ms: int) -> float:
    """Until so many holds have left the window that there is room for one."""
    leaves_first = counters.admitted - counters.limits.rpm + 1
    parameters = {"key": counters.key_id, "since": at_ms - WINDOW_MS, "number": leaves_first}
    was_ms = connection.scalar(SELECT_NUMBERED, parameters)
    if was_ms is None:  # admitted in this very batch
        was_ms = at_ms
    return max(0, was_ms + WINDOW_MS - at_ms) / 1000


def _write(connection: Connection, batch: _Batch) -> None:
    if batch.closed:
        connection.execute(DELETE_HOLDS, {"ids": batch.closed})
    if batch.opened:
        _run(connection, INSERT_HOLDS, batch.opened)
    if not batch.movements:
        return
    _run(connection, INSERT_JOURNAL, batch.movements)
    if batch.usage:
        _run(connection, INSERT_USAGE, batch.usage)
    _run(
        connection,
        UPDATE_COUNTERS,
        [
            {
                "key": key_id,
                "new_day": key.counters.day,
                "new_day_after": key.counters.day_after,
                "new_day_count": key.counters.day_count,
                "new_month": key.counters.month,
                "new_month_after": key.counters.month_after,
                "new_month_idr": key.counters.month_idr,
                "new_in_flight": key.counters.in_flight,
                "new_admitted": key.counters.admitted,
                "new_last_admitted_ms": key.counters.last_admitted_ms,
            }
            for key_id, key in batch.keys.items()
        ],
    )
    _run(
        connection,
        UPDATE_BALANCES,
        [
            {
                "account": account_id,
                "test": is_test,
                "available": purse.available_idr,
                "held": purse.held_idr,
            }
            for (account_id, is_test), purse in batch.purses.items()
        ],
    )
