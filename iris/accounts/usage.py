"""Usage: one record of every delivered picture, and its sums."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Any, Literal, get_args

from sqlalchemy import BigInteger, ColumnElement, Index, String, func, select
from sqlalchemy.orm import Mapped, mapped_column

from iris.accounts.db import Base, Database
from iris.errors import InvalidRequest

GroupBy = Literal["day", "key", "style"]
NO_STYLE = "none"
MAX_DAYS = 366
_DAY_MS = 86_400_000
_EPOCH = date(1970, 1, 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    """What is kept of a picture beside its price. Set by the front."""

    route: str  # generation | edit
    style: str  # a registered name, or `none`
    size: str  # WIDTHxHEIGHT
    num_steps: int
    input_text_tokens: int
    input_image_tokens: int
    output_image_tokens: int
    user_tag: str | None  # the client's own label of its end user


class UsageRow(Base):
    """A picture that was paid; its hold is in the journal."""

    __tablename__ = "usage"
    __table_args__ = (Index("ix_usage_account", "account_id", "is_test", "at_ms"),)

    hold_id: Mapped[str] = mapped_column(String(37), primary_key=True)
    at_ms: Mapped[int] = mapped_column(BigInteger)
    account_id: Mapped[str] = mapped_column(String(20))
    key_id: Mapped[str] = mapped_column(String(20))
    is_test: Mapped[bool]
    amount_idr: Mapped[int] = mapped_column(BigInteger)
    route: Mapped[str] = mapped_column(String(10))
    style: Mapped[str] = mapped_column(String(100))
    size: Mapped[str] = mapped_column(String(9))
    num_steps: Mapped[int]
    input_text_tokens: Mapped[int]
    input_image_tokens: Mapped[int]
    output_image_tokens: Mapped[int]
    user_tag: Mapped[str | None] = mapped_column(String(255))


@dataclass(frozen=True, slots=True, kw_only=True)
class Sum:
    """The usage of one group. The days are UTC."""

    group: str  # a day as YYYY-MM-DD, the id of a key, or the name of a style
    pictures: int
    cost_idr: int
    input_tokens: int
    output_tokens: int


@dataclass(frozen=True, slots=True)
class Period:
    """UTC days, the first and the last one included."""

    first: date
    last: date

    @classmethod
    def parse(cls, first: str | None, last: str | None) -> Period:
        """From YYYY-MM-DD; left out, the last 30 days.

        Raises:
            InvalidRequest: not a day, the wrong way round, or more than 366 days.
        """
        end = _day(last, "to") or datetime.now(UTC).date()
        begin = _day(first, "from") or end - timedelta(days=29)
        if begin > end:
            raise InvalidRequest(f"`from` ({begin}) must not be after `to` ({end}).", param="from")
        if (end - begin).days >= MAX_DAYS:
            raise InvalidRequest(
                f"`from` to `to` may be {MAX_DAYS} days at most; ask for less at a time.",
                param="from",
            )
        return cls(begin, end)

    @property
    def bounds_ms(self) -> tuple[int, int]:
        """Unix milliseconds: the first that belongs to it, the first that no longer does."""
        return (
            (self.first - _EPOCH).days * _DAY_MS,
            ((self.last - _EPOCH).days + 1) * _DAY_MS,
        )


def parse_group_by(text: str | None, *, is_csv: bool = False) -> GroupBy:
    """Raises InvalidRequest: not one of the three, or of a csv; left out, it is `day`."""
    if is_csv and text is not None:
        raise InvalidRequest(
            "A csv has one line for every picture; leave `group_by` out.", param="group_by"
        )
    for known in get_args(GroupBy):
        if text in (known, None):
            return known  # type: ignore[no-any-return]
    raise InvalidRequest("`group_by` must be `day`, `key` or `style`.", param="group_by")


def sum_usage(
    database: Database, account_id: str, *, is_test: bool, period: Period, group_by: GroupBy
) -> tuple[Sum, ...]:
    """What an account used on one ledger, by group, in the order of their names."""
    group: ColumnElement[Any]
    if group_by == "day":
        group = UsageRow.at_ms // _DAY_MS
    else:
        group = {"key": UsageRow.key_id, "style": UsageRow.style}[group_by].expression
    begin_ms, end_ms = period.bounds_ms
    input_tokens = UsageRow.input_text_tokens + UsageRow.input_image_tokens
    asked = (
        select(
            group,
            func.count(),
            func.sum(UsageRow.amount_idr),
            func.sum(input_tokens),
            func.sum(UsageRow.output_image_tokens),
        )
        .where(
            UsageRow.account_id == account_id,
            UsageRow.is_test == is_test,
            UsageRow.at_ms >= begin_ms,
            UsageRow.at_ms < end_ms,
        )
        .group_by(group)
        .order_by(group)
    )
    with database.read() as session:
        return tuple(
            Sum(
                group=str(_EPOCH + timedelta(days=int(str(name))))
                if group_by == "day"
                else str(name),
                pictures=int(pictures),
                cost_idr=int(cost),
                input_tokens=int(tokens_in),
                output_tokens=int(tokens_out),
            )
            for name, pictures, cost, tokens_in, tokens_out in session.execute(asked)
        )


def _day(text: str | None, param: str) -> date | None:
    if text is None:
        return None
    try:
        day = date.fromisoformat(text) if len(text) == 10 else None
    except ValueError:
        day = None
    if day is None or day < _EPOCH:
        raise InvalidRequest(f"`{param}` must be a UTC day as YYYY-MM-DD.", param=param)
    return day
