"""The front over the real accounts, on both databases: many clients, one rupiah too few."""

from __future__ import annotations

import asyncio
from pathlib import Path

import httpx
import pytest

from iris.accounts.accounts import create_account, set_suspended, top_up
from iris.accounts.db import Database
from iris.accounts.keys import KeyRing, create_key
from iris.accounts.ledger import Ledger
from iris.accounts.verify import verify
from iris.api.app import create_app
from iris.errors import AccountSuspended
from iris.images.decode import Decoder
from tests.accounts.books import NO_LIMITS, Books
from tests.accounts.served import Fronts, buy, serving
from tests.api.fakes import FakeDispatcher, generation, make_catalog, make_settings


async def at_once(app: object, secret: str, count: int) -> list[httpx.Response]:
    """So many requests over one front."""
    transport = httpx.ASGITransport(app=app)  # type: ignore[arg-type]
    headers = {"authorization": f"Bearer {secret}"}
    async with httpx.AsyncClient(
        transport=transport, base_url="http://iris.test", headers=headers
    ) as client:
        return await asyncio.gather(
            *(client.post("/v1/images/generations", json=generation()) for _ in range(count))
        )


@pytest.mark.parametrize(
    ("money_idr", "limits", "winners", "status", "code"),
    [
        (750, {}, 1, 402, "insufficient_quota"),
        (10**6, {"rpm": 60}, 60, 429, "rpm_exceeded"),
        (10**6, {"rpd": 70}, 70, 429, "rpd_exceeded"),
        (10**6, {"monthly_cap_idr": 750 * 80}, 80, 402, "monthly_cap_exceeded"),
    ],
)
def test_of_200_clients_at_once_exactly_as_many_get_a_picture_as_may(
    either: Database,
    tmp_path: Path,
    money_idr: int,
    limits: dict[str, int],
    winners: int,
    status: int,
    code: str,
) -> None:
    account = create_account(either, "toko").id
    top_up(either, account, money_idr)
    _, secret = create_key(
        either, "web", is_test=False, account=account, limits=NO_LIMITS.changed(**limits)
    )
    settings = make_settings(tmp_path)
    engine = FakeDispatcher()
    app = create_app(
        settings,
        make_catalog(),
        keys=KeyRing(either),
        decoder=Decoder(settings),
        dispatcher_source=lambda: engine,
    )
    ledger = app.state.ledger = Ledger(either, tmp_path)
    replies = asyncio.run(at_once(app, secret, 200))
    ledger.close()
    refused = [reply for reply in replies if reply.status_code != 200]
    assert len(refused) == 200 - winners
    assert {(r.status_code, r.json()["error"]["code"]) for r in refused} == {(status, code)}
    assert all(("retry-after" in r.headers) == (status == 429) for r in refused)
    assert len(engine.jobs) == winners
    verdict = verify(either)
    assert verdict.breaches == ()
    assert (verdict.captured_live_idr, verdict.open_holds) == (750 * winners, 0)


async def _from_200_clients(fronts: Fronts, secret: str) -> list[httpx.Response]:
    async with fronts.client(secret) as client:
        return await asyncio.gather(*(buy(client) for _ in range(200)))


@pytest.mark.parametrize(
    ("money_idr", "limits", "winners", "told"),
    [(750, {}, 1, "insufficient_quota"), (10**6, {"rpm": 60}, 60, "rpm_exceeded")],
)
def test_of_200_clients_of_two_processes_exactly_as_many_get_a_picture_as_may(
    either: Database,
    either_url: str,
    tmp_path: Path,
    money_idr: int,
    limits: dict[str, int],
    winners: int,
    told: str,
) -> None:
    books = Books(either, money_idr=money_idr, limits=NO_LIMITS.changed(**limits))
    with serving(either_url, tmp_path, count=2) as fronts:
        replies = asyncio.run(_from_200_clients(fronts, books.secret))
    codes = [reply.json()["error"]["code"] for reply in replies if reply.status_code != 200]
    assert codes == [told] * (200 - winners)
    assert books.balance() == (money_idr - 750 * winners, 0)
    books.check()


def test_a_suspension_counts_for_a_key_that_is_remembered_as_soon_as_it_is_looked_up_again(
    either: Database,
) -> None:
    account = create_account(either, "toko").id
    key, secret = create_key(either, "web", is_test=True, account=account)
    now = [0.0]
    ring = KeyRing(either, ttl_s=2, clock=lambda: now[0])
    assert asyncio.run(ring.authenticate(secret)) == key
    set_suspended(either, account, True)
    now[0] = 2.0
    for _ in range(2):  # the second time as remembered
        with pytest.raises(AccountSuspended):
            asyncio.run(ring.authenticate(secret))
    set_suspended(either, account, False)
    now[0] = 4.0
    assert asyncio.run(ring.authenticate(secret)) == key
