"""A key has no more requests decoding at once than it may have in flight."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, ClassVar

import pytest
from sqlalchemy.exc import OperationalError

from iris.accounts.db import Database
from iris.accounts.keys import limit_key
from iris.api.in_flight import InFlight
from iris.errors import BackendUnavailable, RateLimited
from iris.images.decode import Decoder
from tests.api.fakes import (
    LIVE_KEY,
    TEST_KEY,
    FakeDispatcher,
    Front,
    Loop,
    assert_envelope,
    edit,
    generation,
    make_ledger,
    opened,
    picture_base64,
)

EDITS = "/v1/images/edits"


class Slow(Decoder):
    """Takes its time over each image, and counts how many it has at once."""

    now: ClassVar[Counter[str]] = Counter()
    most: ClassVar[Counter[str]] = Counter()

    async def decode(self, *given: Any, owner: str = "", **options: Any) -> Any:
        self.now[owner] += 1
        self.most[owner] = max(self.most[owner], self.now[owner])
        try:
            await asyncio.sleep(0.5)
            return await super().decode(*given, owner=owner, **options)
        finally:
            self.now[owner] -= 1


@pytest.fixture
def front(loop: Loop, tmp_path: Path) -> Iterator[Front]:
    Slow.now.clear()
    Slow.most.clear()
    with opened(loop, tmp_path, FakeDispatcher(), decoder=Slow) as front:
        limit_key(front.app.state.ledger.database, "key_live", max_in_flight=2)
        yield front


def test_more_than_a_key_may_have_in_flight_are_refused_before_they_are_decoded(
    front: Front,
) -> None:
    def send(key: str) -> Any:
        return front.post(EDITS, key=key, json=edit(image=picture_base64()))

    with ThreadPoolExecutor(10) as pool:
        replies = list(pool.map(send, [LIVE_KEY] * 6 + [TEST_KEY] * 4))
    assert [reply.status_code for reply in replies[6:]] == [200] * 4  # another key has its own
    refused = [reply for reply in replies[:6] if reply.status_code != 200]
    assert len(refused) == 4
    for reply in refused:
        assert_envelope(reply, 429, "concurrency_exceeded")
        assert reply.headers["retry-after"] == "1"
    assert Slow.most == {"key_live": 2, "key_test": 4}


def test_as_many_as_a_key_may_have_in_flight_go_on_for_ever_and_generations_beside_them(
    front: Front,
) -> None:
    def use(_: int) -> list[int]:
        edits = [front.post(EDITS, json=edit(image=picture_base64())) for _ in range(4)]
        return [reply.status_code for reply in edits]

    with ThreadPoolExecutor(2) as pool:
        edits = pool.map(use, range(2))
        beside = [front.post("/v1/images/generations", key=TEST_KEY, json=generation())]
        assert [*edits] == [[200] * 4] * 2
    assert beside[0].status_code == 200


def test_a_place_is_given_back_whatever_became_of_the_images(front: Front) -> None:
    limit_key(front.app.state.ledger.database, "key_live", max_in_flight=1)
    for _ in range(3):
        reply = front.post(EDITS, json=edit(image=picture_base64()[:60]))
        assert_envelope(reply, 400, "invalid_image", "image")
    assert front.post(EDITS, json=edit(image=picture_base64())).status_code == 200


def test_duplicates_that_wait_for_the_first_take_no_place(front: Front) -> None:
    limit_key(front.app.state.ledger.database, "key_live", max_in_flight=1)

    def send(_: int) -> Any:
        body = edit(image=picture_base64())
        return front.post(EDITS, json=body, headers={"idempotency-key": "order"})

    with ThreadPoolExecutor(5) as pool:
        replies = list(pool.map(send, range(5)))
    assert {reply.status_code for reply in replies} == {200}
    assert len({reply.content for reply in replies}) == 1


def test_a_place_is_given_back_by_who_is_cancelled(tmp_path: Path) -> None:
    ledger = make_ledger(tmp_path, max_in_flight=1)
    in_flight = InFlight()

    async def hold() -> None:
        async with in_flight.place("key_live", ledger.database):
            await asyncio.Event().wait()

    async def run() -> None:
        holding = asyncio.create_task(hold())
        await asyncio.sleep(0)
        with pytest.raises(RateLimited):
            await hold()
        holding.cancel()
        await asyncio.wait({holding})
        async with in_flight.place("key_live", ledger.database):
            pass

    asyncio.run(run())
    ledger.close()


def test_a_limit_that_cannot_be_read_is_told_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(*_: object) -> None:
        raise OperationalError("SELECT", {}, Exception("away"))

    ledger = make_ledger(tmp_path)
    in_flight = InFlight()

    async def run() -> None:
        async with in_flight.place("key_live", ledger.database):
            monkeypatch.setattr(Database, "read", away)
            with pytest.raises(BackendUnavailable):
                await in_flight.place("key_live", ledger.database).__aenter__()

    asyncio.run(run())
    ledger.close()
