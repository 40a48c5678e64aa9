"""The ledger beside a simple model of it, in every order of events that hypothesis finds."""

from __future__ import annotations

import tempfile
from functools import cache
from pathlib import Path

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    initialize,
    invariant,
    rule,
    run_state_machine_as_test,
)

from iris.accounts.accounts import set_suspended, show_account, top_up
from iris.accounts.clock import day_of, month_of
from iris.accounts.db import Database
from iris.accounts.holds import Capture, Hold, Reserve, Void
from iris.accounts.keys import create_key, limit_key
from iris.accounts.recovery import resolve_dead
from iris.accounts.refund import refund
from iris.accounts.verify import verify
from iris.errors import AccountSuspended, InsufficientQuota, RateLimited
from tests.accounts.books import DELIVERY, NO_LIMITS, Books
from tests.accounts.conftest import new_database_url
from tests.accounts.postgres import Postgres

PRICE = 750
LEASES = ("lease_one", "lease_two")


@cache
def _empty() -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "iris.db"
        Database(f"sqlite:///{path}").close()  # the last connection leaves all in this one file
        return path.read_bytes()


def _copy_of_an_empty_one(folder: Path) -> str:
    """Its migrations would be most of an example."""
    path = folder / "iris.db"
    path.write_bytes(_empty())
    return f"sqlite:///{path}"


