"""The promises of the SQLite file, kept by a real PostgreSQL server."""

from __future__ import annotations

import asyncio
import multiprocessing
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from sqlalchemy import Connection, text
from sqlalchemy.exc import InternalError, OperationalError, SQLAlchemyError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from iris.accounts.db import Database
from iris.accounts.first_key import ensure_first_key
from iris.accounts.holds import Hold
from iris.accounts.keys import KeyRing, create_key, list_keys, revoke_key
from iris.accounts.ledger import Ledger
from iris.accounts.migrate import migrate
from iris.errors import BackendUnavailable, ConfigError, Unauthenticated
from tests.accounts.books import Books
from tests.accounts.conftest import new_database_url
from tests.accounts.postgres import PASSWORD, Postgres


@pytest.fixture
def server(postgres: Postgres) -> Postgres:
    return postgres


@pytest.fixture
def url(server: Postgres) -> str:
    return new_database_url(server)


@pytest.fixture
def database(url: str) -> Iterator[Database]:
    database = Database(url)
    yield database
    database.close()


def test_an_exception_in_a_write_leaves_nothing_behind(database: Database) -> None:
    def halfway() -> None:
        with database.write() as session:
            session.execute(text("CREATE TABLE half (x INTEGER)"))
            raise RuntimeError("halfway")

    with pytest.raises(RuntimeError, match="halfway"):
        halfway()
    with database.read() as session:
        assert session.scalar(text("SELECT count(*) FROM pg_tables WHERE tablename='half'")) == 0


