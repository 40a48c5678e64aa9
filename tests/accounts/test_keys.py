from __future__ import annotations

import asyncio
import re
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from sqlalchemy import text

from iris.accounts.db import Database
from iris.accounts.keys import (
    Key,
    KeyRing,
    create_key,
    hash_token,
    list_keys,
    revoke_key,
)
from iris.errors import BackendUnavailable, InvalidRequest, Unauthenticated


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class CountingDatabase(Database):
    """A database that tells how often, and in which threads, it was read."""

    def __init__(self, url: str) -> None:
        self.threads: list[int] = []
        super().__init__(url)
        self.threads.clear()  # it reads its own version when it is opened

    def read(self):  # type: ignore[no-untyped-def]
        self.threads.append(threading.get_ident())
        return super().read()


def _refusal(ring: KeyRing, token: str) -> Unauthenticated:
    with pytest.raises(Unauthenticated) as caught:
        asyncio.run(ring.authenticate(token))
    return caught.value


def test_a_key_has_the_published_shape_and_two_are_never_the_same(database: Database) -> None:
    made = [create_key(database, "a", is_test=is_test) for is_test in (True, False) * 20]
    for (key, secret), kind in zip(made, ("test", "live") * 20, strict=True):
        assert re.fullmatch(rf"esk_{kind}_[A-Za-z0-9]{{32}}", secret)
        assert re.fullmatch(r"key_[0-9a-f]{16}", key.id)
        assert key.is_test is (kind == "test")
    assert len({secret for _, secret in made}) == len({key.id for key, _ in made}) == 40


def test_the_secret_is_nowhere_in_the_database(database: Database, tmp_path: Path) -> None:
    _, secret = create_key(database, "a", is_test=True)
    with database.read() as session:
        row = session.execute(text("SELECT * FROM keys")).mappings().one()
    assert row["sha256"] == hash_token(secret)
    assert secret not in str(dict(row))
    database.close()
    for file in (tmp_path / "home").iterdir():
        content = file.read_bytes()
        assert secret.encode() not in content
        assert secret[9:].encode() not in content


