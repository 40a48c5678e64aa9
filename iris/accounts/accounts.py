"""Accounts: who pays. Each has a prepaid balance on the live and one on the test ledger."""

from __future__ import annotations

import secrets
import time
from dataclasses import dataclass

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    ForeignKey,
    String,
    insert,
    or_,
    select,
    update,
)
from sqlalchemy.orm import Mapped, Session, mapped_column

from iris.accounts.db import Base, Database
from iris.accounts.journal import JournalRow, movement
from iris.accounts.names import MAX_NAME_CHARACTERS, check_name
from iris.errors import InvalidRequest

TEST_GRANT_IDR = 75_000_000  # what a new account has on the test ledger: 100,000 pictures
MAX_TOP_UP_IDR = 10**12
MAX_REFERENCE_CHARACTERS = 100
MAX_NOTE_CHARACTERS = 200
DEFAULT_NAME = "default"


@dataclass(frozen=True, slots=True)
class Balance:
    """Integer rupiah. What is held belongs to pictures in the making."""

    available_idr: int
    held_idr: int


@dataclass(frozen=True, slots=True)
class Account:
    """An account as its operator sees it. created_at: unix seconds."""

    id: str
    name: str
    state: str  # active | suspended
    created_at: int
    live: Balance
    test: Balance


class AccountRow(Base):
    __tablename__ = "accounts"
    __table_args__ = (CheckConstraint("state IN ('active', 'suspended')", name="state"),)

    id: Mapped[str] = mapped_column(String(20), primary_key=True)
    name: Mapped[str] = mapped_column(String(MAX_NAME_CHARACTERS), unique=True)
    state: Mapped[str] = mapped_column(String(9))
    created_at: Mapped[int] = mapped_column(BigInteger)


class BalanceRow(Base):
    """The sum of the journal for one account on one ledger, kept so that it need not be summed."""

    __tablename__ = "balances"
    __table_args__ = (
        CheckConstraint("available_idr >= 0", name="available"),
        CheckConstraint("held_idr >= 0", name="held"),
    )

    account_id: Mapped[str] = mapped_column(String(20), ForeignKey("accounts.id"), primary_key=True)
    is_test: Mapped[bool] = mapped_column(primary_key=True)
    available_idr: Mapped[int] = mapped_column(BigInteger)
    held_idr: Mapped[int] = mapped_column(BigInteger)


# The test money that it began with. Times are no order: they can be the same, and go back.
_FIRST_ROW = (
    select(JournalRow.id)
    .where(JournalRow.account_id == AccountRow.id, JournalRow.is_test)
    .order_by(JournalRow.id)
    .limit(1)
    .correlate(AccountRow)
    .scalar_subquery()
)


def create_account(database: Database, name: str) -> Account:
    """Make an account, with nothing on the live ledger and play money on the test ledger.

    Raises:
        InvalidRequest: the name cannot be shown, or another account has it.
    """
    with database.write() as session:
        return insert_account(session, name)


def insert_account(session: Session, name: str) -> Account:
    """`create_account` inside a transaction of the caller."""
    check_name(name, "an account")
    if "/" in name or name in (".", ".."):
        raise InvalidRequest(
            f"{name!r} cannot be the name of an account, which is a part of the addresses of the "
            "admin API: it must not hold a `/`, nor be `.` or `..`.",
            param="name",
        )
    if session.scalar(select(AccountRow.id).where(AccountRow.name == name)) is not None:
        raise InvalidRequest(f"There is an account named {name!r} already.", param="name")
    row = AccountRow(
        id=f"acc_{secrets.token_hex(8)}", name=name, state="active", created_at=int(time.time())
    )
    session.add(row)
    session.flush()
    for is_test in (False, True):
        session.add(BalanceRow(account_id=row.id, is_test=is_test, available_idr=0, held_idr=0))
    session.flush()
    _pay_in(session, row.id, TEST_GRANT_IDR, is_test=True, note="test money of a new account")
    return shown(session, row)


def default_account(session: Session) -> str:
    """The id of the account that keys come to when none is named: the oldest, made if need be."""
    oldest = select(AccountRow.id).order_by(_FIRST_ROW).limit(1)
    return session.scalar(oldest) or insert_account(session, DEFAULT_NAME).id


