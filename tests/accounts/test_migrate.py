"""Every database there ever was becomes one of today, and nothing in it is lost."""

from __future__ import annotations

import asyncio
import multiprocessing
import time
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Engine, make_url, text

import iris.accounts.holds
import iris.accounts.keys
import iris.accounts.lease
import iris.accounts.outcomes
import iris.accounts.usage  # noqa: F401  all tables of the room are known now
from iris.accounts import migrate
from iris.accounts.accounts import list_accounts, top_up
from iris.accounts.db import Base, Database
from iris.accounts.keys import KeyRing, hash_token, list_keys
from iris.accounts.ledger import Ledger
from iris.accounts.limits import Limits
from iris.accounts.postgresql import open_server
from iris.accounts.sqlite import open_file
from iris.accounts.verify import verify
from iris.errors import ConfigError

SECRET = "esk_live_" + "aB3dE6gH" * 4
FIRST = (
    "CREATE TABLE keys (id VARCHAR(20) NOT NULL, name VARCHAR(100) NOT NULL,"
    " is_test BOOLEAN NOT NULL, sha256 VARCHAR(64) NOT NULL, prefix VARCHAR(16) NOT NULL,"
    " last4 VARCHAR(4) NOT NULL, created_at BIGINT NOT NULL, revoked_at BIGINT,"
    " CONSTRAINT pk_keys PRIMARY KEY (id), CONSTRAINT uq_keys_sha256 UNIQUE (sha256))"
)


def _engine(url: str) -> Engine:
    parsed = make_url(url)
    is_file = parsed.get_backend_name() == "sqlite"
    return (open_file if is_file else open_server)(parsed)


def make_first_database(url: str) -> None:
    """As the first version of this program left it, with two keys."""
    engine = _engine(url).execution_options(iris_write=True)
    with engine.begin() as connection:
        connection.execute(text(FIRST))
        for number, secret in enumerate((SECRET, SECRET[::-1])):
            connection.execute(
                text(
                    "INSERT INTO keys VALUES (:id, 'shop', :is_test, :sha256, 'esk_live_aB3',"
                    " 'E6gH', :at, NULL)"
                ),
                {
                    "id": f"key_{number}",
                    "is_test": bool(number),
                    "sha256": hash_token(secret),
                    "at": int(time.time()),
                },
            )
    engine.dispose()


def test_the_first_databases_keep_their_keys_which_get_an_account_and_the_limits(
    either_url: str, tmp_path: Path
) -> None:
    make_first_database(either_url)
    database = Database(either_url)
    (account,) = list_accounts(database)
    assert account.name == "default"
    assert account.live.available_idr == 0
    assert account.test.available_idr > 0
    records = list_keys(database)
    assert [record.key.id for record in records] == ["key_0", "key_1"]
    assert {record.key.account_id for record in records} == {account.id}
    assert {record.limits for record in records} == {Limits()}
    key = asyncio.run(KeyRing(database).authenticate(SECRET))
    top_up(database, "default", 750)
    ledger = Ledger(database, tmp_path)
    asyncio.run(ledger.reserve(key.id))
    ledger.close()
    assert verify(database).breaches == ()
    database.close()


def test_the_migrated_schema_is_the_one_of_the_program(either: Database) -> None:
    with either.read() as session:
        context = MigrationContext.configure(session.connection())
        assert compare_metadata(context, Base.metadata) == []


def test_the_newest_migration_is_the_one_the_program_wants() -> None:
    config = Config()
    folder = Path(migrate.__file__).with_name("migrations")
    config.set_main_option("script_location", str(folder))
    script = ScriptDirectory.from_config(config)
    assert script.get_heads() == [migrate.HEAD]
    revisions = [revision.revision for revision in script.walk_revisions()]
    assert revisions == sorted(revisions, reverse=True)


def test_a_database_of_a_later_program_is_refused_and_left_alone(either_url: str) -> None:
    database = Database(either_url)
    with database.write() as session:
        session.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    database.close()
    with pytest.raises(ConfigError, match="9999"):
        Database(either_url)


def _open(url: str, barrier: object, results: object) -> None:
    barrier.wait()  # type: ignore[attr-defined]
    try:
        Database(url).close()
        results.put("opened")  # type: ignore[attr-defined]
    except Exception as error:
        results.put(repr(error))  # type: ignore[attr-defined]


def test_services_that_start_together_migrate_it_once(either_url: str) -> None:
    make_first_database(either_url)
    context = multiprocessing.get_context("fork")
    barrier, results = context.Barrier(4), context.Queue()
    processes = [
        context.Process(target=_open, args=(either_url, barrier, results)) for _ in range(4)
    ]
    for process in processes:
        process.start()
    assert [results.get(timeout=60) for _ in processes] == ["opened"] * 4
    for process in processes:
        process.join()
    database = Database(either_url)
    assert len(list_accounts(database)) == 1
    database.close()


def test_a_migration_that_fails_leaves_the_old_database(either_url: str) -> None:
    make_first_database(either_url)
    engine = _engine(either_url).execution_options(iris_write=True)
    with engine.begin() as connection:  # in the way of the last migration
        connection.execute(text("CREATE TABLE outcome_bodies (x INTEGER)"))
    with pytest.raises(ConfigError, match="cannot be used"):
        Database(either_url)
    with engine.begin() as connection:
        assert migrate.version_of(connection) == "0001"
        assert connection.scalar(text("SELECT count(*) FROM keys")) == 2
        connection.execute(text("DROP TABLE outcome_bodies"))
    engine.dispose()
    database = Database(either_url)
    assert len(list_keys(database)) == 2
    database.close()
