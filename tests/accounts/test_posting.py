"""Money and limits, on SQLite and on PostgreSQL alike."""

from __future__ import annotations

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from iris.accounts.accounts import set_suspended, show_account, top_up
from iris.accounts.db import Database
from iris.accounts.holds import Capture, Hold, Reserve, Void
from iris.accounts.keys import limit_key, revoke_key
from iris.accounts.limits import Limits
from iris.accounts.verify import verify
from iris.errors import AccountSuspended, InsufficientQuota, RateLimited, Unauthenticated
from tests.accounts.books import DELIVERY, NO_LIMITS, Books

DAY_S = 86_400


def limits(**changes: int) -> Limits:
    return NO_LIMITS.changed(**changes)


def test_a_captured_picture_costs_its_price_once_however_often_it_is_told(either: Database) -> None:
    books = Books(either, money_idr=2_000)
    hold = books.admitted()
    assert books.balance() == (1_250, 750)
    assert [books.capture(hold), books.capture(hold), books.void(hold)] == ["captured"] * 3
    assert books.balance() == (1_250, 0)
    books.check()


def test_a_voided_picture_costs_nothing_and_can_never_be_captured(either: Database) -> None:
    books = Books(either, money_idr=750)
    hold = books.admitted()
    assert [books.void(hold), books.void(hold), books.capture(hold)] == ["voided"] * 3
    assert books.balance() == (750, 0)
    books.check()


def test_a_hold_that_never_was_changes_nothing(either: Database) -> None:
    books = Books(either, money_idr=750)
    assert books.post(Void("hold_" + "0" * 32), Capture("hold_" + "1" * 32, DELIVERY)) == [
        "unknown",
        "unknown",
    ]
    assert books.balance() == (750, 0)
    books.check()


def test_749_rupiah_buy_nothing_and_750_exactly_one(either: Database) -> None:
    books = Books(either, money_idr=749)
    refused = books.refused()
    assert isinstance(refused.error, InsufficientQuota)
    assert refused.error.code == "insufficient_quota"
    assert "Rp749" in refused.error.message
    top_up(either, books.account, 1)
    books.admitted()
    assert isinstance(books.refused().error, InsufficientQuota)
    assert books.balance() == (0, 750)
    books.check()


def test_test_money_and_live_money_never_meet(either: Database) -> None:
    books = Books(either, is_test=True)
    before = show_account(either, books.account)
    assert before.live.available_idr == 0
    assert before.test.available_idr >= 750  # a new account can be tried at once
    books.capture(books.admitted())
    after = show_account(either, books.account)
    assert after.live == before.live
    assert after.test.available_idr == before.test.available_idr - 750
    verdict = verify(either)
    assert (verdict.captured_live_idr, verdict.captured_test_idr) == (0, 750)


def test_a_batch_is_as_exact_as_one_after_the_other(either: Database) -> None:
    books = Books(either, money_idr=750 * 5, limits=limits(rpm=4))
    results = books.post(*[Reserve(books.key_id)] * 10)
    assert [isinstance(result, Hold) for result in results] == [True] * 4 + [False] * 6
    first, second, *_ = (result for result in results if isinstance(result, Hold))
    books.post(Void(first.id), Capture(second.id, DELIVERY))
    assert books.balance() == (750 * 2, 750 * 2)
    books.check()


def test_a_batch_frees_money_and_places_before_it_gives_them_away(either: Database) -> None:
    books = Books(either, money_idr=750, limits=limits(max_in_flight=1))
    hold = books.admitted()
    reserved, voided = books.post(Reserve(books.key_id), Void(hold.id))
    assert isinstance(reserved, Hold)
    assert voided == "voided"
    books.check()


def test_the_minute_rolls(either: Database) -> None:
    books = Books(either, money_idr=10**6, limits=limits(rpm=3))
    for _ in range(3):
        books.void(books.admitted())
        books.later(10)
    refused = books.refused()
    assert isinstance(refused.error, RateLimited)
    assert refused.error.code == "rpm_exceeded"
    assert refused.error.retry_after_s == 30
    books.later(29.999)
    assert isinstance(books.refused().error, RateLimited)
    books.later(0.001)
    books.admitted()  # exactly one place is free
    assert books.refused().error.retry_after_s == 10
    books.check()


def test_the_quota_tells_what_is_left_of_the_minute(either: Database) -> None:
    books = Books(either, money_idr=10**6, limits=limits(rpm=3))
    assert [books.admitted().quota.remaining for _ in range(3)] == [2, 1, 0]
    books.later(40)
    quota = books.refused().quota
    assert quota is not None
    assert (quota.limit, quota.remaining, quota.reset_s) == (3, 0, 20)


