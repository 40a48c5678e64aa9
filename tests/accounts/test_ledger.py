"""The ledger as the front uses it, with a database that does not always answer."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from iris.accounts.db import Database
from iris.accounts.holds import Hold
from iris.accounts.ledger import Ledger
from iris.accounts.outcomes import Claim, InTheMaking, Mine, Standing
from iris.accounts.recovery import resolve_dead
from iris.errors import BackendUnavailable
from tests.accounts.books import Books
from tests.accounts.flaky import Flaky


@pytest.fixture
def flaky(either_url: str) -> Iterator[Flaky]:
    database = Flaky(either_url)
    yield database
    database.close()


@pytest.fixture
def ledger(flaky: Flaky, tmp_path: Path) -> Iterator[Ledger]:
    ledger = Ledger(flaky, tmp_path / "home")
    yield ledger
    ledger.close()


def claim() -> Claim:
    """Another use of the same Idempotency-Key each time."""
    return Claim("key_0", "order-1", "f" * 64)


def made_by(ledger: Ledger, claim: Claim) -> Standing:
    return asyncio.run(ledger.claim(claim))


def until_mine(ledger: Ledger) -> bool:
    """Whether a retry gets to make the picture, as a client's does that asks again and again."""
    deadline = time.monotonic() + 20
    while isinstance(made_by(ledger, claim()), InTheMaking):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


@pytest.mark.parametrize("trouble", ["is_away", "is_full", "is_mute"])
def test_a_claim_that_was_given_up_is_free_when_the_database_is_back(
    flaky: Flaky, ledger: Ledger, trouble: str
) -> None:
    first = claim()
    assert isinstance(made_by(ledger, first), Mine)
    setattr(flaky, trouble, True)
    ledger.give_up(first)
    with pytest.raises(BackendUnavailable):  # after the other was tried
        made_by(ledger, claim())
    setattr(flaky, trouble, False)
    assert until_mine(ledger)


def test_a_claim_that_was_written_though_nobody_was_told_is_given_up(
    flaky: Flaky, ledger: Ledger
) -> None:
    flaky.is_mute = True
    with pytest.raises(BackendUnavailable):
        made_by(ledger, claim())
    flaky.is_mute = False
    assert until_mine(ledger)


def test_what_is_given_up_late_frees_the_claim_of_no_later_use(
    flaky: Flaky, tmp_path: Path
) -> None:
    ledger = Ledger(flaky, tmp_path / "home")
    first = claim()
    assert isinstance(made_by(ledger, first), Mine)
    flaky.is_mute = True
    ledger.give_up(first)  # is written, and tried again
    for _ in range(2):  # the second one comes after the first time that it is tried again
        with pytest.raises(BackendUnavailable):
            ledger._till.call(lambda session, _: None).result(20)
    flaky.is_mute = False
    assert isinstance(made_by(ledger, claim()), Mine)
    ledger.close()  # with all that was to be tried again
    later = Ledger(flaky, tmp_path / "elsewhere")
    assert isinstance(made_by(later, claim()), InTheMaking)
    later.close()


def test_whoever_was_taken_for_dead_gives_up_its_own_claim_alone(
    flaky: Flaky, ledger: Ledger
) -> None:
    first = claim()
    assert isinstance(made_by(ledger, first), Mine)
    with flaky.write() as session:
        resolve_dead(session, ledger._lease.id, {}, 0)
    assert isinstance(made_by(ledger, claim()), Mine)  # of the same process
    ledger.give_up(first)
    assert isinstance(made_by(ledger, claim()), InTheMaking)


@pytest.mark.parametrize("is_back", [True, False])
def test_a_claim_that_was_given_up_is_free_after_the_end_of_the_process(
    flaky: Flaky, tmp_path: Path, is_back: bool
) -> None:
    ledger = Ledger(flaky, tmp_path)
    first = claim()
    assert isinstance(made_by(ledger, first), Mine)
    flaky.is_away = True
    ledger.give_up(first)
    with pytest.raises(BackendUnavailable):
        made_by(ledger, claim())
    flaky.is_away = not is_back
    ledger.close()
    flaky.is_away = False
    # Where the last try failed, too, the next process of this home finds it.
    after = Ledger(flaky, tmp_path / "elsewhere" if is_back else tmp_path)
    assert isinstance(made_by(after, claim()), Mine)
    after.close()


def test_nobody_waits_without_end_and_nothing_is_left_of_it(
    either: Database, either_url: str, tmp_path: Path
) -> None:
    books = Books(either, money_idr=750)
    ledger = Ledger(either, tmp_path, patience_s=0.5)
    other = Database(either_url)
    with other.write():
        with pytest.raises(BackendUnavailable):
            asyncio.run(ledger.reserve(books.key_id))
        with pytest.raises(BackendUnavailable):
            made_by(ledger, claim())
    other.close()
    ledger.close()  # when what it waited for came
    assert books.balance() == (750, 0)
    later = Ledger(either, tmp_path)
    assert isinstance(asyncio.run(later.reserve(books.key_id)), Hold)
    assert isinstance(made_by(later, claim()), Mine)
    later.close()
    books.check()
