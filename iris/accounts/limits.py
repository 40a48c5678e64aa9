"""What a key may do: per minute, per day, at once, per month; and what it has done."""

from __future__ import annotations

from dataclasses import dataclass, replace

from sqlalchemy import BigInteger, ForeignKey, String
from sqlalchemy.orm import Mapped, mapped_column

from iris.accounts.clock import day_of, month_of, seconds_to_next_day
from iris.accounts.db import Base
from iris.config import Settings
from iris.errors import InsufficientQuota, InvalidRequest, IrisError, RateLimited

WINDOW_MS = 60_000
SKEW_MS = 5_000  # so much may the clocks of several hosts differ
MAX_COUNT = 1_000_000
MAX_CAP_IDR = 10**12


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Of one key; the defaults are the published ones."""

    rpm: int = 60  # admitted in any 60 seconds
    rpd: int = 10_000  # admitted in a UTC day
    max_in_flight: int = 10  # in the making at once
    monthly_cap_idr: int = 1_000_000  # spent in a UTC month; 0 = no cap

    def __post_init__(self) -> None:
        for name, low, high in (
            ("rpm", 1, MAX_COUNT),
            ("rpd", 1, MAX_COUNT),
            ("max_in_flight", 1, MAX_COUNT),
            ("monthly_cap_idr", 0, MAX_CAP_IDR),
        ):
            if not low <= getattr(self, name) <= high:
                raise InvalidRequest(
                    f"{name}={getattr(self, name)} must be an integer from {low} to {high:,}.",
                    param=name,
                )

    @classmethod
    def of_new_keys(cls, settings: Settings) -> Limits:
        """What a key gets when nothing is said."""
        return cls(
            rpm=settings.key_rpm,
            rpd=settings.key_rpd,
            max_in_flight=settings.key_in_flight,
            monthly_cap_idr=settings.key_monthly_cap_idr,
        )

    def changed(self, **changes: int | None) -> Limits:
        """The same with some of them changed; None leaves one as it is. Raises InvalidRequest."""
        return replace(self, **{k: v for k, v in changes.items() if v is not None})


@dataclass(frozen=True, slots=True)
class Quota:
    """Where a key stands in its minute, after the request."""

    limit: int
    remaining: int
    reset_s: float  # until all of them are there again


class CounterRow(Base):
    """What a key has done; each number can be counted again from the journal."""

    __tablename__ = "counters"

    key_id: Mapped[str] = mapped_column(String(20), ForeignKey("keys.id"), primary_key=True)
    day: Mapped[int]  # of day_count, since 1970-01-01
    day_after: Mapped[int] = mapped_column(BigInteger)  # number of the last hold before it
    day_count: Mapped[int]  # admitted on it and not voided
    month: Mapped[int]  # of month_idr, since January of the year 0
    month_after: Mapped[int] = mapped_column(BigInteger)  # number of the last hold before it
    month_idr: Mapped[int] = mapped_column(BigInteger)  # held or captured in it
    in_flight: Mapped[int]  # open holds
    admitted: Mapped[int] = mapped_column(BigInteger)  # holds there ever were
    last_admitted_ms: Mapped[int] = mapped_column(BigInteger)


@dataclass(slots=True)
class Counters:
    """A key's counters while they are changed, and its window; the rules of all limits."""

    key_id: str
    limits: Limits
    day: int
    day_after: int
    day_count: int
    month: int
    month_after: int
    month_idr: int
    in_flight: int
    admitted: int
    last_admitted_ms: int
    first_in_window: int | None = None  # its number; None = there is none

    def turn(self, now_ms: int) -> int:
        """Begin a new day or month where one has begun; returns the time to write down.

        That is never before the last one, so that later holds have later times, unless the clock
        was set back.
        """
        is_behind = now_ms < self.last_admitted_ms <= now_ms + SKEW_MS
        at_ms = self.last_admitted_ms if is_behind else now_ms
        # A host whose clock is a little behind does not begin the old day anew. A day further in
        # the future is from before a clock was set back, and would lock the key out until its end.
        near_ms = at_ms + SKEW_MS
        is_new_month = not month_of(at_ms) <= self.month <= month_of(near_ms)
        if is_new_month or not day_of(at_ms) <= self.day <= day_of(near_ms):
            self.day, self.day_after, self.day_count = day_of(at_ms), self.admitted, 0
        if is_new_month:
            self.month, self.month_after, self.month_idr = month_of(at_ms), self.admitted, 0
        return at_ms

    @property
    def in_window(self) -> int:
        """Holds of the last 60 seconds. They are numbered without gaps."""
        return 0 if self.first_in_window is None else self.admitted - self.first_in_window + 1

    def refusal(self, at_ms: int, price_idr: int) -> IrisError | None:
        """Why no picture can be admitted now, or None.

        The wait of an exceeded minute is not told here: it needs the hold that has to leave first.
        """
        limits = self.limits
        if self.in_window >= limits.rpm:
            return RateLimited(
                f"This key may make {limits.rpm} requests a minute, and has made them.",
                code="rpm_exceeded",
            )
        if self.day_count >= limits.rpd:
            return RateLimited(
                f"This key may make {limits.rpd} requests a UTC day, and has made them.",
                code="rpd_exceeded",
                retry_after_s=seconds_to_next_day(at_ms) + 86_400 * (self.day - day_of(at_ms)),
            )
        if self.in_flight >= limits.max_in_flight:
            return RateLimited(
                f"This key may have {limits.max_in_flight} requests in flight, and has them.",
                code="concurrency_exceeded",
                retry_after_s=1.0,
            )
        if 0 < limits.monthly_cap_idr < self.month_idr + price_idr:
            return InsufficientQuota(
                f"This key may spend Rp{limits.monthly_cap_idr:,} a UTC month, and a picture of "
                f"Rp{price_idr:,} would be more. Its account's operator can raise the cap.",
                code="monthly_cap_exceeded",
            )
        return None

    def admit(self, at_ms: int, price_idr: int) -> None:
        self.admitted += 1
        self.last_admitted_ms = at_ms
        self.day_count += 1
        self.month_idr += price_idr
        self.in_flight += 1
        if self.first_in_window is None:
            self.first_in_window = self.admitted

    def release(self, number: int, amount_idr: int, *, is_void: bool) -> None:
        """The hold of this number is resolved; a void gives its place in the day and month back."""
        self.in_flight -= 1
        if is_void and number > self.day_after:
            self.day_count -= 1
        if is_void and number > self.month_after:
            self.month_idr -= amount_idr

    def quota(self, at_ms: int) -> Quota:
        remaining = max(0, self.limits.rpm - self.in_window)
        last_ms = min(self.last_admitted_ms, at_ms)
        reset_s = max(0, last_ms + WINDOW_MS - at_ms) / 1000 if self.in_window else 0.0
        return Quota(self.limits.rpm, remaining, reset_s)
