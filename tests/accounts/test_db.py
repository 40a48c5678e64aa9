from __future__ import annotations

import multiprocessing
import stat
import threading
from pathlib import Path

import pytest
from sqlalchemy import text

from iris.accounts.db import Database
from iris.errors import ConfigError


def _pragma(database: Database, name: str) -> object:
    with database.read() as session:
        return session.scalar(text(f"PRAGMA {name}"))


def test_the_file_is_durable_and_waits_for_other_writers(database: Database) -> None:
    assert _pragma(database, "journal_mode") == "wal"
    assert _pragma(database, "synchronous") == 2  # FULL
    assert _pragma(database, "foreign_keys") == 1
    assert _pragma(database, "busy_timeout") == 10_000


def test_the_database_is_readable_by_its_owner_alone(database: Database, tmp_path: Path) -> None:
    home = tmp_path / "home"
    with database.write():
        modes = {file.name: stat.S_IMODE(file.stat().st_mode) for file in home.iterdir()}
    assert stat.S_IMODE(home.stat().st_mode) == 0o700
    assert modes
    assert set(modes.values()) == {0o600}


def test_an_exception_in_a_write_leaves_nothing_behind(database: Database) -> None:
    def halfway() -> None:
        with database.write() as session:
            session.execute(text("CREATE TABLE half (x INTEGER)"))
            raise RuntimeError("halfway")

    with pytest.raises(RuntimeError, match="halfway"):
        halfway()
    with database.read() as session:
        assert session.scalar(text("SELECT count(*) FROM sqlite_master WHERE name='half'")) == 0


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


def test_a_reader_is_not_held_up_by_a_writer(database: Database) -> None:
    with database.write() as writer:
        writer.execute(text("CREATE TABLE later (x INTEGER)"))
        with database.read() as reader:
            rows = reader.scalar(text("SELECT count(*) FROM sqlite_master WHERE name='later'"))
    assert rows == 0


def _open(url: str, barrier: object, results: object) -> None:
    barrier.wait()  # type: ignore[attr-defined]
    try:
        Database(url).close()
    except ConfigError as error:
        results.put(error.message)  # type: ignore[attr-defined]
    else:
        results.put("opened")  # type: ignore[attr-defined]


def test_processes_that_start_together_all_open_the_same_new_database(url: str) -> None:
    context = multiprocessing.get_context("fork")
    barrier, results = context.Barrier(6), context.Queue()
    processes = [context.Process(target=_open, args=(url, barrier, results)) for _ in range(6)]
    for process in processes:
        process.start()
    outcomes = [results.get(timeout=30) for _ in processes]
    for process in processes:
        process.join()
    assert outcomes == ["opened"] * 6


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("nonsense", "is not a database URL"),
        ("sqlite://", "does not name a plain file"),
        ("sqlite:///:memory:", "does not name a plain file"),
        ("sqlite:////tmp/x.db?mode=memory", "does not name a plain file"),
        ("sqlite+aiosqlite:////tmp/x.db", "is not SQLite or PostgreSQL"),
        ("mysql://iris:hunter2@db/iris", "is not SQLite or PostgreSQL"),
    ],
)
def test_another_kind_of_url_is_refused_by_its_key(url: str, said: str) -> None:
    with pytest.raises(ConfigError, match="IRIS_DATABASE_URL") as caught:
        Database(url)
    assert said in caught.value.message
    assert "sqlite:////" in caught.value.message


def test_a_password_in_a_refused_url_is_never_shown() -> None:
    for url in (
        "mysql://iris:hunter2@db/iris",
        "postgresql://iris:hunter2@127.0.0.1:9/iris",
        "postgresql://127.0.0.1:9/iris?password=hunter2",
        "sqlite:////tmp/x.db?password=hunter2",
        "no scheme iris:hunter2@db",
    ):
        with pytest.raises(ConfigError) as caught:
            Database(url)
        assert "hunter2" not in caught.value.message


def test_a_file_that_is_no_database_is_refused_and_left_alone(tmp_path: Path) -> None:
    file = tmp_path / "notes.txt"
    file.write_text("not a database, but a long enough text to be taken for a header" * 20)
    before = file.read_bytes()
    with pytest.raises(ConfigError, match=r"notes\.txt cannot be used as the database"):
        Database(f"sqlite:///{file}")
    assert file.read_bytes() == before


def test_a_folder_where_the_file_should_be_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be used as the database"):
        Database(f"sqlite:///{tmp_path}")
