"""The database of accounts: one engine, short transactions, one schema."""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sqlalchemy import URL, Connection, Engine, MetaData, create_engine, event, make_url
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.exc import ArgumentError, DatabaseError
from sqlalchemy.orm import DeclarativeBase, Session
from sqlalchemy.pool import ConnectionPoolEntry

from iris.errors import ConfigError

BUSY_TIMEOUT_S = 10.0  # how long one writer waits for another


class Base(DeclarativeBase):
    """The tables of this room. Constraints have fixed names, so that a migration can name them."""

    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_name)s",
            "uq": "uq_%(table_name)s_%(column_0_name)s",
            "ck": "ck_%(table_name)s_%(constraint_name)s",
            "fk": "fk_%(table_name)s_%(column_0_name)s_%(referred_table_name)s",
            "pk": "pk_%(table_name)s",
        }
    )


class Database:
    """Reading and writing transactions on one SQLite file.

    WAL lets readers go on beside the one writer; `synchronous=FULL` makes a commit survive a power
    cut; a write takes the write lock at its start (BEGIN IMMEDIATE), because a transaction that
    reads first and writes later can only fail, not wait, when another writer was faster.
    Safe to share between threads; every process makes its own.
    """

    def __init__(self, url: str) -> None:
        """Open the database, making file, folder and tables where they are missing.

        Raises:
            ConfigError: the URL is not one of a SQLite file, or the file cannot be used.
        """
        parsed = _parse(url)
        path = Path(str(parsed.database))
        try:
            _make_private_file(path)
            self._engine = _engine(parsed)
            _use_wal(self._engine)
            with self.write() as session:
                Base.metadata.create_all(session.connection())
        except (OSError, DatabaseError) as error:
            raise ConfigError(
                f"IRIS_DATABASE_URL: {path} cannot be used as the database "
                f"({_cause(error)}). Name a file that this user can write."
            ) from error

    @contextmanager
    def read(self) -> Iterator[Session]:
        """A transaction that sees one state of the database; nothing is kept of it."""
        with Session(self._engine, expire_on_commit=False) as session:
            yield session

    @contextmanager
    def write(self) -> Iterator[Session]:
        """A transaction that holds the write lock from its start; committed when the block ends.

        An exception inside the block rolls everything back.
        """
        engine = self._engine.execution_options(iris_write=True)
        with Session(engine, expire_on_commit=False) as session, session.begin():
            session.connection()  # takes the lock now, not at the first statement
            yield session

    def close(self) -> None:
        """Close every pooled connection; the object cannot be used again in a useful way."""
        self._engine.dispose()


def _parse(url: str) -> URL:
    allowed = "Use sqlite:////absolute/path/iris.db; another database is not supported yet."
    try:
        parsed = make_url(url)
    except ArgumentError:
        # the text is repeated nowhere here: it may hold a password in more than one place
        raise ConfigError(f"IRIS_DATABASE_URL is not a database URL. {allowed}") from None
    if parsed.get_backend_name() != "sqlite" or parsed.get_driver_name() != "pysqlite":
        raise ConfigError(
            f"IRIS_DATABASE_URL={parsed.drivername}:... is not a SQLite file. {allowed}"
        )
    if parsed.database in (None, "", ":memory:") or parsed.query:
        # a database in memory would be another one in every process
        raise ConfigError(f"IRIS_DATABASE_URL does not name a plain file. {allowed}")
    return parsed


def _make_private_file(path: Path) -> None:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    # SQLite gives its -wal and -shm files the mode of this one
    os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))


def _engine(url: URL) -> Engine:
    engine = create_engine(url, connect_args={"timeout": BUSY_TIMEOUT_S})

    @event.listens_for(engine, "connect")
    def _configure(connection: DBAPIConnection, _entry: ConnectionPoolEntry) -> None:
        connection.isolation_level = None  # BEGIN is ours, below
        for pragma in ("PRAGMA synchronous=FULL", "PRAGMA foreign_keys=ON"):
            try:
                connection.cursor().execute(pragma)
            except sqlite3.Error as error:  # not wrapped by SQLAlchemy at this point
                raise DatabaseError(pragma, None, error) from error

    @event.listens_for(engine, "begin")
    def _begin(connection: Connection) -> None:
        write = connection.get_execution_options().get("iris_write", False)
        connection.exec_driver_sql("BEGIN IMMEDIATE" if write else "BEGIN")

    return engine


def _use_wal(engine: Engine) -> None:
    # The mode is kept in the file. Changing it does not wait for other connections as a write
    # does, so processes that start together have to ask again.
    deadline = time.monotonic() + BUSY_TIMEOUT_S
    raw = engine.raw_connection()
    try:
        cursor = raw.cursor()
        while True:
            try:
                cursor.execute("PRAGMA journal_mode=WAL")
                break
            except sqlite3.OperationalError as error:
                if error.sqlite_errorcode != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                    raise DatabaseError("PRAGMA journal_mode=WAL", None, error) from error
                time.sleep(0.01)
        cursor.close()
    finally:
        raw.close()


def _cause(error: OSError | DatabaseError) -> str:
    if isinstance(error, OSError):
        return str(error.strerror)
    return str(error.orig)
