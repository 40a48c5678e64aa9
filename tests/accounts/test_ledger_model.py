"""The ledger beside a simple model of it, in every order of events that hypothesis finds."""

from __future__ import annotations

import tempfile
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
)

from iris.accounts.accounts import set_suspended, show_account, top_up
from iris.accounts.db import Database
from iris.accounts.holds import Capture, Hold, Reserve, Void
from iris.accounts.keys import create_key, limit_key
from iris.accounts.recovery import resolve_dead
from iris.accounts.refund import refund
from iris.accounts.verify import verify
from iris.errors import AccountSuspended, InsufficientQuota, RateLimited
from tests.accounts.books import DELIVERY, NO_LIMITS, Books

PRICE = 750
LEASES = ("lease_one", "lease_two")


class LedgerMachine(RuleBasedStateMachine):
    """One account with two live keys; two processes; a clock that goes on."""

    holds = Bundle("holds")
    paid = Bundle("paid")

    def __init__(self) -> None:
        super().__init__()
        self._folder = tempfile.TemporaryDirectory()
        self.database = Database(f"sqlite:///{Path(self._folder.name) / 'iris.db'}")
        self.books = Books(self.database, limits=NO_LIMITS)
        other, _ = create_key(
            self.database, "other", is_test=False, account=self.books.account, limits=NO_LIMITS
        )
        self.keys = [self.books.key_id, other.id]
        self.model_available = 0
        self.model_revenue = 0
        self.open: dict[str, tuple[str, str]] = {}  # hold -> key, lease
        self.admitted_ms: dict[str, list[int]] = {key: [] for key in self.keys}
        self.rpm = dict.fromkeys(self.keys, 10**6)
        self.most = dict.fromkeys(self.keys, 10**6)
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

    @rule(which=st.integers(0, 1), rpm=st.integers(1, 5), most=st.integers(1, 5))
    def limit(self, which: int, rpm: int, most: int) -> None:
        key = self.keys[which]
        limit_key(self.database, key, rpm=rpm, max_in_flight=most)
        self.rpm[key], self.most[key] = rpm, most

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
                made.append(result.id)
            else:
                assert why is type(result.error), (why, result)
        return made

    def _why_not(self, key: str) -> type[Exception] | None:
        if self.suspended:
            return AccountSuspended
        since = self.books.now_ms - 60_000
        if sum(at > since for at in self.admitted_ms[key]) >= self.rpm[key]:
            return RateLimited
        if sum(owner == key for owner, _ in self.open.values()) >= self.most[key]:
            return RateLimited
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
            if self.open.pop(entry.hold_id, None) is None:
                continue  # its process had been found dead
            assert result == ("captured" if isinstance(entry, Capture) else "voided")
            if isinstance(entry, Capture):
                self.model_revenue += PRICE
            else:
                self.model_available += PRICE
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
            del self.open[hold_id]
            if hold_id in noted:
                self.model_revenue += PRICE
            else:
                self.model_available += PRICE

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


TestLedger = LedgerMachine.TestCase
TestLedger.settings = settings(
    max_examples=40,
    stateful_step_count=25,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