class LedgerMachine(RuleBasedStateMachine):
    """One account with two live keys; two processes; a clock that goes on."""

    holds = Bundle("holds")
    paid = Bundle("paid")

    def __init__(self, url: str | None = None) -> None:
        super().__init__()
        self._folder = tempfile.TemporaryDirectory()
        self.database = Database(url or _copy_of_an_empty_one(Path(self._folder.name)))
        self.books = Books(self.database, limits=NO_LIMITS)
        other, _ = create_key(
            self.database, "other", is_test=False, account=self.books.account, limits=NO_LIMITS
        )
        self.keys = [self.books.key_id, other.id]
        self.model_available = 0
        self.model_revenue = 0
        self.open: dict[str, tuple[str, str]] = {}  # hold -> key, lease
        self.admitted_ms: dict[str, list[int]] = {key: [] for key in self.keys}
        self.counted_ms: dict[str, dict[str, int]] = {key: {} for key in self.keys}  # not voided
        self.limits = dict.fromkeys(self.keys, NO_LIMITS)
        self.suspended = False

    @initialize(amount=st.integers(1, 10_000))
    def begin(self, amount: int) -> None:
        self.pay_in(amount)

    @rule(amount=st.integers(1, 3_000))
    def pay_in(self, amount: int) -> None:
        top_up(self.database, self.books.account, amount)
        self.model_available += amount

    @rule(seconds=st.floats(0, 45))
    def wait(self, seconds: float) -> None:
        self.books.later(seconds)

    @rule(days=st.integers(0, 40))
    def sleep(self, days: int) -> None:
        """The counters of the day and the month begin anew; the invariant counts them again."""
        self.books.later(days * 86_400)

    @rule(
        which=st.integers(0, 1),
        changes=st.dictionaries(
            st.sampled_from(("rpm", "rpd", "max_in_flight")), st.integers(1, 6), max_size=2
        ),
        cap=st.none() | st.integers(0, 6_000),
    )
    def limit(self, which: int, changes: dict[str, int], cap: int | None) -> None:
        key = self.keys[which]
        limit_key(self.database, key, **changes, monthly_cap_idr=cap)
        self.limits[key] = self.limits[key].changed(**changes, monthly_cap_idr=cap)

    @rule(suspended=st.booleans())
    def suspend(self, suspended: bool) -> None:
        set_suspended(self.database, self.books.account, suspended)
        self.suspended = suspended

    @rule(
        target=holds,
        which=st.lists(st.integers(0, 1), min_size=1, max_size=6),
        lease=st.sampled_from(LEASES),
    )
    def reserve(self, which: list[int], lease: str) -> object:
        """A batch of reservations; the model decides them one by one."""
        self.books.lease_id = lease
        keys = [self.keys[number] for number in which]
        results = self.books.post(*(Reserve(key) for key in keys))
        made = []
        for key, result in zip(keys, results, strict=True):
            why = self._why_not(key)
            if isinstance(result, Hold):
                assert why is None, why
                self.model_available -= PRICE
                self.open[result.id] = (key, lease)
                self.admitted_ms[key].append(self.books.now_ms)
                self.counted_ms[key][result.id] = self.books.now_ms
                made.append(result.id)
            else:
                assert why is type(result.error), (why, result)
        return made

    def _why_not(self, key: str) -> type[Exception] | None:
        if self.suspended:
            return AccountSuspended
        limits, now_ms = self.limits[key], self.books.now_ms
        of_the_day = [at for at in self.counted_ms[key].values() if day_of(at) == day_of(now_ms)]
        spent = PRICE * sum(
            month_of(at) == month_of(now_ms) for at in self.counted_ms[key].values()
        )
        if (
            sum(at > now_ms - 60_000 for at in self.admitted_ms[key]) >= limits.rpm
            or len(of_the_day) >= limits.rpd
            or sum(owner == key for owner, _ in self.open.values()) >= limits.max_in_flight
        ):
            return RateLimited
        if 0 < limits.monthly_cap_idr < spent + PRICE:
            return InsufficientQuota
        return InsufficientQuota if self.model_available < PRICE else None

    @rule(
        target=paid, made=consumes(holds), captured=st.lists(st.booleans(), min_size=6, max_size=6)
    )
    def resolve(self, made: list[str], captured: list[bool]) -> object:
        """A batch of resolutions, each told twice."""
        entries = [
            Capture(hold_id, DELIVERY) if is_captured else Void(hold_id)
            for hold_id, is_captured in zip(made, captured, strict=False)
        ]
        results = self.books.post(*entries)
        assert self.books.post(*entries) == results
        for entry, result in zip(entries, results, strict=True):
            owner = self.open.pop(entry.hold_id, None)
            if owner is None:
                continue  # its process had been found dead
            assert result == ("captured" if isinstance(entry, Capture) else "voided")
            if isinstance(entry, Capture):
                self.model_revenue += PRICE
            else:
                self._voided(entry.hold_id, owner[0])
        return [e.hold_id for e, r in zip(entries, results, strict=True) if r == "captured"]

    @rule(pictures=paid)
    def give_back(self, pictures: list[str]) -> None:
        for hold_id in pictures:
            before = show_account(self.database, self.books.account).live.available_idr
            after = refund(self.database, hold_id).live.available_idr
            self.model_available += after - before
            self.model_revenue -= after - before
            assert after - before in (0, PRICE)
            assert refund(self.database, hold_id).live.available_idr == after

    @rule(lease=st.sampled_from(LEASES), delivered=st.integers(0, 3))
    def die(self, lease: str, delivered: int) -> None:
        """A process is found dead; some of its pictures had been handed over."""
        theirs = [hold_id for hold_id, (_, owner) in self.open.items() if owner == lease]
        noted = dict.fromkeys(theirs[:delivered], DELIVERY)
        with self.database.write() as session:
            assert resolve_dead(session, lease, noted, self.books.now_ms) == len(theirs)
        for hold_id in theirs:
            key, _ = self.open.pop(hold_id)
            if hold_id in noted:
                self.model_revenue += PRICE
            else:
                self._voided(hold_id, key)

    def _voided(self, hold_id: str, key: str) -> None:
        self.model_available += PRICE
        del self.counted_ms[key][hold_id]

    @invariant()
    def the_books_are_those_of_the_model(self) -> None:
        live = show_account(self.database, self.books.account).live
        assert (live.available_idr, live.held_idr) == (
            self.model_available,
            PRICE * len(self.open),
        )
        verdict = verify(self.database)
        assert verdict.breaches == ()
        assert verdict.open_holds == len(self.open)

    def teardown(self) -> None:
        self.database.close()
        self._folder.cleanup()


_settings = settings(
    stateful_step_count=25,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)


def test_the_ledger_is_its_model_in_every_order_of_events() -> None:
    run_state_machine_as_test(LedgerMachine, settings=settings(_settings, max_examples=100))


def test_the_ledger_is_its_model_on_postgresql_too(postgres: Postgres) -> None:
    run_state_machine_as_test(
        lambda: LedgerMachine(new_database_url(postgres)),
        settings=settings(_settings, max_examples=15),
    )
