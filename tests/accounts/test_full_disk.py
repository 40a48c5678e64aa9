"""A process that cannot write a byte more admits nobody, and forgets nothing that it delivered."""

from __future__ import annotations

import asyncio
import resource
from pathlib import Path

from iris.accounts.db import Database
from iris.accounts.verify import verify
from tests.accounts.books import Books
from tests.accounts.served import Fronts, buy, serving

CLIENTS = 4


def _fill(fronts: Fronts, file: Path) -> None:
    """No file of the process may get longer than this one: the system refuses to write."""
    _bound(fronts, file.stat().st_size)


def _bound(fronts: Fronts, file_bytes: int) -> None:
    (process,) = fronts.processes
    _, hard = resource.prlimit(process.pid or 0, resource.RLIMIT_FSIZE)
    resource.prlimit(process.pid or 0, resource.RLIMIT_FSIZE, (file_bytes, hard))


async def _until_it_is_full(fronts: Fronts, secret: str, log: Path) -> tuple[int, list[str]]:
    """Pictures delivered before, while and after nothing could be written; what was refused."""
    delivered = 0
    refused: list[str] = []
    is_under_way = asyncio.Event()
    async with fronts.client(secret) as client:

        async def shop() -> None:
            nonlocal delivered
            while (reply := await buy(client)).status_code == 200:
                delivered += 1
                if delivered == 2 * CLIENTS:
                    is_under_way.set()
            refused.append(reply.json()["error"]["code"])

        clients = [asyncio.create_task(shop()) for _ in range(CLIENTS)]
        await is_under_way.wait()
        _fill(fronts, log)
        await asyncio.gather(*clients)
        refused += [(await buy(client)).json()["error"]["code"] for _ in range(3)]
        _bound(fronts, resource.RLIM_INFINITY)
        assert (await buy(client)).status_code == 200  # at once
    return delivered + 1, refused


def test_a_full_disk_admits_nobody_and_every_picture_that_was_delivered_is_paid(
    database: Database, url: str, tmp_path: Path
) -> None:
    books = Books(database, money_idr=10**6)
    home = tmp_path / "home"
    with serving(url, home, engine_s=0.05) as fronts:
        delivered, refused = asyncio.run(
            _until_it_is_full(fronts, books.secret, home / "iris.db-wal")
        )
    assert set(refused) == {"backend_unavailable"}
    assert len(refused) == CLIENTS + 3
    books.check()
    verdict = verify(database)
    assert verdict.open_holds == 0
    assert verdict.captured_live_idr == 750 * delivered
    assert books.balance() == (10**6 - 750 * delivered, 0)