@pytest.mark.parametrize("name", ["", " ", " a", "a ", "a\nb", "a\x00", "x" * 101, "\u202e"])
def test_a_name_that_cannot_be_shown_is_refused(database: Database, name: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        create_key(database, name, is_test=True)
    assert caught.value.param == "name"
    assert list_keys(database) == ()


def test_the_list_shows_every_key_and_no_more_than_the_ends_of_a_secret(
    database: Database,
) -> None:
    first, secret = create_key(database, "first", is_test=False)
    second, _ = create_key(database, "second", is_test=True)
    revoke_key(database, first.id)
    records = {record.key: record for record in list_keys(database)}
    assert set(records) == {first, second}
    assert records[first].prefix == secret[:12]
    assert records[first].last4 == secret[-4:]
    assert records[first].revoked_at is not None
    assert records[second].revoked_at is None
    assert all(len(record.prefix) + len(record.last4) <= 16 for record in records.values())


def test_revoking_twice_keeps_the_first_time(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    key, _ = create_key(database, "a", is_test=True)
    monkeypatch.setattr("iris.accounts.keys.time.time", lambda: 5000.0)
    first = revoke_key(database, key.id)
    monkeypatch.setattr("iris.accounts.keys.time.time", lambda: 9000.0)
    assert revoke_key(database, key.id) == first
    assert first.revoked_at == 5000


def test_revoking_an_unknown_id_is_an_error_that_names_it(database: Database) -> None:
    with pytest.raises(InvalidRequest, match="key_0123456789abcdef"):
        revoke_key(database, "key_0123456789abcdef")


def test_a_good_token_is_the_key_it_was_made_for(database: Database) -> None:
    ring = KeyRing(database)
    made = [create_key(database, f"key {n}", is_test=n % 2 == 0) for n in range(4)]
    for key, secret in made:
        assert asyncio.run(ring.authenticate(secret)) == key


def test_every_refusal_looks_the_same(database: Database) -> None:
    ring = KeyRing(database)
    revoked, revoked_secret = create_key(database, "a", is_test=True)
    revoke_key(database, revoked.id)
    _, good = create_key(database, "b", is_test=True)
    tokens = [
        "",
        " ",
        "esk_live_",
        "esk_live_" + "a" * 32,
        "esk_test_" + "a" * 31,
        "esk_test_" + "a" * 33,
        "esk_prod_" + "a" * 32,
        "sk-" + "a" * 32,
        good + "\n",
        " " + good,
        good.upper(),
        good.swapcase(),
        good.replace("esk_test_", "esk_live_"),
        "esk_test_" + "é" * 32,
        "esk_test_" + "١" * 32,
        "\ud800",
        hash_token(good),
        "' OR 1=1 --",
        "a" * 1_000_000,
        revoked_secret,
    ]
    seen = {
        (e.message, e.code, e.param, e.retry_after_s) for e in (_refusal(ring, t) for t in tokens)
    }
    assert len(seen) == 1
    assert asyncio.run(ring.authenticate(good)).name == "b"


def test_a_malformed_token_never_reaches_the_database(url: str) -> None:
    database = CountingDatabase(url)
    _refusal(KeyRing(database), "esk_live_short")
    assert database.threads == []
    database.close()


def test_the_database_is_never_read_in_the_event_loop(url: str) -> None:
    database = CountingDatabase(url)
    _, secret = create_key(database, "a", is_test=True)
    asyncio.run(KeyRing(database).authenticate(secret))
    assert database.threads
    assert threading.get_ident() not in database.threads
    database.close()


def test_a_revocation_takes_effect_within_two_seconds(database: Database) -> None:
    clock = Clock()
    ring = KeyRing(database, clock=clock)
    key, secret = create_key(database, "a", is_test=True)
    assert asyncio.run(ring.authenticate(secret)) == key
    revoke_key(database, key.id)
    clock.now += 2.0
    _refusal(ring, secret)


def test_a_key_in_use_is_read_once_within_the_time_it_is_remembered(url: str) -> None:
    database, clock = CountingDatabase(url), Clock()
    _, secret = create_key(database, "a", is_test=True)
    ring = KeyRing(database, clock=clock)
    for _ in range(10):
        asyncio.run(ring.authenticate(secret))
        clock.now += 0.1
    assert len(database.threads) == 1
    clock.now += 2.0
    asyncio.run(ring.authenticate(secret))
    assert len(database.threads) == 2
    database.close()


def test_use_never_lengthens_the_time_a_key_is_remembered(database: Database) -> None:
    clock = Clock()
    ring = KeyRing(database, clock=clock)
    key, secret = create_key(database, "a", is_test=True)
    asyncio.run(ring.authenticate(secret))
    revoke_key(database, key.id)
    for _ in range(3):
        clock.now += 0.5
        asyncio.run(ring.authenticate(secret))
    clock.now += 0.5
    _refusal(ring, secret)


def test_the_memory_is_bounded_and_holds_no_secret(database: Database) -> None:
    ring = KeyRing(database, max_entries=3)
    secrets = [create_key(database, "a", is_test=True)[1] for _ in range(5)]
    for secret in secrets:
        asyncio.run(ring.authenticate(secret))
    for n in range(20):
        _refusal(ring, f"esk_live_{n:032d}")
    remembered = vars(ring)["_found"]
    assert set(remembered) == {hash_token(secret) for secret in secrets[-3:]}
    assert not any(secret in repr(vars(ring)) for secret in secrets)


def test_a_database_that_does_not_answer_is_told_in_time_and_keeps_no_thread_of_others(
    url: str,
) -> None:
    goes_on = threading.Event()

    class Stuck(Database):
        is_stuck = False

        def read(self):  # type: ignore[no-untyped-def]
            assert not self.is_stuck or goes_on.wait(10)
            return super().read()

    database = Stuck(url)
    key, secret = create_key(database, "a", is_test=True)
    ring = KeyRing(database, patience_s=0.2)

    async def ask() -> None:
        asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(1))
        database.is_stuck = True
        asking = (ring.authenticate(secret) for _ in range(6))
        for answer in await asyncio.gather(*asking, return_exceptions=True):
            assert isinstance(answer, BackendUnavailable)
        async with asyncio.timeout(5):
            await asyncio.to_thread(goes_on.set)
        database.is_stuck = False
        assert await ring.authenticate(secret) == key

    try:
        asyncio.run(ask())
    finally:
        goes_on.set()
        database.close()


def test_a_broken_database_is_not_a_bad_key(database: Database) -> None:
    _, secret = create_key(database, "a", is_test=True)
    with database.write() as session:
        session.execute(text("ALTER TABLE keys RENAME TO lost"))
    with pytest.raises(BackendUnavailable) as caught:
        asyncio.run(KeyRing(database).authenticate(secret))
    assert "keys" not in caught.value.message.split()
    assert "SELECT" not in caught.value.message


def test_a_key_tells_nothing_of_its_secret(database: Database) -> None:
    key, secret = create_key(database, "a", is_test=True)
    assert key == Key(key.id, "a", True, key.account_id)
    assert secret[9:] not in repr(key)
