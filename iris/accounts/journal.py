"""The journal: every movement of money, written once and never changed.

Each row moves an amount from one book to another, so what is in all books together is always
nothing: the debit of one is the credit of the other. `available` and `held` are books of the
account, `cash` and `revenue` are the operator's. Live and test money never meet: every book exists
once on each ledger.
"""

from __future__ import annotations

from typing import Final, Literal

from sqlalchemy import BigInteger, CheckConstraint, ForeignKey, Index, Integer, String, text
from sqlalchemy.orm import Mapped, mapped_column

from iris.accounts.db import Base

PRICE_IDR = 750  # of one delivered picture

Kind = Literal["top_up", "hold", "capture", "void", "refund"]
Book = Literal["cash", "available", "held", "revenue"]

MOVES: Final[dict[Kind, tuple[Book, Book]]] = {  # out of which book, into which
    "top_up": ("cash", "available"),
    "hold": ("available", "held"),
    "capture": ("held", "revenue"),
    "void": ("held", "available"),
    "refund": ("revenue", "available"),
}

# What the partial indexes are made of. A statement that is to be answered from one of them says the
# same, word for word: a value that is bound may come too late for the plan.
IS_HOLD = text("kind = 'hold'")
IS_RESOLUTION = text("kind IN ('capture', 'void')")
IS_REFUND = text("kind = 'refund'")

BIG_ID = BigInteger().with_variant(Integer, "sqlite")  # SQLite counts up only integers


class JournalRow(Base):
    """One movement. The database refuses to change or to delete a row."""

    __tablename__ = "journal"

    id: Mapped[int] = mapped_column(BIG_ID, primary_key=True)
    at_ms: Mapped[int] = mapped_column(BigInteger)
    kind: Mapped[str] = mapped_column(String(8))
    is_test: Mapped[bool]
    account_id: Mapped[str] = mapped_column(String(20), ForeignKey("accounts.id"))
    debit: Mapped[str] = mapped_column(String(9))
    credit: Mapped[str] = mapped_column(String(9))
    amount_idr: Mapped[int] = mapped_column(BigInteger)
    hold_id: Mapped[str | None] = mapped_column(String(37))  # all but top-ups
    key_id: Mapped[str | None] = mapped_column(String(20))
    key_seq: Mapped[int | None] = mapped_column(BigInteger)  # the how-manieth hold of its key
    reference: Mapped[str | None] = mapped_column(String(100))  # of a payment; never twice
    note: Mapped[str | None] = mapped_column(String(200))

    __table_args__ = (
        CheckConstraint("amount_idr > 0", name="amount"),
        Index("ix_journal_account", "account_id", "is_test", "id"),
        *(
            Index(
                name,
                *columns,
                unique=unique,
                sqlite_where=where,
                postgresql_where=where,
            )
            for name, columns, where, unique in (
                ("uq_journal_hold", ("hold_id",), IS_HOLD, True),
                ("uq_journal_resolution", ("hold_id",), IS_RESOLUTION, True),
                ("uq_journal_refund", ("hold_id",), IS_REFUND, True),
                ("uq_journal_reference", ("reference",), text("reference IS NOT NULL"), True),
                ("ix_journal_window", ("key_id", "at_ms", "key_seq"), IS_HOLD, False),
            )
        ),
        {"sqlite_autoincrement": True},
    )


def movement(
    kind: Kind,
    *,
    at_ms: int,
    account_id: str,
    is_test: bool,
    amount_idr: int,
    hold_id: str | None = None,
    key_id: str | None = None,
    key_seq: int | None = None,
    reference: str | None = None,
    note: str | None = None,
) -> dict[str, object]:
    """The values of one new row."""
    debit, credit = MOVES[kind]
    return {
        "at_ms": at_ms,
        "kind": kind,
        "is_test": is_test,
        "account_id": account_id,
        "debit": debit,
        "credit": credit,
        "amount_idr": amount_idr,
        "hold_id": hold_id,
        "key_id": key_id,
        "key_seq": key_seq,
        "reference": reference,
        "note": note,
    }
