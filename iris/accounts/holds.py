"""Open holds: money set aside for pictures in the making, and what becomes of it."""

from __future__ import annotations

import secrets
from dataclasses import dataclass

from sqlalchemy import BigInteger, String
from sqlalchemy.orm import Mapped, mapped_column

from iris.accounts.db import Base
from iris.accounts.limits import Quota
from iris.accounts.outcomes import Outcome
from iris.accounts.usage import Delivery
from iris.errors import IrisError


class HoldRow(Base):
    """A hold that is not resolved; the journal keeps it for ever, this table while it is open."""

    __tablename__ = "holds"

    id: Mapped[str] = mapped_column(String(37), primary_key=True)
    account_id: Mapped[str] = mapped_column(String(20))
    key_id: Mapped[str] = mapped_column(String(20))
    is_test: Mapped[bool]
    amount_idr: Mapped[int] = mapped_column(BigInteger)
    opened_at_ms: Mapped[int] = mapped_column(BigInteger)
    key_seq: Mapped[int] = mapped_column(BigInteger)  # the how-manieth hold of its key
    lease_id: Mapped[str] = mapped_column(String(40), index=True)  # of the process it lives in


@dataclass(frozen=True, slots=True)
class Hold:
    """The price of one picture, set aside; to be captured or voided, once."""

    id: str
    amount_idr: int
    quota: Quota


@dataclass(frozen=True, slots=True)
class Refused:
    """No hold was made and nothing was counted."""

    error: IrisError
    quota: Quota | None = None


@dataclass(frozen=True, slots=True)
class Reserve:
    """Set the price of one picture aside."""

    key_id: str


@dataclass(frozen=True, slots=True)
class Capture:
    """The picture was delivered: take what is held. What is kept for a retry is kept with it."""

    hold_id: str
    delivery: Delivery
    outcome: Outcome | None = None


@dataclass(frozen=True, slots=True)
class Void:
    """The picture was not delivered: give back what is held."""

    hold_id: str


Entry = Reserve | Capture | Void


def new_hold_id() -> str:
    return f"hold_{secrets.token_hex(16)}"