def test_a_limit_that_was_lowered_counts_at_once(either: Database) -> None:
    books = Books(either, money_idr=10**6)
    for _ in range(5):
        books.admitted()
        books.later(1)
    limit_key(either, books.key_id, rpm=2)
    assert books.refused().error.retry_after_s == 60 - 2  # the fourth has to leave
    limit_key(either, books.key_id, rpm=6)
    books.admitted()


def test_a_day_counts_what_was_admitted_and_not_voided(either: Database) -> None:
    books = Books(either, money_idr=750 * 2, limits=limits(rpd=2))
    books.void(books.admitted())
    books.void(books.admitted())
    books.capture(books.admitted())
    hold = books.admitted()
    refused = books.refused().error
    assert refused.code == "rpd_exceeded"
    assert refused.retry_after_s == DAY_S / 2  # from noon to midnight, UTC
    books.later(DAY_S / 2)
    assert isinstance(books.refused().error, InsufficientQuota)  # a new day; no money
    books.void(hold)  # of yesterday: today's count stays
    top_up(either, books.account, 750 * 3)
    books.admitted()
    books.admitted()
    assert books.refused().error.code == "rpd_exceeded"
    books.check()


def test_what_was_refused_counts_for_nothing(either: Database) -> None:
    books = Books(either, limits=limits(rpm=1, rpd=1, monthly_cap_idr=750))
    for _ in range(5):
        assert isinstance(books.refused().error, InsufficientQuota)
    top_up(either, books.account, 750)
    books.admitted()


def test_no_more_are_in_flight_than_may_be(either: Database) -> None:
    books = Books(either, money_idr=10**6, limits=limits(max_in_flight=2))
    first, second = books.admitted(), books.admitted()
    refused = books.refused().error
    assert refused.code == "concurrency_exceeded"
    assert refused.retry_after_s is not None
    books.capture(first)
    books.admitted()
    books.void(second)
    books.admitted()
    assert books.refused().error.code == "concurrency_exceeded"
    books.check()


def test_a_month_has_its_cap_and_a_void_gives_its_part_back(either: Database) -> None:
    books = Books(either, money_idr=10**6, limits=limits(monthly_cap_idr=1_600))
    first = books.admitted()
    books.capture(books.admitted())
    refused = books.refused().error
    assert isinstance(refused, InsufficientQuota)
    assert refused.code == "monthly_cap_exceeded"
    books.void(first)
    books.capture(books.admitted())
    assert books.refused().error.code == "monthly_cap_exceeded"
    books.later(29.5 * DAY_S)  # from noon of the first to the first of December
    books.admitted()


def test_a_clock_that_was_set_on_or_back_an_hour_locks_nobody_out(either: Database) -> None:
    books = Books(either, money_idr=10**6, limits=limits(rpm=3))
    for seconds in (3_600, -3_600, -3_600, 3_600 + 61):
        books.later(seconds)
        for _ in range(3):
            books.capture(books.admitted())
        assert books.refused().error.code == "rpm_exceeded"
        assert 0 < (books.refused().error.retry_after_s or 0) <= 60
    books.check()


def test_a_host_a_little_behind_does_not_begin_the_old_day_anew(either: Database) -> None:
    books = Books(either, money_idr=10**6, limits=limits(rpd=2))
    books.later(DAY_S / 2 + 1)
    books.admitted()
    books.later(-2)
    books.admitted()
    assert books.refused().error.code == "rpd_exceeded"


@pytest.mark.parametrize("days", [1, 2, 40, -1, -2, -40])
def test_a_clock_that_was_set_days_on_and_back_gives_no_place_back_twice(
    either: Database, days: int
) -> None:
    books = Books(either, money_idr=10**6, limits=limits(rpd=3, monthly_cap_idr=10**5))
    old = books.admitted()
    books.later(days * DAY_S)
    new = books.admitted()
    books.check()
    books.later(-days * DAY_S)
    books.capture(books.admitted())
    for hold in (old, new):
        books.void(hold)
        books.check()  # counts what the journal says, and never less than nothing


def test_a_revoked_key_and_a_suspended_account_get_nothing_at_once(either: Database) -> None:
    books = Books(either, money_idr=10**6)
    set_suspended(either, books.account, True)
    assert isinstance(books.refused().error, AccountSuspended)
    set_suspended(either, books.account, False)
    books.admitted()
    revoke_key(either, books.key_id)
    assert isinstance(books.refused().error, Unauthenticated)


def test_the_journal_can_only_grow(either: Database) -> None:
    books = Books(either, money_idr=750)
    books.capture(books.admitted())
    for statement in ("UPDATE journal SET amount_idr = 1", "DELETE FROM journal"):
        with pytest.raises(DBAPIError, match="append-only"), either.write() as session:
            session.execute(text(statement))
    with pytest.raises(DBAPIError), either.write() as session:
        session.execute(text("UPDATE balances SET available_idr = -1"))
    books.check()
