"""Every database there ever was becomes one of today, and nothing in it is lost."""

from __future__ import annotations

import asyncio
import multiprocessing
import time
from pathlib import Path

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, Engine, inspect, make_url, text

import iris.accounts.keys
import iris.accounts.lease
import iris.accounts.usage  # noqa: F401  all tables of the room are known now
from iris.accounts import migrate
from iris.accounts.accounts import list_accounts, top_up
from iris.accounts.db import Base, Database
from iris.accounts.holds import HoldRow
from iris.accounts.keys import KeyRing, hash_token, list_keys
from iris.accounts.ledger import Ledger
from iris.accounts.limits import CounterRow, Limits
from iris.accounts.outcomes import (
    Claim,
    InTheMaking,
    Mine,
    Replay,
    claim_outcome,
    drop_oldest_bodies,
)
from iris.accounts.postgresql import open_server
from iris.accounts.recovery import resolve_dead
from iris.accounts.sqlite import open_file
from iris.accounts.verify import verify
from iris.errors import ConfigError, InvalidRequest

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


def _upgrade(connection: Connection, version: str) -> None:
    config = Config()
    folder = Path(migrate.__file__).with_name("migrations")
    config.set_main_option("script_location", str(folder))
    config.attributes["connection"] = connection
    command.upgrade(config, version)


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


DAY_MS = 86_400_000
_COLUMNS = "at_ms, kind, is_test, account_id, debit, credit, amount_idr, hold_id, key_id, key_seq"


def make_database_of_0004(url: str) -> None:
    """A key with a picture paid yesterday; one paid, one voided and one in the making today."""
    engine = _engine(url).execution_options(iris_write=True)
    today = int(time.time()) // 86_400
    month = time.gmtime(today * 86_400).tm_year * 12 + time.gmtime(today * 86_400).tm_mon - 1
    yesterday_is_of_this_month = time.gmtime(today * 86_400).tm_mday > 1
    with engine.begin() as connection:
        _upgrade(connection, "0004")
        for statement in (
            "INSERT INTO accounts VALUES ('acc_0', 'toko', 'active', 0)",
            "INSERT INTO balances VALUES ('acc_0', false, 750, 750), ('acc_0', true, 0, 0)",
            "INSERT INTO keys (id, name, is_test, sha256, prefix, last4, created_at, account_id,"
            " rpm, rpd, max_in_flight, monthly_cap_idr) VALUES ('key_0', 'web', false, 'x', 'x',"
            " 'x', 0, 'acc_0', 60, 10000, 10, 0)",
        ):
            connection.execute(text(statement))
        moves = [(0, "top_up", "cash", "available", 3_000, None, None)]
        for number, day, end in ((1, -1, "capture"), (2, 0, "capture"), (3, 0, "void"), (4, 0, "")):
            moves.append((day, "hold", "available", "held", 750, f"hold_{number}", number))
            if end:
                to = "revenue" if end == "capture" else "available"
                moves.append((day, end, "held", to, 750, f"hold_{number}", None))
            if end == "capture":
                connection.execute(
                    text(
                        "INSERT INTO usage VALUES (:hold, 0, 'acc_0', 'key_0', false, 750,"
                        " 'generation', 'none', '64x64', 4, 1, 0, 1, NULL)"
                    ),
                    {"hold": f"hold_{number}"},
                )
        for day, kind, debit, credit, amount, hold, seq in moves:
            key = "key_0" if hold else None
            values = ((today + day) * DAY_MS, kind, False, "acc_0", debit, credit, amount)
            names = [name.strip() for name in _COLUMNS.split(",")]
            connection.execute(
                text(f"INSERT INTO journal ({_COLUMNS}) VALUES (:{', :'.join(names)})"),  # noqa: S608
                dict(zip(names, (*values, hold, key, seq), strict=True)),
            )
        connection.execute(
            text(
                "INSERT INTO holds VALUES ('hold_4', 'acc_0', 'key_0', false, 750, 0, :d, :m, 'l')"
            ),
            {"d": today, "m": month},
        )
        connection.execute(
            text("INSERT INTO counters VALUES ('key_0', :d, 2, :m, :idr, 1, 4, :at)"),
            {
                "d": today,
                "m": month,
                "idr": 750 * (2 + yesterday_is_of_this_month),
                "at": today * DAY_MS,
            },
        )
    engine.dispose()


def test_what_a_key_has_done_counts_on_after_its_counters_were_migrated(
    either_url: str, tmp_path: Path
) -> None:
    make_database_of_0004(either_url)
    database = Database(either_url)
    assert verify(database).breaches == ()
    with database.read() as session:
        counters = session.get_one(CounterRow, "key_0")
        hold = session.get_one(HoldRow, "hold_4")
    assert (counters.day_after, counters.day_count) == (1, 2)
    assert hold.key_seq == 4
    with database.write() as session:
        resolve_dead(session, "l", {}, int(time.time() * 1000))  # gives its place back
    assert verify(database).breaches == ()
    database.close()


def test_replies_that_were_kept_are_given_again_after_the_upgrade(either_url: str) -> None:
    engine = _engine(either_url).execution_options(iris_write=True)
    claims = {
        name: Claim("key_0", name, "f" * 64) for name in ("older", "newer", "gone", "in the making")
    }
    with engine.begin() as connection:
        _upgrade(connection, "0005")
        for at_ms, (name, claim) in enumerate(claims.items()):
            is_there, lease_id = "er" in name, "l" if name == "in the making" else None
            connection.execute(
                text("INSERT INTO outcomes VALUES ('key_0', :token, :f, :at, :lease, '{}', :n)"),
                {
                    "token": claim.token_sha256,
                    "f": claim.fingerprint,
                    "at": at_ms,
                    "lease": lease_id,
                    "n": int(is_there),
                },
            )
            if is_there:
                connection.execute(
                    text("INSERT INTO outcome_bodies VALUES ('key_0', :token, :body)"),
                    {"token": claim.token_sha256, "body": b"x"},
                )
    engine.dispose()
    database = Database(either_url)
    with database.write() as session:
        for name in ("older", "newer"):
            assert isinstance(claim_outcome(session, claims[name], "m", 5), Replay)
        assert isinstance(claim_outcome(session, claims["in the making"], "m", 5), InTheMaking)
        drop_oldest_bodies(session, 1)
        for name in ("older", "gone"):
            with pytest.raises(InvalidRequest, match="no longer kept"):
                claim_outcome(session, claims[name], "m", 5)
        assert isinstance(claim_outcome(session, claims["newer"], "m", 5), Replay)
        resolve_dead(session, "l", {}, 5)
        assert isinstance(claim_outcome(session, claims["in the making"], "m", 5), Mine)
    database.close()


def test_the_migrated_indexes_hold_what_the_statements_say_word_for_word(
    database: Database,
) -> None:
    with database.read() as session:
        tables = inspect(session.connection())
        for table in Base.metadata.tables.values():
            there = {
                index["name"]: str(index["dialect_options"].get("sqlite_where"))
                for index in tables.get_indexes(table.name)
            }
            for index in table.indexes:
                assert there[index.name] == str(index.dialect_options["sqlite"]["where"])


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
