"""What dead processes leave open, and who finds it."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import signal
import stat
from pathlib import Path

import pytest
from sqlalchemy.exc import OperationalError

from iris.accounts.accounts import show_account
from iris.accounts.db import Database
from iris.accounts.holds import Hold
from iris.accounts.lease import FOLDER, Lease, dead_leases
from iris.accounts.ledger import Ledger
from iris.accounts.outcomes import Claim, InTheMaking, Mine
from iris.accounts.recovery import Watch, recover
from iris.accounts.usage import Period, sum_usage
from iris.errors import ConfigError
from tests.accounts.books import DELIVERY, Books
from tests.accounts.flaky import Flaky

CLAIM = Claim("key_0", "order-1", "f" * 64)


def _die_with_holds(url: str, home: Path, key_id: str, told: object) -> None:
    """Three holds: one paid, one handed over and noted, one in the making; a claim; then killed."""
    ledger = Ledger(Database(url), home)

    async def work() -> None:
        paid, noted, _ = [await ledger.reserve(key_id) for _ in range(3)]
        assert isinstance(paid, Hold)
        assert isinstance(noted, Hold)
        await ledger.capture(paid, DELIVERY)
        ledger.note_delivered(noted, DELIVERY)
        assert isinstance(await ledger.claim(CLAIM), Mine)

    asyncio.run(work())
    told.put("ready")  # type: ignore[attr-defined]
    told.close()  # type: ignore[attr-defined]
    told.join_thread()  # type: ignore[attr-defined]
    os.kill(os.getpid(), signal.SIGKILL)


def killed(url: str, home: Path, key_id: str) -> None:
    context = multiprocessing.get_context("spawn")
    told = context.Queue()
    process = context.Process(target=_die_with_holds, args=(url, home, key_id, told))
    process.start()
    assert told.get(timeout=60) == "ready"
    process.join()
    assert process.exitcode == -signal.SIGKILL


def test_the_next_start_pays_what_was_handed_over_and_gives_back_the_rest(
    either: Database, either_url: str, tmp_path: Path
) -> None:
    books = Books(either, money_idr=3_000)
    killed(either_url, tmp_path, books.key_id)
    assert books.balance() == (750, 1_500)
    ledger = Ledger(either, tmp_path)
    assert books.balance() == (1_500, 0)
    (used,) = sum_usage(
        either, books.account, is_test=False, period=Period.parse(None, None), group_by="style"
    )
    assert (used.pictures, used.group) == (2, DELIVERY.style)  # the note has all that is kept
    assert isinstance(asyncio.run(ledger.claim(CLAIM)), Mine)  # nobody makes it any more
    ledger.close()
    assert list((tmp_path / FOLDER).iterdir()) == []
    books.check()


def test_a_neighbour_of_the_same_home_finds_the_notes_of_the_dead_without_a_restart(
    either: Database, either_url: str, tmp_path: Path
) -> None:
    books = Books(either, money_idr=3_000)
    ledger = Ledger(either, tmp_path)
    killed(either_url, tmp_path, books.key_id)
    Watch("lease_neighbour", tmp_path)(either, books.now_ms)
    assert books.balance() == (1_500, 0)
    ledger.close()
    books.check()


def test_a_living_process_keeps_its_holds_when_another_one_starts(
    either: Database, tmp_path: Path
) -> None:
    books = Books(either, money_idr=750)
    first = Ledger(either, tmp_path)
    hold = asyncio.run(first.reserve(books.key_id))
    assert isinstance(hold, Hold)
    second = Ledger(either, tmp_path)
    assert books.balance() == (0, 750)
    assert asyncio.run(first.capture(hold, DELIVERY))
    second.close()
    first.close()
    books.check()


def test_a_process_of_another_host_is_dead_when_its_beats_stand_still(
    either: Database, either_url: str, tmp_path: Path
) -> None:
    books = Books(either, money_idr=3_000)
    killed(either_url, tmp_path / "elsewhere", books.key_id)
    now = [0.0]
    watch = Watch("lease_here", tmp_path / "here", dead_after_s=30, clock=lambda: now[0])

    def look(after_s: float) -> int:
        now[0] += after_s
        watch(either, books.now_ms)
        return books.balance()[1]

    assert [look(5) for _ in range(7)] == [1_500] * 7
    assert look(0.1) == 0
    assert books.balance() == (2_250, 0)  # what it noted is on its own disk: it is given back
    assert recover(either, tmp_path / "elsewhere") == 0
    books.check()


def test_a_process_that_beats_is_never_taken_for_dead_whatever_the_wall_clock_says(
    either: Database, tmp_path: Path
) -> None:
    books = Books(either, money_idr=750, lease_id="lease_there")
    books.admitted()
    now = [0.0]
    here, there = (
        Watch(name, tmp_path / name, dead_after_s=30, clock=lambda: now[0])
        for name in ("lease_here", "lease_there")
    )
    for _ in range(20):
        now[0] += 5
        for watch in (there, here):
            books.now_ms += 3_600_000  # an hour at a time
            watch(either, books.now_ms)
    assert books.balance() == (0, 750)


@pytest.mark.parametrize("trouble", ["is_away", "is_full", None])
def test_time_that_nobody_watched_makes_nobody_dead(
    either_url: str, tmp_path: Path, trouble: str | None
) -> None:
    """Nobody could write meanwhile, or, with no trouble, whoever looks was stopped itself."""
    database = Flaky(either_url)
    books = Books(database, money_idr=750, lease_id="lease_there")
    books.admitted()
    now = [0.0]
    here, there = (
        Watch(name, tmp_path / name, dead_after_s=30, clock=lambda: now[0])
        for name in ("lease_here", "lease_there")
    )

    def look(watch: Watch) -> None:
        now[0] += 5
        watch(database, books.now_ms)

    look(there)
    look(here)
    if trouble is None:
        now[0] += 35
    else:
        setattr(database, trouble, True)
        for _ in range(7):
            with pytest.raises(OperationalError):
                look(here)
        setattr(database, trouble, False)
    for _ in range(6):  # and then is back before the other one is
        look(here)
        assert books.balance() == (0, 750)
    for _ in range(2):  # which never beats
        look(here)
    assert books.balance() == (750, 0)
    database.close()


def test_whoever_was_taken_for_dead_cannot_take_the_money_any_more(
    either: Database, tmp_path: Path
) -> None:
    books = Books(either, money_idr=750)
    ledger = Ledger(either, tmp_path)
    hold = asyncio.run(ledger.reserve(books.key_id))
    assert isinstance(hold, Hold)
    books.void(hold)
    assert asyncio.run(ledger.capture(hold, DELIVERY)) is False
    assert show_account(either, books.account).live.available_idr == 750
    ledger.close()
    books.check()


def test_a_claim_of_a_living_process_is_in_the_making_for_all_others(
    either: Database, tmp_path: Path
) -> None:
    first, second = Ledger(either, tmp_path), Ledger(either, tmp_path)
    assert isinstance(asyncio.run(first.claim(CLAIM)), Mine)
    assert isinstance(asyncio.run(second.claim(CLAIM)), InTheMaking)
    first.give_up(CLAIM)
    first.close()
    assert isinstance(asyncio.run(second.claim(CLAIM)), Mine)
    second.close()


def test_a_lease_is_dead_when_its_lock_is_free_and_its_torn_last_note_is_ignored(
    tmp_path: Path,
) -> None:
    lease = Lease(tmp_path)
    lease.note("hold_1", DELIVERY)
    with dead_leases(tmp_path) as dead:
        assert dead == []
    path = tmp_path / FOLDER / lease.id
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    lease.close(is_settled=False)
    with path.open("ab") as file:
        file.write(b'{"hold_id": "hold_2", "rou')
    with dead_leases(tmp_path) as dead:
        (found,) = dead
        assert found.delivered == {"hold_1": DELIVERY}
        with dead_leases(tmp_path) as others:
            assert others == []  # one process gets each
    assert not path.exists()


def test_a_recovery_that_fails_leaves_everything_for_the_next(tmp_path: Path) -> None:
    Lease(tmp_path).close(is_settled=False)
    with pytest.raises(RuntimeError), dead_leases(tmp_path):
        raise RuntimeError("the database is away")
    with dead_leases(tmp_path) as dead:
        assert len(dead) == 1


def test_the_notes_start_anew_when_nothing_in_them_matters(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("iris.accounts.lease.MAX_NOTES_BYTES", 2_000)
    lease = Lease(tmp_path)
    path = tmp_path / FOLDER / lease.id
    for number in range(100):
        lease.note(f"hold_{number}", DELIVERY)
        lease.forget(f"hold_{number}")
        assert path.stat().st_size < 3_000
    lease.close(is_settled=True)
    assert not path.exists()


def test_a_home_that_cannot_hold_a_lease_is_told_by_its_setting(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="IRIS_HOME"):
        Lease(tmp_path / "file")