def list_accounts(database: Database) -> tuple[Account, ...]:
    """All accounts, the oldest first."""
    with database.read() as session:
        rows = session.scalars(select(AccountRow).order_by(_FIRST_ROW))
        return tuple(shown(session, row) for row in rows.all())


def show_account(database: Database, name_or_id: str) -> Account:
    """One account. Raises InvalidRequest: there is none of this name or id."""
    with database.read() as session:
        return shown(session, find_account(session, name_or_id))


def find_account(session: Session, name_or_id: str) -> AccountRow:
    """The row of an account. Raises InvalidRequest: there is none of this name or id."""
    matches = or_(AccountRow.id == name_or_id, AccountRow.name == name_or_id)
    row = session.scalar(
        select(AccountRow).where(matches).order_by(AccountRow.id != name_or_id).limit(1)
    )
    if row is None:
        raise InvalidRequest(
            f"There is no account with the id or name {name_or_id!r}. `iris accounts list` shows "
            "them.",
            param="account",
        )
    return row


def set_suspended(database: Database, name_or_id: str, suspended: bool) -> Account:
    """Close an account to new pictures, or open it again. Its balance and its keys stay.

    Raises:
        InvalidRequest: there is no such account.
    """
    with database.write() as session:
        row = find_account(session, name_or_id)
        row.state = "suspended" if suspended else "active"
        session.flush()
        return shown(session, row)


def top_up(
    database: Database,
    name_or_id: str,
    amount_idr: int,
    *,
    is_test: bool = False,
    reference: str | None = None,
    note: str | None = None,
) -> Account:
    """Add prepaid money to an account.

    reference: of the payment. The same payment is booked once, however often it is told.

    Raises:
        InvalidRequest: there is no such account, the amount is not from 1 to 10**12, a text is too
            long or not printable, or the reference belongs to another payment.
    """
    if not 1 <= amount_idr <= MAX_TOP_UP_IDR:
        raise InvalidRequest(
            f"{amount_idr} cannot be topped up: it must be an integer of rupiah from 1 to "
            f"{MAX_TOP_UP_IDR:,}.",
            param="amount_idr",
        )
    check_text(reference, MAX_REFERENCE_CHARACTERS, "reference")
    check_text(note, MAX_NOTE_CHARACTERS, "note")
    with database.write() as session:
        row = find_account(session, name_or_id)
        if reference is not None:
            told = session.scalar(select(JournalRow).where(JournalRow.reference == reference))
            if told is not None:
                if (told.account_id, told.is_test, told.amount_idr) != (
                    row.id,
                    is_test,
                    amount_idr,
                ):
                    raise InvalidRequest(
                        f"The reference {reference!r} belongs to another payment (row {told.id} of "
                        "the journal).",
                        param="reference",
                    )
                return shown(session, row)
        _pay_in(session, row.id, amount_idr, is_test=is_test, reference=reference, note=note)
        return shown(session, row)


def check_text(text: str | None, max_characters: int, what: str) -> None:
    """Raises InvalidRequest: the text is empty, too long or not printable; None is no text."""
    if text is not None and not (0 < len(text) <= max_characters and text.isprintable()):
        raise InvalidRequest(
            f"The {what} must be 1 to {max_characters} printable characters.", param=what
        )


def _pay_in(
    session: Session,
    account_id: str,
    amount_idr: int,
    *,
    is_test: bool,
    reference: str | None = None,
    note: str | None = None,
) -> None:
    row = movement(
        "top_up",
        at_ms=int(time.time() * 1000),
        account_id=account_id,
        is_test=is_test,
        amount_idr=amount_idr,
        reference=reference,
        note=note,
    )
    session.execute(insert(JournalRow), [row])
    session.execute(
        update(BalanceRow)
        .where(BalanceRow.account_id == account_id, BalanceRow.is_test == is_test)
        .values(available_idr=BalanceRow.available_idr + amount_idr)
        .execution_options(synchronize_session=False)
    )


def shown(session: Session, row: AccountRow) -> Account:
    """The account of a row, with its balances."""
    columns = select(BalanceRow.is_test, BalanceRow.available_idr, BalanceRow.held_idr)
    found = {
        is_test: Balance(available, held)
        for is_test, available, held in session.execute(
            columns.where(BalanceRow.account_id == row.id)
        )
    }
    return Account(row.id, row.name, row.state, row.created_at, found[False], found[True])
