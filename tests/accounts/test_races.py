"""Many at once, in threads and in processes: exactly as many get through as may."""

from __future__ import annotations

import asyncio
import multiprocessing
import threading
from pathlib import Path

import pytest

from iris.accounts.db import Database
from iris.accounts.holds import Hold
from iris.accounts.keys import create_key
from iris.accounts.ledger import Ledger
from iris.accounts.limits import Limits
from iris.accounts.verify import verify
from tests.accounts.books import NO_LIMITS, Books


def limits(**changes: int) -> Limits:
    return NO_LIMITS.changed(**changes)


def test_of_200_parallel_reservations_exactly_as_many_get_through_as_the_limit_says(
    either: Database, tmp_path: Path
) -> None:
    for name, changes in (
        ("rpm_exceeded", {"rpm": 60}),
        ("rpd_exceeded", {"rpd": 61}),
        ("concurrency_exceeded", {"max_in_flight": 62}),
        ("monthly_cap_exceeded", {"monthly_cap_idr": 63 * 750 + 749}),
    ):
        (number,) = changes.values()
        expected = number if number < 1_000 else 63
        ledger = Ledger(either, tmp_path)
        key = _key_with(either, limits(**changes))
        codes = asyncio.run(_all_at_once(ledger, key, 200))
        ledger.close()
        assert codes.count("held") == expected, name
        assert codes.count(name) == 200 - expected
    assert verify(either).breaches == ()


def test_of_200_at_the_last_750_rupiah_one_wins(either: Database, tmp_path: Path) -> None:
    books = Books(either, money_idr=750)
    ledger = Ledger(either, tmp_path)
    codes = asyncio.run(_all_at_once(ledger, books.key_id, 200))
    ledger.close()
    assert (codes.count("held"), codes.count("insufficient_quota")) == (1, 199)
    assert books.balance() == (0, 750)
    books.check()


def _key_with(database: Database, limits: Limits) -> str:
    key, _ = create_key(database, "shop", is_test=True, limits=limits)
    return key.id


async def _all_at_once(ledger: Ledger, key_id: str, count: int) -> list[str]:
    results = await asyncio.gather(*(ledger.reserve(key_id) for _ in range(count)))
    return ["held" if isinstance(r, Hold) else r.error.code for r in results]


def _one_process(url: str, home: Path, key_id: str, barrier: object, results: object) -> None:
    database = Database(url)
    ledger = Ledger(database, home)
    barrier.wait()  # type: ignore[attr-defined]
    codes = asyncio.run(_all_at_once(ledger, key_id, 50))
    results.put(codes)  # type: ignore[attr-defined]
    barrier.wait()  # type: ignore[attr-defined]  # or the next to start would void what is held here
    ledger.close()


@pytest.mark.parametrize(
    ("money_idr", "changes", "expected"),
    [
        (750, {}, 1),
        (10**6, {"rpm": 60}, 60),
        (10**6, {"rpd": 61}, 61),
        (10**6, {"max_in_flight": 62}, 62),
        (10**6, {"monthly_cap_idr": 63 * 750}, 63),
    ],
)
def test_limits_and_money_are_exact_across_processes(
    either: Database,
    either_url: str,
    tmp_path: Path,
    money_idr: int,
    changes: dict[str, int],
    expected: int,
) -> None:
    books = Books(either, money_idr=money_idr, limits=limits(**changes))
    context = multiprocessing.get_context("spawn")
    barrier, results = context.Barrier(4), context.Queue()
    processes = [
        context.Process(
            target=_one_process, args=(either_url, tmp_path, books.key_id, barrier, results)
        )
        for _ in range(4)
    ]
    for process in processes:
        process.start()
    codes = [code for _ in processes for code in results.get(timeout=60)]
    for process in processes:
        process.join()
    assert len(codes) == 200
    assert codes.count("held") == expected
    books.check()


def test_many_threads_lose_no_rupiah(either: Database) -> None:
    books = Books(either, money_idr=750 * 40)

    def buy() -> None:
        for _ in range(10):
            books.capture(books.admitted())

    threads = [threading.Thread(target=buy) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert books.balance() == (0, 0)
    books.check()