def test_parallel_read_then_write_transactions_lose_no_update(database: Database) -> None:
    with database.write() as session:
        session.execute(text("CREATE TABLE counter (value INTEGER)"))
        session.execute(text("INSERT INTO counter VALUES (0)"))

    def count() -> None:
        for _ in range(20):
            with database.write() as session:
                value = session.scalar(text("SELECT value FROM counter"))
                session.execute(text("UPDATE counter SET value = :v"), {"v": int(value or 0) + 1})

    threads = [threading.Thread(target=count) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with database.read() as session:
        assert session.scalar(text("SELECT value FROM counter")) == 80


def test_a_read_sees_one_state_and_waits_for_no_writer(database: Database) -> None:
    with database.write() as session:
        session.execute(text("CREATE TABLE seen (x INTEGER)"))
    count = text("SELECT count(*) FROM seen")
    with database.read() as reader:
        before = reader.scalar(count)
        with database.write() as writer:
            writer.execute(text("INSERT INTO seen VALUES (1)"))
            assert reader.scalar(count) == before
        assert reader.scalar(count) == before  # committed meanwhile, by another
    with database.read() as reader:
        assert reader.scalar(count) == 1


def test_a_read_cannot_write(database: Database) -> None:
    with database.read() as session, pytest.raises(InternalError, match="read-only"):
        session.execute(text("CREATE TABLE sneaked_in (x INTEGER)"))


def test_a_writer_that_keeps_the_lock_is_waited_for_only_so_long(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("iris.accounts.postgresql.LOCK_TIMEOUT_S", 0.5)
    database = Database(url)
    books = Books(database, money_idr=750)
    ledger = Ledger(database, tmp_path)
    with database.write():
        with pytest.raises(OperationalError, match="lock timeout"), database.write():
            pass
        with pytest.raises(BackendUnavailable):
            asyncio.run(ledger.reserve(books.key_id))
    assert isinstance(asyncio.run(ledger.reserve(books.key_id)), Hold)
    ledger.close()
    database.close()


def test_a_process_that_stands_still_inside_a_write_loses_it_and_the_others_go_on(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("iris.accounts.postgresql.IDLE_TIMEOUT_S", 0.5)
    database = Database(url)
    made: list[str] = []

    def go_on() -> None:
        made.append(create_key(database, "shop", is_test=True)[0].name)

    other = threading.Thread(target=go_on)

    def stand_still() -> None:
        with database.write() as session:
            session.execute(text("CREATE TABLE half (x INTEGER)"))
            other.start()
            other.join()

    with pytest.raises(SQLAlchemyError):
        stand_still()
    assert made == ["shop"]
    with database.read() as session:
        assert session.scalar(text("SELECT count(*) FROM pg_tables WHERE tablename='half'")) == 0
    database.close()


def test_a_write_is_limited_and_neither_a_read_nor_a_migration_is(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    limits = ("statement_timeout", "idle_in_transaction_session_timeout")
    seen: list[str] = []

    def watched(connection: Connection) -> None:
        seen.extend(str(connection.scalar(text(f"SHOW {name}"))) for name in limits)
        migrate(connection)

    monkeypatch.setattr("iris.accounts.db.migrate", watched)
    database = Database(url)
    assert seen == ["0", "0"]
    for _ in range(10):  # more often than the driver takes to prepare what it runs
        with database.write() as session:
            assert [session.scalar(text(f"SHOW {name}")) for name in limits] == ["20s", "5s"]
            assert session.scalar(text("SHOW lock_timeout")) == "10s"
        with database.read() as session:
            assert [session.scalar(text(f"SHOW {name}")) for name in limits] == ["0", "0"]
            assert session.scalar(text("SHOW lock_timeout")) == "10s"
    database.close()


def test_a_host_that_is_gone_is_noticed_and_the_url_may_say_how_soon(url: str) -> None:
    database = Database(f"{url}&connect_timeout=3")
    with database._engine.connect() as connection:
        raw = connection.connection.driver_connection
        assert raw is not None
        settings = raw.info.get_parameters()
    assert settings["connect_timeout"] == "3"
    assert settings["tcp_user_timeout"] == "10000"
    assert settings["keepalives_idle"] == "5"
    database.close()


def test_a_connection_that_none_is_free_for_is_waited_for_only_so_long(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("iris.accounts.postgresql.POOL_TIMEOUT_S", 0.2)
    database = Database(url)
    _, secret = create_key(database, "shop", is_test=True)
    with ExitStack() as busy:
        for _ in range(15):
            busy.enter_context(database.read()).connection()
        with pytest.raises(BackendUnavailable) as caught:
            asyncio.run(KeyRing(database).authenticate(secret))
        assert isinstance(caught.value.__cause__, PoolTimeout)
    database.close()


def _open(url: str, home: Path, results: object) -> None:
    database = Database(url)
    _, secret = ensure_first_key(database, home)
    database.close()
    results.put(secret is not None)  # type: ignore[attr-defined]


def test_services_that_start_together_share_one_new_database(url: str, tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    results = context.Queue()
    homes = [tmp_path / str(number) for number in range(4)]
    processes = [context.Process(target=_open, args=(url, home, results)) for home in homes]
    for process in processes:
        process.start()
    outcomes = [results.get(timeout=30) for _ in processes]
    for process in processes:
        process.join()
    assert sorted(outcomes) == [False, False, False, True]  # one of them made the first key


def test_a_key_that_one_service_makes_and_revokes_counts_for_another(
    database: Database, url: str
) -> None:
    other = Database(url)
    try:
        key, secret = create_key(database, "shop", is_test=False)
        assert asyncio.run(KeyRing(other).authenticate(secret)) == key
        revoke_key(other, key.id)
        (record,) = list_keys(database)
        assert record.revoked_at is not None
        with pytest.raises(Unauthenticated):
            asyncio.run(KeyRing(database).authenticate(secret))
    finally:
        other.close()


def test_an_old_database_without_an_encoding_will_do(server: Postgres) -> None:
    options = "ENCODING SQL_ASCII LOCALE 'C' TEMPLATE template0"
    database = Database(new_database_url(server, options))
    try:
        create_key(database, "Kedai Kopi é", is_test=True)
        assert [record.key.name for record in list_keys(database)] == ["Kedai Kopi é"]
    finally:
        database.close()


def test_a_restart_of_the_server_is_survived(server: Postgres, database: Database) -> None:
    _, secret = create_key(database, "shop", is_test=True)
    server.stop()
    with pytest.raises(BackendUnavailable):
        asyncio.run(KeyRing(database).authenticate(secret))
    server.start()
    assert asyncio.run(KeyRing(database).authenticate(secret)).name == "shop"


@pytest.mark.parametrize(
    "change", [{"password": "wrong-one"}, {"database": "nowhere"}, {"user": "nobody"}]
)
def test_a_server_that_refuses_is_named_without_the_password(
    change: dict[str, str], server: Postgres
) -> None:
    with pytest.raises(ConfigError, match="IRIS_DATABASE_URL: the database") as caught:
        Database(server.url(**change))
    for word in (PASSWORD, "wrong-one"):
        assert word not in caught.value.message


def test_a_server_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="See that the server runs"):
        Database(f"postgresql+psycopg://iris:{PASSWORD}@/iris?host={tmp_path}")


def test_a_url_without_a_database_is_refused() -> None:
    with pytest.raises(ConfigError, match="does not name a database"):
        Database("postgresql://iris@db")
