"""What a clock that was ahead, or hosts a little apart, do to the limits of a key."""

from __future__ import annotations

import pytest

from iris.accounts.db import Database
from iris.accounts.holds import Hold
from iris.accounts.keys import limit_key
from tests.accounts.books import NO_LIMITS, Books

DAY_S = 86_400


def test_a_day_of_a_clock_that_was_ahead_locks_nobody_out(either: Database) -> None:
    books = Books(either, money_idr=10**6, limits=NO_LIMITS.changed(rpd=2))
    books.later(DAY_S)
    for seconds in (-DAY_S, DAY_S / 2):  # set right; then the day that had been counted already
        for _ in range(2):
            books.admitted()
        assert books.refused().error.code == "rpd_exceeded"
        books.later(seconds)
    books.admitted()
    books.check()


def test_a_month_of_a_clock_that_was_ahead_locks_nobody_out(either: Database) -> None:
    books = Books(either, money_idr=10**6, limits=NO_LIMITS.changed(monthly_cap_idr=750))
    books.later(29.5 * DAY_S + 3_600)  # an hour into December
    for seconds in (-7_200, 3_601):
        books.admitted()
        assert books.refused().error.code == "monthly_cap_exceeded"
        books.later(seconds)
    books.admitted()
    books.check()


@pytest.mark.parametrize("apart_s", [0, 1, 4.999, 5])
@pytest.mark.parametrize("both_ask", [False, True])
@pytest.mark.parametrize("limit", [{"rpd": 3}, {"monthly_cap_idr": 3 * 750}])
def test_hosts_a_little_apart_never_give_more_than_a_day_or_a_month_may_have(
    database: Database, apart_s: float, limit: dict[str, int], both_ask: bool
) -> None:
    books = Books(database, money_idr=10**6)
    books.later(-DAY_S)
    old = [books.admitted() for _ in range(24)]  # of October
    limit_key(database, books.key_id, **limit)
    books.later(30.5 * DAY_S - 12)  # 12 seconds before December
    given = 0
    for hold in old:
        given += isinstance(books.reserve(), Hold)
        books.later(apart_s)  # the host that is ahead
        books.capture(hold)  # which begins a day, too
        given += both_ask and isinstance(books.reserve(), Hold)
        books.later(1 - apart_s)
        books.check()
    assert given == 3 + 3


def test_whoever_is_behind_waits_until_the_end_of_the_day_that_is_full(either: Database) -> None:
    books = Books(either, money_idr=10**6, limits=NO_LIMITS.changed(rpd=1))
    books.later(DAY_S / 2 + 2)
    books.admitted()
    books.later(-6)
    assert books.refused().error.retry_after_s == DAY_S + 4
    books.later(6)
    assert books.refused().error.retry_after_s == DAY_S - 2


def test_a_hold_never_counts_for_a_day_before_its_own(either: Database) -> None:
    books = Books(either, money_idr=10**6)
    books.later(DAY_S / 2 + 3)
    hold = books.admitted()
    books.later(-9)  # the day is set back, too
    books.void(hold)
    books.check()
    books.later(4.5)  # the hold's time is near, and the next one is not written before it
    books.admitted()
    books.check()


def test_a_month_that_is_set_back_holds_its_day(either: Database) -> None:
    books = Books(either, money_idr=10**6)
    for seconds in (44 * DAY_S, -14.5 * DAY_S - 3, -10):  # then just before December, and earlier
        books.later(seconds)
        books.admitted()
        books.check()


def test_a_minute_of_a_clock_that_was_ahead_is_no_part_of_the_minute_when_it_comes(
    either: Database,
) -> None:
    books = Books(either, money_idr=10**6, limits=NO_LIMITS.changed(rpm=3))
    for seconds in (3_600, -3_600, 3_630):
        books.later(seconds)
        for _ in range(3):
            books.admitted()
        assert books.refused().error.code == "rpm_exceeded"
    books.check()
